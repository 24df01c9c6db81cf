"""`transformer2017 export`: a model in another format, checked by running the result."""

import argparse
import itertools
from pathlib import Path
from typing import Any

from transformer2017.configuration import UsageError
from transformer2017.configuration.manifest import written_whole

from .lines import Lines, open_bytes
from .loading import load

FORMATS = ("marian", "ctranslate2", "onnx", "argos", "marian-npz")
COMPARED_LINES = 1000


def run(argv: list[str]) -> int:
    """Writes the model in the format and prints the report of the comparison."""
    arguments = _parser().parse_args(argv)
    with written_whole(Path(arguments.output_dir)) as folder:
        model, tokenizer = load(arguments.model, device="cpu")  # where what is written is compared
        report = _export(arguments, folder, model, tokenizer, _sources(arguments, tokenizer))
    print(f"{report}\n  written to {arguments.output_dir}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="transformer2017 export",
        description="Writes a model in another format, runs the result, and reports how far it is from the model.",
    )
    parser.add_argument(
        "format",
        choices=FORMATS,
        help="marian: MarianMT for plain transformers; ctranslate2; onnx, for onnxruntime; argos: a package for Argos "
        "Translate and LibreTranslate; marian-npz: Marian's own",
    )
    parser.add_argument("model", help="folder of a model, or its name on the Hub")
    parser.add_argument("--output_dir", required=True, help="folder to write, new or empty")
    parser.add_argument(
        "--quantization",
        default="float32",
        help="float32, or int8 (ctranslate2, argos and onnx); ctranslate2 and argos also int8_float32, int16, float16 "
        "and bfloat16 (%(default)s)",
    )
    parser.add_argument(
        "--source", help=f"text to compare on: the first {COMPARED_LINES:,} lines of a file, or of standard input (-)"
    )
    parser.add_argument("--source_language", help="code of the source language, such as en (argos)")
    parser.add_argument("--target_language", help="code of the target language, such as de (argos)")
    return parser


def _sources(arguments: argparse.Namespace, tokenizer: Any) -> list[list[int]] | None:
    """Token ids of the lines to compare on; None where no file is given."""
    if arguments.source is None:
        return None
    with open_bytes(arguments.source) as file:
        read = Lines([file])
        lines = list(itertools.islice((line for line in read if line.strip()), COMPARED_LINES))
    if read.faulty:
        raise UsageError(f"--source {arguments.source}, line {read.faulty[0]}: not UTF-8 text")
    if not lines:
        raise UsageError(f"--source {arguments.source} holds no text")
    return [tokenizer(line)["input_ids"] for line in lines]


def _export(
    arguments: argparse.Namespace, output_dir: Path, model: Any, tokenizer: Any, sources: list[list[int]] | None
) -> object:
    """Calls the room that writes the format; each is imported only where it is wanted."""
    quantization = arguments.quantization
    if arguments.format in ("marian", "marian-npz") and quantization != "float32":
        raise UsageError(f"--quantization {quantization}: the format {arguments.format} holds float32 only")
    if arguments.format == "marian":
        from transformer2017.interchange.marian import export_marian

        return export_marian(model, tokenizer, output_dir, sources)
    if arguments.format == "ctranslate2":
        from transformer2017.interchange.ctranslate2 import export_ctranslate2

        return export_ctranslate2(model, tokenizer, output_dir, quantization, sources)
    if arguments.format == "onnx":
        from transformer2017.interchange.onnx import export_onnx

        return export_onnx(model, tokenizer, output_dir, quantization, sources)
    if arguments.format == "marian-npz":
        from transformer2017.interchange.marian_npz import export_marian_npz

        return export_marian_npz(model, tokenizer, output_dir, sources)
    from transformer2017.interchange.argos import export_argos

    if not arguments.source_language or not arguments.target_language:
        raise UsageError("an Argos package names its languages: give --source_language and --target_language")
    languages = (arguments.source_language, arguments.target_language)
    return export_argos(model, tokenizer, output_dir, *languages, quantization, sources)
