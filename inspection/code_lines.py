"""Finds the line of code that does a thing, in the source that is running: line numbers are never written down."""

import importlib
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from transformer2017.configuration import RunError
from transformers import PreTrainedModel

INSTALLED = "transformer2017.modeling"


@dataclass(frozen=True)
class CodeLine:
    """A line of code."""

    file: str  # such as "modeling/attention.py"
    number: int  # counted from 1
    code: str


def find_line(model: PreTrainedModel, module: str, owner: str, snippet: str) -> CodeLine:
    """Finds the first line that contains `snippet` in a class or function of the model's code.

    Args:
        model: Its own code is read, which for a model loaded from a folder with remote code is that folder's.
        module: Name of the file, without ".py".
        owner: The class or function within it, such as "MultiHeadAttention.forward".
        snippet: What the line contains.

    Raises:
        RunError: If no such line exists, as after a change of the model's code.
    """
    source_module = _module(type(model).__module__.rpartition(".")[0], module)
    found: Any = source_module
    for name in owner.split("."):
        found = getattr(found, name, None)
        if found is None:
            raise RunError(f"{module}.py has no {owner}, which the walk points to")
    lines, first = inspect.getsourcelines(found)
    for offset, line in enumerate(lines):
        if snippet in line:
            file = Path(source_module.__file__ or f"{module}.py").name
            return CodeLine(f"modeling/{file}", first + offset, line.strip())
    raise RunError(f"no line of {owner} in {module}.py contains {snippet!r}, which the walk points to")


def _module(package: str, name: str) -> ModuleType:
    """The model's own file, or the installed package's where the model's folder has not loaded one of that name."""
    own = sys.modules.get(f"{package}.{name}")
    return own or importlib.import_module(f"{INSTALLED}.{name}")
