"""The model and the tokenizer that a command names."""

from pathlib import Path
from typing import Any

from transformer2017.configuration import UsageError, in_a_line
from transformer2017.configuration.manifest import check_folder, check_weights
from transformer2017.configuration.placement import placed
from transformer2017.configuration.token_numbers import saved_tokenizer


def load(name: str, precision: str = "float32", device: str | None = None) -> tuple[Any, Any]:
    """Loads a model of this package, in evaluation mode, and its tokenizer. No code of the folder is run.

    Raises:
        UsageError: If there is no such model, a part of it is missing, or it is not as its manifest says.
    """
    import torch
    from transformer2017 import Transformer2017Config, Transformer2017ForConditionalGeneration

    check_folder(name)
    _check_parts(name)
    try:
        config = Transformer2017Config.from_pretrained(name)
        if config.model_type != Transformer2017Config.model_type:
            raise UsageError(f"{name!r} is a model of type {config.model_type!r}, not transformer2017")
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        model, told = Transformer2017ForConditionalGeneration.from_pretrained(
            name, config=config, dtype=dtype, output_loading_info=True
        )
        check_weights(name, told)
    except UsageError:
        raise
    except Exception as error:  # files of any kind of damage raise errors of any kind
        raise UsageError(f"the model {name!r} cannot be loaded: {in_a_line(error)}") from error
    try:
        tokenizer = saved_tokenizer(name)
    except Exception as error:
        raise UsageError(f"the tokenizer of {name!r} cannot be loaded: {in_a_line(error)}") from error
    return placed(model.eval(), "cpu" if device is None and precision == "int8" else device), tokenizer


def _check_parts(name: str) -> None:
    """Refuses a folder without weights or tokenizer."""
    folder = Path(name)
    if not folder.is_dir():
        return
    if not any(folder.glob("*.safetensors*")):
        raise UsageError(f"{name!r} holds no weights (model.safetensors): has its training saved a model yet?")
    if not any((folder / part).is_file() for part in ("tokenizer.json", "vocab.json", "source.spm")):
        raise UsageError(f"{name!r} holds no tokenizer (tokenizer.json)")
