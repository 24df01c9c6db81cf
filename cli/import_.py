"""`transformer2017 import`: a model of another format, as a folder of ours to use or fine-tune."""

import argparse
from pathlib import Path

from transformer2017.configuration import UsageError
from transformer2017.configuration.manifest import write_manifest, written_whole


def run(argv: list[str]) -> int:
    """Reads the model and prints the report of what was compared."""
    arguments = _parser().parse_args(argv)
    with written_whole(Path(arguments.output_dir)) as folder:
        report = _import(arguments, folder)
        write_manifest(folder)
    print(f"{report}\n  written to {arguments.output_dir}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="transformer2017 import",
        description="Reads a model of another format and writes it as a model folder, to use or to fine-tune.",
    )
    parser.add_argument(
        "format",
        choices=("marian", "fairseq", "torch"),
        help="marian: a folder (or a name on the Hub) of transformers' MarianMT, such as the opus-mt models; fairseq: "
        "a checkpoint of its transformer; torch: a state dict that holds an nn.Transformer",
    )
    parser.add_argument("path", help="folder or file to read")
    parser.add_argument("--output_dir", required=True, help="folder to write, new or empty")
    parser.add_argument("--dictionary", help="dict.XX.txt of a fairseq checkpoint")
    parser.add_argument("--num_heads", type=int, help="h of an nn.Transformer, which its state dict does not tell")
    parser.add_argument(
        "--activation_function", default="relu", help="relu or gelu, of an nn.Transformer (%(default)s)"
    )
    for name, default in (("pad", 0), ("start", 1), ("end", 2)):
        parser.add_argument(
            f"--{name}_token_id", type=int, default=default, help=f"{name} token of an nn.Transformer (%(default)s)"
        )
    return parser


def _import(arguments: argparse.Namespace, output_dir: Path) -> object:
    """Calls the room that reads the format; each is imported only where it is wanted."""
    if arguments.format == "marian":
        from transformer2017.interchange.marian import import_marian

        return import_marian(arguments.path, output_dir)
    if not Path(arguments.path).is_file():
        raise UsageError(f"there is no file {arguments.path}")
    if arguments.format == "fairseq":
        from transformer2017.interchange.fairseq import import_fairseq

        return import_fairseq(arguments.path, arguments.dictionary, output_dir)
    from transformer2017.interchange.torch_transformer import import_torch

    if arguments.num_heads is None:
        raise UsageError("a state dict does not tell its number of heads: give --num_heads")
    return import_torch(
        arguments.path,
        output_dir,
        num_heads=arguments.num_heads,
        activation_function=arguments.activation_function,
        pad_token_id=arguments.pad_token_id,
        start_token_id=arguments.start_token_id,
        end_token_id=arguments.end_token_id,
    )
