"""Which pairs are left out of training, and how many for which reason."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from .arguments import DataArguments

# Control characters other than a tab (Unicode's Cc), lone surrogates (Cs), and what stands for a lost character.
BROKEN = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff\ufffd-\uffff]")


def has_broken_characters(text: str) -> bool:
    """Whether the text holds a replacement character, a control character other than a tab, or a lone surrogate."""
    return BROKEN.search(text) is not None


def length_ratio(source: str, target: str) -> float:
    """How many times as long the longer side is, in words; in characters where a side has no spaces, as Chinese."""
    lengths = (len(source.split()), len(target.split()))
    if min(lengths) == 1:
        lengths = (len(source), len(target))
    return max(lengths) / max(min(lengths), 1)


class Cleaner:
    """Passes pairs through, leaving out the faulty ones, and counts what it left out and why."""

    def __init__(self, arguments: DataArguments) -> None:
        self.arguments = arguments
        self.removed: Counter[str] = Counter()
        self.kept = 0
        self._seen: set[int] = set()

    def fault(self, source: str, target: str) -> str | None:
        """Why a pair is left out, or None."""
        arguments = self.arguments
        if not source.strip() or not target.strip():
            return "an empty side"
        if arguments.drop_broken and (has_broken_characters(source) or has_broken_characters(target)):
            return "broken characters"
        if arguments.drop_copies and source.strip() == target.strip():
            return "target a copy of the source"
        if arguments.max_length_ratio and length_ratio(source, target) > arguments.max_length_ratio:
            return f"one side over {arguments.max_length_ratio:g} times as long"
        if arguments.drop_duplicates and self._is_duplicate(source, target):
            return "a duplicate"
        return None

    def clean(self, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """The pairs without fault, in order."""
        for source, target in pairs:
            if fault := self.fault(source, target):
                self.removed[fault] += 1
            else:
                self.kept += 1
                yield source, target

    def report(self) -> str:
        """One line for the user."""
        reasons = "; ".join(f"{reason}: {count:,}" for reason, count in self.removed.most_common())
        return f"{self.kept:,} pairs kept" + (f", {self.removed.total():,} left out ({reasons})" if reasons else "")

    def _is_duplicate(self, source: str, target: str) -> bool:
        """Remembers a number a pair, not its text: some 70 bytes, so 0.7 GB for 10 million pairs."""
        key = hash((source, target))
        if key in self._seen:
            return True
        self._seen.add(key)
        return False
