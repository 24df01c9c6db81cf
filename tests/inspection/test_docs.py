"""The pages that commands make: they say what the code says today."""

import importlib
import inspect
import re
import runpy
from pathlib import Path

import pytest
from transformer2017.inspection.code_lines import find_line
from transformer2017.inspection.terms import STOPS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_tour_has_every_term_and_the_code_as_it_is(small_model):
    """A line that has changed in modeling/ makes the tour old: make it again with docs/make_tour.py."""
    tour = (DOCS / "tour.md").read_text(encoding="utf-8")
    for stop in STOPS:
        assert f"{stop.term} ({stop.korean}, {stop.section})" in tour
        for place in stop.code:
            line = find_line(small_model, *place)
            assert f"In [{line.file}](../{line.file}):\n\n```python\n{line.code}\n```" in tour


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda path: str(path.relative_to(DOCS)))
def test_pages_point_only_at_what_is_there(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_reference_holds_the_public_names():
    """docs/make_reference.py reads each room's public names, its docstrings, and each verb's help."""
    pages = runpy.run_path(str(DOCS / "make_reference.py"))["pages"]()
    assert "### `transformer2017.inspection.explain`" in pages["inspection.md"]
    assert "Raises:\n    UsageError" in pages["inspection.md"]
    assert "### `transformer2017.modeling.Transformer2017ForConditionalGeneration`" in pages["modeling.md"]
    assert "--figures DIR" in pages["command.md"]
    assert "### `transformer2017.training.averaging.average_run`" in pages["training.md"]
    assert set(pages) == {path.name for path in (DOCS / "reference").glob("*.md")}


def test_the_reference_has_the_docstrings_as_they_are():
    """A docstring that has changed makes the reference old: make it again with docs/make_reference.py."""
    maker = runpy.run_path(str(DOCS / "make_reference.py"))
    for room, modules in maker["ROOMS"].items():
        page = (DOCS / "reference" / f"{room}.md").read_text(encoding="utf-8")
        for name in modules:
            module = importlib.import_module(name)
            for public in maker["_public"](module):
                value = getattr(module, public)
                if inspect.isclass(value) or inspect.isfunction(value):
                    assert f"```text\n{inspect.getdoc(value) or ''}\n```" in page, f"{name}.{public}"
