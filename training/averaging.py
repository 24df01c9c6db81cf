"""The average of the weights of a run's last checkpoints (§6.1)."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformer2017.configuration import UsageError
from transformer2017.configuration.token_numbers import saved_tokenizer
from transformer2017.modeling import Transformer2017ForConditionalGeneration
from transformers import PreTrainedModel

from .checkpoints import checkpoints_of, is_whole
from .saving import MARK, save_model

WEIGHTS = "model.safetensors"


def last_checkpoints(run: Path, count: int) -> list[Path]:
    """The run's last whole checkpoints, oldest first.

    Raises:
        UsageError: If the folder holds none.
    """
    whole = [path for path in checkpoints_of(run) if is_whole(path)]
    if not whole:
        raise UsageError(f"{run} holds no checkpoints (folders named checkpoint-NUMBER).")
    return whole[-count:]


def average_weights(folders: list[Path]) -> dict[str, torch.Tensor]:
    """The mean of each weight over the folders, summed in float64 and given in the type it had."""
    total: dict[str, torch.Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    for folder in folders:
        for name, weight in load_file(folder / WEIGHTS).items():
            dtypes[name] = weight.dtype
            total[name] = total[name] + weight.double() if name in total else weight.double()
    return {name: (weight / len(folders)).to(dtypes[name]) for name, weight in total.items()}


def set_weights(model: PreTrainedModel, weights: dict[str, torch.Tensor]) -> None:
    """Gives the model these weights; tied ones need to be named once only."""
    model.load_state_dict(weights, strict=False)
    model.tie_weights()


def average_run(run: Path, last: int, output_dir: Path, overwrite: bool = False) -> list[Path]:
    """Writes a model folder with the average of a run's last checkpoints.

    Returns:
        The checkpoints that it was made of.

    Raises:
        UsageError: If there are no checkpoints, fewer than asked for, or the output folder holds a model.
    """
    if last < 1:
        raise UsageError(f"--last {last}: give the number of checkpoints to average, at least 1.")
    if (output_dir / MARK).is_file() and not overwrite:
        raise UsageError(f"{output_dir} holds a model: give another --output_dir, or --overwrite_output_dir.")
    used = last_checkpoints(run, last)
    if len(used) < last:
        raise UsageError(f"{run} holds {len(used)} whole checkpoints, not {last}: give --last {len(used)}.")
    weights = average_weights(used)
    model = Transformer2017ForConditionalGeneration.from_pretrained(used[-1])
    set_weights(model, weights)
    save_model(model, saved_tokenizer(used[-1]), output_dir)
    return used
