"""The average of the weights of a run's last checkpoints (§6.1)."""

import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformer2017.configuration import UsageError
from transformer2017.configuration.token_numbers import saved_tokenizer
from transformer2017.modeling import Transformer2017ForConditionalGeneration
from transformers import PreTrainedModel

from .checkpoints import checkpoints_of, is_whole
from .saving import save_model

WEIGHTS = "model.safetensors"
logger = logging.getLogger(__name__)


def last_checkpoints(run: Path, count: int) -> list[Path]:
    """The run's last whole checkpoints, oldest first.

    Raises:
        UsageError: If the folder holds none.
    """
    found = checkpoints_of(run)
    whole = [path for path in found if is_whole(path)]
    if not found:
        raise UsageError(f"{run} holds no checkpoints (folders named checkpoint-NUMBER).")
    if not whole:
        raise UsageError(f"{run} holds {len(found)} checkpoints, and none is as its manifest.json says, or has one.")
    used = whole[-count:]
    for torn in found[found.index(used[0]) :]:
        if torn not in used:
            logger.warning("%s is torn and is not used", torn)
    return used


def average_weights(folders: list[Path]) -> dict[str, torch.Tensor]:
    """The mean of each weight over the folders, summed in float64 and given in the type it had.

    Raises:
        UsageError: If one holds other weights than the first.
    """
    total: dict[str, torch.Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    for folder in folders:
        weights = load_file(folder / WEIGHTS)
        shapes = {name: weight.shape for name, weight in weights.items()}
        if total and shapes != {name: weight.shape for name, weight in total.items()}:
            raise UsageError(
                f"{folder} holds weights of other names or sizes than {folders[0]}, so they have no mean."
            )
        for name, weight in weights.items():
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
        UsageError: If there are no checkpoints, fewer than asked for, or the output folder is one of them or holds
            something.
    """
    if last < 1:
        raise UsageError(f"--last {last}: give the number of checkpoints to average, at least 1.")
    if output_dir.resolve() in [path.resolve() for path in checkpoints_of(run)]:
        raise UsageError(f"{output_dir} is a checkpoint of the run, which goes on from it: give another --output_dir.")
    if output_dir.exists() and not (output_dir.is_dir() and (overwrite or not any(output_dir.iterdir()))):
        raise UsageError(f"{output_dir} is not an empty folder: give another --output_dir, or --overwrite_output_dir.")
    used = last_checkpoints(run, last)
    if len(used) < last:
        raise UsageError(f"{run} holds {len(used)} whole checkpoints, not {last}: give --last {len(used)}.")
    weights = average_weights(used)
    model = Transformer2017ForConditionalGeneration.from_pretrained(used[-1])
    set_weights(model, weights)
    save_model(model, saved_tokenizer(used[-1]), output_dir)
    return used
