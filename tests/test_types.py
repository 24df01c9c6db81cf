"""What a user's type checker sees of the public interface."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("cli", "configuration", "inspection", "interchange", "modeling", "training")
PROGRAM = """
import transformer2017
from transformer2017.interchange.marian import export_marian
from transformer2017.training.hub import push_folder

config = transformer2017.Transformer2017Config.from_preset("base", vocab_size=37000)
model = transformer2017.Transformer2017ForConditionalGeneration(config)
reveal_type(config.d_model)
reveal_type(model)
reveal_type(model.config)
reveal_type(export_marian(model, None, "folder").largest_difference)
reveal_type(push_folder("folder", "me/en-de"))
reveal_type(transformer2017.PRESETS)
"""


@pytest.fixture
def installed(tmp_path) -> Path:
    """The package as an installation lays it out: mypy does not follow the finder of an editable one."""
    package = tmp_path / "site" / "transformer2017"
    shutil.copytree(ROOT / "package", package)
    for room in ROOMS:
        shutil.copytree(ROOT / room, package / room, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "site"


@pytest.mark.slow  # mypy reads all of torch first
def test_a_program_of_a_user_is_clean_and_nothing_is_any(installed, tmp_path):
    """In strict mode; py.typed is there, so the annotations count."""
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path / "c")]
    done = subprocess.run(
        [*command, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    revealed = [line.split('"')[1] for line in done.stdout.splitlines() if "Revealed type" in line]
    names = [name.replace("builtins.", "").split(".")[-1] for name in revealed]
    assert names[:3] == ["int", "Transformer2017ForConditionalGeneration", "Transformer2017Config"]
    assert revealed[3] in ("float | None", "builtins.float | None", "Union[builtins.float, None]")
    assert names[4] == "str"
    assert "dict" in revealed[5]
    assert not any("Any" in name for name in revealed)
