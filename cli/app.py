"""`transformer2017 app`: a page on localhost to translate and look inside, or the same page as a Space of the Hub."""

import argparse
import os
from pathlib import Path

from transformer2017.configuration import UsageError

from .translate import load

SPACE_APP = """\
import os
import sys

from transformer2017.cli import main

sys.exit(main(["app", os.environ.get("MODEL", {model!r})]))
"""
SPACE_README = """\
---
title: {title}
emoji: 🔎
sdk: gradio
app_file: app.py
models:
- {model}
---

Translates with [{model}](https://huggingface.co/{model}) and shows the translation from inside. The environment
variable MODEL names another model.
"""
SPACE_REQUIREMENTS = "transformer2017[app]\n"


def run(argv: list[str]) -> int:
    """Serves the page until it is interrupted, or writes the folder of a Space."""
    arguments = _parser().parse_args(argv)
    if arguments.space:
        return _write_space(arguments.model, Path(arguments.space))
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported
    from transformer2017.inspection import app

    model, tokenizer = load(arguments.model)
    local = Path(arguments.model)
    page = app.build(model, tokenizer, local.resolve().name if local.exists() else arguments.model)
    on_the_hub = "SPACE_ID" in os.environ  # where the Hub's own proxy is the only one that reaches the machine
    app.launch(page, "0.0.0.0" if on_the_hub else "127.0.0.1", arguments.port)
    return 0


def _write_space(model: str, folder: Path) -> int:
    if Path(model).exists() or model.count("/") != 1:
        raise UsageError(f"a Space loads its model from the Hub: give its name there, as user/name, and not {model!r}")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty: name a new folder for the Space")
    folder.mkdir(parents=True, exist_ok=True)
    title = model.rpartition("/")[2]
    (folder / "app.py").write_text(SPACE_APP.format(model=model), encoding="utf-8")
    (folder / "requirements.txt").write_text(SPACE_REQUIREMENTS, encoding="utf-8")
    (folder / "README.md").write_text(SPACE_README.format(model=model, title=title), encoding="utf-8")
    print(f"{folder}: a Space; upload it with: hf upload USER/{title} {folder} --repo-type space")
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
