"""The numbers of tokens in a `tokenizer.json`, looked at before the library that makes room for the largest."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_TOKENS = 10_000_000  # no vocabulary is near it


def saved_tokenizer(name: str | Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder, or of a name on the Hub.

    Raises:
        ValueError: If it numbers a token beyond any vocabulary; other damage raises errors of any kind.
    """
    from transformers import AutoTokenizer  # takes a while, and `--help` does not need it

    refuse_absurd_numbers(Path(name, "tokenizer.json"))
    return AutoTokenizer.from_pretrained(name)


def refuse_absurd_numbers(file: Path) -> None:
    """Refuses a file that numbers a token beyond any vocabulary, for which `tokenizers` would take all memory.

    Raises:
        ValueError: If there is such a number, or the file is not JSON.
    """
    if not file.is_file():
        return
    description = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = description["model"].get("vocab")
    numbers = list(vocabulary.values()) if isinstance(vocabulary, dict) else []
    numbers += [token["id"] for token in description.get("added_tokens") or []]
    if any(not isinstance(number, int) or not 0 <= number < MOST_TOKENS for number in numbers):
        raise ValueError(f"it numbers a token {max(numbers, key=lambda n: n if isinstance(n, int) else 0)}")
