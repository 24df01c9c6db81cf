"""Writes the folder of a Space of the Hub: the app, with the code that it runs."""

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from transformer2017.configuration import UsageError
from transformer2017.configuration.manifest import written_whole

APP = """\
import os
import sys

from transformer2017.cli import main

sys.exit(main(["app", os.environ.get("MODEL", {model!r})]))
"""
README = """\
---
title: {title}
emoji: 🔎
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
models:
- {model}
---

Translates with [{model}](https://huggingface.co/{model}) and shows the translation from inside. The environment
variable MODEL names another model. The folder `transformer2017` is the package's own code, as it was when
`transformer2017 app --space` wrote this Space.
"""
ROOMS = ("", ".cli", ".configuration", ".inspection", ".modeling")  # of the package: those that the app needs
FOR_TOKENIZERS = "sentencepiece\n"  # those of models that were imported from Marian
KINDS_OF_FILE = (".py", ".html", ".css", ".js")


def write_space(model: str, folder: Path) -> None:
    """Writes a Space that needs no release of this package: its code lies beside `app.py`, where Python finds it.

    What it needs from others is named in the versions installed here.

    Raises:
        UsageError: If the model is not a name on the Hub, the folder is not empty, or Gradio is not installed.
    """
    if Path(model).exists() or model.count("/") != 1:
        raise UsageError(f"a Space loads its model from the Hub: give its name there, as user/name, and not {model!r}")
    versions = {name: _version(name) for name in ("torch", "transformers", "gradio")}
    title, python = model.rpartition("/")[2], f"{sys.version_info.major}.{sys.version_info.minor}"
    readme = README.format(model=model, title=title, gradio=versions["gradio"], python=python)
    requirements = "".join(f"{name}=={number}\n" for name, number in versions.items()) + FOR_TOKENIZERS
    texts = {"app.py": APP.format(model=model), "requirements.txt": requirements, "README.md": readme}
    with written_whole(folder) as beside:
        for room in ROOMS:
            _copy(f"transformer2017{room}", beside.joinpath("transformer2017", *room.split(".")[1:]))
        for name, text in texts.items():
            (beside / name).write_text(text, encoding="utf-8")


def _copy(package: str, folder: Path) -> None:
    """Copies a room's own files, wherever it is installed."""
    folder.mkdir(exist_ok=True)
    for file in files(package).iterdir():
        if file.name.endswith(KINDS_OF_FILE):
            folder.joinpath(file.name).write_bytes(file.read_bytes())


def _version(name: str) -> str:
    """The installed version, as PyPI knows it: without "+cpu" and the like."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError as error:
        raise UsageError(f"a Space names the version of {name} that runs here: pip install {name}") from error
