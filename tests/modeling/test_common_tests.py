"""The page that says which test here stands for each of transformers' own names tests that there are."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_of_common_tests_names_tests_that_exist():
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", (ROOT / "docs" / "common-tests.md").read_text(encoding="utf-8"), re.M)
    named = [re.findall(r"`(test_\w+)`", here) for _, here in rows[2:]]
    code = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"^def (test_\w+)", code, re.M))
    assert len(named) > 30
    assert all(named), "a row names no test of ours"
    assert {name for row in named for name in row} <= defined
