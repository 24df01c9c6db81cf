"""The notebook, run from top to bottom in this process: its cells are plain Python, so no kernel is needed."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "tiny_translator.ipynb"


@pytest.mark.slow  # it trains a model
def test_it_runs_and_learns(tmp_path, monkeypatch, capsys):
    """Every cell runs after the one before; at the end nearly all of a hundred unseen sentences are right."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{NOTEBOOK.name} {cell['id']}", "exec"), names)
    right = int(re.search(r"(\d+) of 100 right", capsys.readouterr().out).group(1))
    assert right >= 90
