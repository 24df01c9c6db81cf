"""README.ko.md says what README.md says: the same sections, commands, files and links, and each names the other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = ("README.md", "README.ko.md")


def parts(name: str) -> dict[str, list[str]]:
    """What does not change with the language."""
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:bash|python)\n(.*?)```", text, re.S)
    return {
        "sections": [
            "#" * len(marks) for marks in re.findall(r"^(#+) ", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
        ],
        "commands": [re.sub(r"\s*#.*", "", line) for block in blocks for line in block.splitlines()],
        "rows": re.findall(r"^\| (`[^|]+`) \|", text, re.M),
        "links": sorted({*re.findall(r"\]\(([^)]+)\)", text)} - set(LANGUAGES)),
    }


def test_the_korean_readme_keeps_up():
    english, korean = map(parts, LANGUAGES)
    for part in english:
        assert korean[part] == english[part], part


def test_whoever_reads_one_language_finds_the_other():
    for name, other in (LANGUAGES, LANGUAGES[::-1]):
        assert f"]({other})" in (ROOT / name).read_text(encoding="utf-8").split("## ")[0]
