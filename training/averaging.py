"""The average of the weights of a run's last checkpoints (§6.1)."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers.trainer_utils import sort_checkpoints

from transformer2017.configuration import UsageError

WEIGHTS = "model.safetensors"


def last_checkpoints(run: Path, count: int) -> list[Path]:
    """The run's last checkpoints, oldest first.

    Raises:
        UsageError: If the folder holds none.
    """
    checkpoints = [Path(path) for path in sort_checkpoints(output_dir=str(run))] if run.is_dir() else []
    checkpoints = [path for path in checkpoints if (path / WEIGHTS).is_file()]
    if not checkpoints:
        raise UsageError(f"{run} holds no checkpoints (folders named checkpoint-NUMBER).")
    return checkpoints[-count:]


def average_weights(checkpoints: list[Path]) -> dict[str, torch.Tensor]:
    """The mean of each weight over the checkpoints, summed in float64 and given in the type it had."""
    total: dict[str, torch.Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    for checkpoint in checkpoints:
        for name, weight in load_file(checkpoint / WEIGHTS).items():
            dtypes[name] = weight.dtype
            total[name] = total[name] + weight.double() if name in total else weight.double()
    return {name: (weight / len(checkpoints)).to(dtypes[name]) for name, weight in total.items()}
