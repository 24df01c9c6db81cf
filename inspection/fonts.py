"""Fonts for figures: another installed font for a script that the usual one lacks, or advice on which to install."""

import unicodedata
import warnings
from functools import lru_cache

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

ORDERS_TEXT = (3, 11)  # the first matplotlib that joins Arabic letters and writes from right to left
# What to install for a script that no installed font has: the font, and its package on Debian and Ubuntu.
_CJK = ("Noto Sans CJK KR", "fonts-noto-cjk")
_WORLD = ("Noto Sans", "fonts-noto-core")
_TO_INSTALL = dict.fromkeys(("HANGUL", "CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH"), _CJK)
# Tried first, since some fonts hold a script only in part or in a hand that does not suit a figure.
_PREFERRED = ("Noto Sans", "Apple SD Gothic Neo", "Malgun Gothic", "Nanum", "Arial Unicode", "Segoe UI", "Unifont")


class MissingGlyphWarning(UserWarning):
    """No installed font has some of a figure's characters: it says which font to install."""


class TextOrderWarning(UserWarning):
    """The installed matplotlib writes right-to-left words from left to right: it says which version does not."""


def families_for(text: str) -> list[str]:
    """The font families that together show a text, the figure's usual family first.

    Characters that none of the installed fonts has are told by a `MissingGlyphWarning`.

    Returns:
        Names for matplotlib's `font.family`, which takes each glyph from the first family that has it.
    """
    usual = font_manager.findfont(font_manager.FontProperties(family=matplotlib.rcParams["font.family"]))
    families = list(matplotlib.rcParams["font.family"])
    missing = _wanted(text) - _characters(usual)
    for name, path in _installed():
        if not missing:
            break
        found = missing & _characters(path)
        if found:
            families.append(name)
            missing -= found
    if missing:
        warnings.warn(_advice(missing), MissingGlyphWarning, stacklevel=2)
    if matplotlib.__version_info__[:2] < ORDERS_TEXT and any(
        unicodedata.bidirectional(x) in ("R", "AL") for x in text
    ):
        advice = "matplotlib before 3.11 writes right-to-left words in the wrong order: pip install 'matplotlib>=3.11'"
        warnings.warn(advice, TextOrderWarning, stacklevel=2)
    return families


def _wanted(text: str) -> set[int]:
    return {ord(letter) for letter in text if letter.isprintable() and not letter.isspace()}


@lru_cache(maxsize=1024)
def _characters(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (RuntimeError, OSError):
        return frozenset()


@lru_cache(maxsize=1)
def _installed() -> list[tuple[str, str]]:
    """Upright fonts of usual weight, the preferred ones first."""
    fonts = {
        font.name: font.fname
        for font in font_manager.fontManager.ttflist
        if font.style == "normal" and str(font.weight) in ("400", "normal", "regular", "book")
    }
    return sorted(fonts.items(), key=lambda font: (not font[0].startswith(_PREFERRED), len(font[0]), font[0]))


def _advice(missing: set[int]) -> str:
    letters = "".join(chr(code) for code in sorted(missing)[:8])
    script = unicodedata.name(letters[0], "UNKNOWN").split()[0]
    font, package = _TO_INSTALL.get(script, _WORLD)
    return (
        f"no installed font has {len(missing)} of the figure's characters ({letters}), which will show as boxes: "
        f"install a font for them such as {font} (Debian and Ubuntu: {package})"
    )
