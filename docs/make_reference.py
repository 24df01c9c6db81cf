"""Makes docs/reference/ from docstrings: a page a room of the package, with its public names, and the command's verbs.

python docs/make_reference.py
"""

import contextlib
import importlib
import inspect
import io
from pathlib import Path

from transformer2017.cli import VERBS, main

HERE = Path(__file__).parent / "reference"
ROOMS = {
    "configuration": ["transformer2017.configuration"],
    "modeling": [
        "transformer2017.modeling",
        "transformer2017.modeling.translation",
        "transformer2017.modeling.pipeline_transformer2017",
    ],
    "training": [
        f"transformer2017.training.{stage}"
        for stage in ("tokenization", "data", "batching", "schedule", "evaluation", "averaging")
    ],
    "inspection": ["transformer2017.inspection", "transformer2017.inspection.figures"],
}


def pages() -> dict[str, str]:
    """The text of each page by the name of its file."""
    made = {f"{room}.md": _room(room, modules) for room, modules in ROOMS.items()}
    made["command.md"] = _command()
    listed = "\n".join(f"- [{name.removesuffix('.md')}]({name})" for name in made)
    made["README.md"] = f"# Reference\n\nMade from docstrings by `python docs/make_reference.py`.\n\n{listed}\n"
    return made


def _room(room: str, modules: list[str]) -> str:
    parts = [f"# {room}\n"]
    for name in modules:
        module = importlib.import_module(name)
        parts.append(f"## `{name}`\n\n{inspect.getdoc(module)}\n")
        parts += [_entry(name, public, getattr(module, public)) for public in _public(module)]
    return "\n".join(parts)


def _public(module: object) -> list[str]:
    """What `__all__` names, or else the classes and functions that the module itself defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = inspect.getmembers(module, lambda value: inspect.isfunction(value) or inspect.isclass(value))
    return [name for name, value in own if value.__module__ == module.__name__ and not name.startswith("_")]  # type: ignore[attr-defined]


def _entry(module: str, name: str, value: object) -> str:
    text = [f"### `{module}.{name}`\n"]
    if inspect.isfunction(value):
        text.append(f"```python\n{name}{inspect.signature(value)}\n```\n")
    if inspect.isclass(value) or inspect.isfunction(value):
        text.append(f"```text\n{inspect.getdoc(value) or ''}\n```\n")
    if inspect.isclass(value):
        for method, function in inspect.getmembers(value, inspect.isfunction):
            if not method.startswith("_") and function.__qualname__.startswith(f"{value.__name__}."):
                text.append(f"- `{name}.{method}`: {(inspect.getdoc(function) or '').splitlines()[0]}")
        text.append("")
    return "\n".join(text)


def _command() -> str:
    """What each verb says of itself."""
    parts = ["# The command\n"]
    for verb in VERBS:
        try:
            text = _help(verb)
        except ModuleNotFoundError:
            continue
        if verb == "doctor":  # its flags are those of `train`, which the page has already
            text = text.partition("\n\noptions:")[0]
        parts.append(f"## `transformer2017 {verb}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _help(verb: str) -> str:
    """The text of `--help`, with the same width everywhere."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([verb, "--help"])
    return printed.getvalue().strip()


if __name__ == "__main__":
    import os

    os.environ["COLUMNS"] = "100"
    HERE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
