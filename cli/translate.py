"""`transformer2017 translate`: a line out for each line in, in order."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformer2017.configuration import UsageError

MAX_TOKENS_BEYOND_INPUT = 50  # §6.1


def run(argv: list[str]) -> int:
    """Translates standard input or files to standard output."""
    arguments = _parser().parse_args(argv)
    for path in arguments.files:
        if path != "-" and not Path(path).is_file():
            raise UsageError(f"there is no file {path!r} to translate")
    translator = _translator(arguments)
    for translation in translator.translate(_lines(arguments.files or ["-"])):
        sys.stdout.write(translation.text + "\n")
        sys.stdout.flush()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="transformer2017 translate", description="Translates lines: a line out for each line in, in order."
    )
    parser.add_argument("model", help="folder of a model, or its name on the Hub")
    parser.add_argument("files", nargs="*", help="files to translate, one after the other; - is standard input")
    parser.add_argument("--num_beams", type=int, default=None, help="beam size (the model's own setting)")
    parser.add_argument("--length_penalty", type=float, default=None, help="power of the length that divides a score")
    parser.add_argument("--batch_tokens", type=int, default=2048, help="source tokens in a batch (%(default)s)")
    parser.add_argument("--window", type=int, default=2048, help="lines sorted by length together (%(default)s)")
    return parser


def _translator(arguments: argparse.Namespace) -> Any:
    from transformer2017.modeling.translation import Translator

    model, tokenizer = load(arguments.model)
    generation = {name: getattr(arguments, name) for name in ("num_beams", "length_penalty")}
    generation = {name: value for name, value in generation.items() if value is not None}
    if model.generation_config.max_length is None and model.generation_config.max_new_tokens is None:
        generation["max_tokens_beyond_input"] = getattr(
            model.generation_config, "max_tokens_beyond_input", MAX_TOKENS_BEYOND_INPUT
        )
    return Translator(model, tokenizer, batch_tokens=arguments.batch_tokens, window=arguments.window, **generation)


def load(name: str) -> tuple[Any, Any]:
    """Loads a model of this package, in evaluation mode, and its tokenizer. No code of the folder is run.

    Raises:
        UsageError: If there is no such model, or a part of it is missing.
    """
    from transformer2017 import Transformer2017Config, Transformer2017ForConditionalGeneration
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    if not sys.stderr.isatty():
        disable_progress_bar()
    folder = Path(name)
    if not folder.is_dir() and (folder.exists() or name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise UsageError(f"there is no model folder {name!r}")
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UsageError(f"{name!r} holds no config.json, so it is not a model folder")
        if not any(folder.glob("*.safetensors*")):
            raise UsageError(f"{name!r} holds no weights (model.safetensors): has its training saved a model yet?")
        if not any((folder / part).is_file() for part in ("tokenizer.json", "vocab.json", "source.spm")):
            raise UsageError(f"{name!r} holds no tokenizer (tokenizer.json)")
    try:
        config = Transformer2017Config.from_pretrained(name)
        if config.model_type != Transformer2017Config.model_type:
            raise UsageError(f"{name!r} is a model of type {config.model_type!r}, not transformer2017")
        model = Transformer2017ForConditionalGeneration.from_pretrained(name, config=config).eval()
    except OSError as error:
        raise UsageError(f"the model {name!r} cannot be loaded: {str(error).splitlines()[0]}") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UsageError(f"the tokenizer of {name!r} cannot be loaded: {str(error).splitlines()[0]}") from error
    return model, tokenizer


def _lines(paths: list[str]) -> Iterator[str]:
    """The lines of the files, without their ends."""
    for path in paths:
        if path == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin)
            continue
        with open(path, encoding="utf-8") as file:
            yield from (line.rstrip("\r\n") for line in file)
