"""What the demo tells the user to try next."""

import sys
from pathlib import Path

import pytest
from transformer2017.cli import VERBS
from transformer2017.cli.demo import next_commands

FILES = {"test": (Path("data/test.words"), Path("data/test.phonemes"))}


@pytest.mark.parametrize(
    ("on_path", "called", "name"),
    [
        (True, ".venv/bin/transformer2017", "transformer2017"),
        (False, ".venv/bin/transformer2017", ".venv/bin/transformer2017"),
        (False, "site-packages/transformer2017/__main__.py", "/my/python -m transformer2017"),
    ],
)
def test_the_commands_work_where_the_demo_was_started(on_path, called, name, tmp_path, monkeypatch):
    """`make demo` leaves the environment's folder off the PATH, so the command is named as it was called."""
    command = tmp_path / "transformer2017"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) if on_path else "")
    monkeypatch.setattr(sys, "argv", [called, "demo"])
    monkeypatch.setattr(sys, "executable", "/my/python")
    commands = next_commands(Path("runs/pronunciation"), FILES)
    calls = [line.split(f"{name} ")[1].split() for line in commands]
    assert [call[0] for call in calls] == ["translate", "evaluate", "demo"]
    assert all(call[0] in VERBS for call in calls)
