"""`transformer2017 app`: a page on localhost to translate and look inside, or the same page as a Space of the Hub."""

import argparse
import os
from pathlib import Path

from transformer2017.configuration import UsageError

from .loading import load
from .space import write_space


def run(argv: list[str]) -> int:
    """Serves the page until it is interrupted, or writes the folder of a Space."""
    arguments = _parser().parse_args(argv)
    if arguments.port is not None and not 0 < arguments.port < 2**16:
        raise UsageError(f"--port is a number from 1 to 65535, not {arguments.port}")
    if arguments.space:
        write_space(arguments.model, Path(arguments.space))
        name = arguments.model.rpartition("/")[2]
        print(f"{arguments.space}: a Space; upload it with: hf upload USER/{name} {arguments.space} --repo-type space")
        return 0
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported
    from transformer2017.inspection import app

    model, tokenizer = load(arguments.model)
    local = Path(arguments.model)
    page = app.build(model, tokenizer, local.resolve().name if local.exists() else arguments.model)
    on_the_hub = "SPACE_ID" in os.environ  # where the Hub's own proxy is the only one that reaches the machine
    app.launch(page, "0.0.0.0" if on_the_hub else "127.0.0.1", arguments.port)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="transformer2017 app",
        description="Serves a page on this computer: translate, choose beam and length penalty, see the n best with "
        "their scores, and look inside a translation.",
    )
    parser.add_argument("model", help="folder of a model, or its name on the Hub")
    parser.add_argument("--port", type=int, default=None, help="port of 127.0.0.1 (the first free from 7860)")
    parser.add_argument("--space", metavar="DIR", help="write the same page as the folder of a Space, and stop")
    return parser
