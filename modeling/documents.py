"""Documents in pieces: sentences or lines to translate one by one, and the white space that joins them again."""

import re
from collections.abc import Callable

# After these a full stop ends no sentence. Only what is common in the languages of the tests; the rest is a guess by
# the letter that follows.
ENGLISH = ("mr", "mrs", "ms", "dr", "prof", "st", "vs", "etc", "e.g", "i.e", "cf", "fig", "no", "vol", "approx")
GERMAN = ("z.b", "d.h", "u.a", "bzw", "usw", "ca", "nr", "str", "bd", "abs", "hr", "fr")
FRENCH = ("m", "mm", "mme", "mlle")
ABBREVIATIONS = frozenset((*ENGLISH, *GERMAN, *FRENCH))
SENTENCE_END = re.compile(r"""[.!?…]+["'»”’)\]]*(?=\s)|[。！？]+[」』”’）]*""")


def split_lines(text: str) -> list[str]:
    """Cuts a text after each line break; joined, the pieces are the text again."""
    return text.splitlines(keepends=True)


def split_sentences(text: str) -> list[str]:
    """Cuts a text after each line break and each end of a sentence; joined, the pieces are the text again.

    A full stop ends a sentence unless an abbreviation, a single letter or a number stands before it, or a small letter
    comes after the space behind it.
    """
    return [sentence for line in split_lines(text) for sentence in _sentences_of_line(line)]


def _sentences_of_line(line: str) -> list[str]:
    pieces, start = [], 0
    for match in SENTENCE_END.finditer(line):
        end = match.end()
        while end < len(line) and line[end].isspace():
            end += 1
        if end < len(line) and _ends_sentence(line[start : match.start()], match.group(), line[end:]):
            pieces.append(line[start:end])
            start = end
    return [*pieces, line[start:]] if start < len(line) else pieces


def _ends_sentence(before: str, mark: str, after: str) -> bool:
    if mark[0] != "." or len(mark.rstrip("\"'»”’)]")) > 1:
        return not after[0].islower()
    word = before.split()[-1] if before.split() else ""
    word = word.lstrip("\"'«“‘([")
    ambiguous = word.lower() in ABBREVIATIONS or word.isdigit() or (len(word) == 1 and word.isalpha())
    return not ambiguous and not after[0].islower()


def without_surrogates(text: str) -> str:
    """Replaces lone surrogates, which no tokenizer takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def in_parts(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Cuts a text that does not fit: between sentences; where one is too long, between words; else anywhere.

    Args:
        fits: Whether a part is short enough.
    """
    if fits(text) or len(text) < 2:
        return [text]
    for pieces in (split_sentences(text), re.findall(r"\s*\S+\s*", text), [*text]):
        if len(pieces) > 1:
            half = len(pieces) // 2
            return [*in_parts("".join(pieces[:half]), fits), *in_parts("".join(pieces[half:]), fits)]
    return [text]


def strip_white_space(piece: str) -> tuple[str, str, str]:
    """The white space before a piece, the piece, and the white space after it."""
    core = piece.strip()
    if not core:
        return "", "", piece
    start = piece.index(core)
    return piece[:start], core, piece[start + len(core) :]
