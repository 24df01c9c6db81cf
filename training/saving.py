"""Writing a model folder whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformer2017.configuration import RunError
from transformer2017.configuration.manifest import write_manifest
from transformer2017.modeling.output_length import TOKENS_BEYOND_INPUT
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

MARK = "config.json"  # a folder without it is no model folder: it comes last, and goes first


def paper_generation_config(config: PreTrainedConfig, beyond_input: int = TOKENS_BEYOND_INPUT) -> GenerationConfig:
    """Beam size 4, length penalty 0.6, output at most 50 tokens longer than the input (§6.1), or `beyond_input`.

    Departure: transformers divides by length ** 0.6, where the paper divides by ((5 + length) / 6) ** 0.6.
    """
    generation = GenerationConfig(
        num_beams=4,
        length_penalty=0.6,
        early_stopping=True,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
    )
    generation.max_tokens_beyond_input = beyond_input
    return generation


@contextmanager
def saying_cache(model: PreTrainedModel) -> Iterator[None]:
    """Has the configuration say what holds for decoding: `Trainer` turns the cache off, for training alone."""
    before, model.config.use_cache = model.config.use_cache, True
    try:
        yield
    finally:
        model.config.use_cache = before


def is_finite(model: PreTrainedModel) -> bool:
    """Whether every weight is a number."""
    return all(torch.isfinite(weight).all() for weight in model.parameters())


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, card: str = "") -> None:
    """Writes model, tokenizer and card beside the folder, then moves them in, the file that makes it a model last.

    So whoever looks finds the old model, no model, or the new one, and never a mixture.

    Raises:
        RunError: If a weight is not a number: such a model translates nothing.
    """
    if not is_finite(model):
        raise RunError(f"A weight of the model is not a number: nothing was written to {folder}.")
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / ".writing"
    shutil.rmtree(beside, ignore_errors=True)
    with saying_cache(model):
        model.save_pretrained(beside)
    tokenizer.save_pretrained(beside)
    write_manifest(beside)
    if card:
        (beside / "README.md").write_text(card, encoding="utf-8")
    (folder / MARK).unlink(missing_ok=True)
    for file in sorted(beside.iterdir(), key=lambda file: file.name == MARK):
        os.replace(file, folder / file.name)
    beside.rmdir()
