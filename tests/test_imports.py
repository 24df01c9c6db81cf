"""Imports go one way (rule 1 of the design), and the model's own code stands alone (rule 2)."""

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Which rooms of the package each room may import; nothing imports the command.
ROOMS = {
    "configuration": set(),
    "modeling": set(),
    "training": {"configuration", "modeling"},
    "interchange": {"configuration", "modeling"},
    "inspection": {"configuration", "modeling"},
    "package": {"configuration", "modeling", "cli"},
    "cli": {"", "configuration", "modeling", "training", "interchange", "inspection"},
}
STAND_IN = ROOT / "modeling" / "configuration_transformer2017.py"
MODEL_FILES = sorted(file for file in (ROOT / "modeling").glob("*.py") if file != STAND_IN)
SOURCE_FILES = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))
NETWORK = {"asyncio", "ftplib", "http", "imaplib", "smtplib", "socket", "socketserver", "ssl", "subprocess", "urllib"}


@functools.cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path) -> Iterator[tuple[ast.stmt, str]]:
    """Yields each import statement with the full name of what it imports from."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node, "." * node.level + (node.module or "")


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", SOURCE_FILES, ids=name)
def test_a_room_imports_only_what_it_may(file):
    room = file.relative_to(ROOT).parts[0]
    for node, imported in imports(file):
        if imported.startswith("transformer2017") and file != STAND_IN:
            target = [*imported.split("."), ""][1]
            assert target == room or target in ROOMS[room], f"{name(file)}:{node.lineno} imports {imported}"
        if imported.startswith(".."):
            pytest.fail(f"{name(file)}:{node.lineno} imports from the room above: name the package in full")
        if imported.startswith(".") and room == "package":
            assert imported.strip(".").split(".")[0] in {*ROOMS["package"], "pipelines"}, imported


def test_the_front_door_does_not_wait_for_training():
    assert not any("training" in imported for _, imported in imports(ROOT / "package" / "__init__.py"))


@pytest.mark.parametrize("file", SOURCE_FILES, ids=name)
def test_no_file_is_a_drawer(file):
    assert file.stem not in {"utils", "common", "helpers", "misc"}


@pytest.mark.parametrize("file", MODEL_FILES, ids=name)
def test_model_code_is_flat_and_needs_torch_and_transformers_only(file):
    """The Hub runs it from one folder, which transformers' copier fills by following `from .sibling import name`."""
    siblings = {f".{sibling.stem}" for sibling in [*MODEL_FILES, STAND_IN]}
    top = tree(file).body
    for node, imported in imports(file):
        place = f"{name(file)}:{node.lineno}"
        if imported.startswith("."):
            assert imported in siblings, f"{place} imports {imported}: write `from .sibling import name`"
            assert node in top, f"{place}: the copier does not see an import inside a block"
        else:
            allowed = {"torch", "transformers"} | set(sys.stdlib_module_names) - NETWORK
            assert imported.split(".")[0] in allowed, f"{place} imports {imported}"


@pytest.mark.parametrize("file", MODEL_FILES, ids=name)
def test_no_text_of_the_model_code_looks_like_an_import(file):
    """transformers' copier reads lines, not syntax: one in a docstring that begins with `from .x import` counts."""
    statements = {node.lineno for node, imported in imports(file) if imported.startswith(".")}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip().startswith(("from .", "import .")):
            assert number in statements, f"{name(file)}:{number}"


@pytest.mark.parametrize("file", MODEL_FILES, ids=name)
def test_model_code_does_not_reach_the_network_or_run_text(file):
    forbidden = {"eval", "exec", "compile", "__import__", "open", "urlopen", "hf_hub_download", "snapshot_download"}
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in forbidden, f"{name(file)}:{node.lineno} calls {node.func.id}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in forbidden - {"compile", "eval"}, f"{name(file)}:{node.lineno}"


COMPUTE_THE_MODEL = {
    "__init__", "attention", "configuration_transformer2017", "decoder", "embeddings", "encoder", "feed_forward",
    "loss", "modeling_transformer2017",
}  # fmt: skip
# What makes training fast (same results, tests/modeling/test_training_speed.py), makes up for what transformers' flash
# attention lacks (same results, tests/modeling/test_attention_implementations.py), takes a name in the form of either
# version, saves, decodes or translates.
DO_NOT_COMPUTE_IT = {
    "training_speed", "flash_attention", "saved_folder", "padding", "output_length", "documents", "decoding",
    "decoding_cache", "decoding_linear", "decoding_outputs", "decoding_path", "decoding_ranker", "decoding_search",
    "decoding_step", "decoding_weights", "translation", "translation_decoder", "translation_review",
    "pipeline_transformer2017", "cache_name", "precision", "quick_products", "freed_memory",
}  # fmt: skip


def test_the_files_that_compute_the_model_are_under_half_of_marian():
    """MarianMT has 1,112 lines; the nine files that compute ours stay under 556 in sum, docstrings included.

    Each file of modeling/ is in one list or the other, so that no new one escapes the count unseen.
    """
    files = {file.stem: file for file in (ROOT / "modeling").glob("*.py")}
    assert set(files) == COMPUTE_THE_MODEL | DO_NOT_COMPUTE_IT
    lines = {name: len(files[name].read_text(encoding="utf-8").splitlines()) for name in COMPUTE_THE_MODEL}
    assert sum(lines.values()) < 1112 / 2, lines
