"""What figures are drawn with: matrices in colour or numbers, lines between words, and fonts for any script."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import matplotlib
import numpy
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .fonts import families_for
from .tokens import plain
from .walk import Exhibit

HEAD_COLOURS = "tab10"
FAINTEST_LINE = 0.02  # weights below it are not drawn as lines


def fonts_for(*names: Sequence[str]) -> AbstractContextManager[None]:
    """Matplotlib's settings while a figure is made, with fonts that have all the letters of its words."""
    letters = "".join("".join(part) for part in names)
    return matplotlib.rc_context({"font.family": families_for(letters)})


def inches(rows: Sequence[str], columns: Sequence[str]) -> tuple[float, float]:
    """Inches for a heat map with room for its names."""
    return max(3.0, 0.26 * len(columns) + 1.7), max(2.6, 0.26 * len(rows) + 1.4)


def draw_matrix(
    axes: Axes,
    weights: torch.Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    size: int = 8,
    most: float = 1.0,
    signed: bool = False,
) -> None:
    """A matrix in colour with its names: 0 to `most` in blue, or -`most` to `most` in orange and blue if signed."""
    colours = LinearSegmentedColormap.from_list("signed", ["#c2570c", "#ffffff", "#1f5fbf"]) if signed else "Blues"
    axes.imshow(weights.numpy(), cmap=colours, vmin=-most if signed else 0, vmax=most, aspect="auto")
    axes.set_xticks(range(len(columns)), [plain(name) for name in columns], rotation=90, fontsize=size)
    axes.set_yticks(range(len(rows)), [plain(name) for name in rows], fontsize=size)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def write_numbers(axes: Axes, shown: Exhibit) -> None:
    """Writes the numbers in place of the colours. Whole ones name something: then the names are as they are, too."""
    axes.images[0].set_alpha(0)
    if is_whole := not shown.values.is_floating_point():
        axes.set_xticks(range(len(shown.columns)), shown.columns, rotation=0 if len(shown.columns[0]) == 1 else 90)
        axes.set_yticks(range(len(shown.rows)), shown.rows)
    for (i, j), number in numpy.ndenumerate(shown.values.numpy()):
        written = str(number) if is_whole else f"{number:.3f}"
        axes.text(j, i, written, ha="center", va="center", fontsize=5 if number > 9999 else 6)


def draw_lines(axes: Axes, weights: torch.Tensor, heads: Sequence[int], queries: Sequence[int], keys: int) -> None:
    """Lines from queries (below) to keys (above), a colour a head and the darker the larger the weight.

    Args:
        weights: Of all heads (heads, queries, keys).
    """
    for head in heads:
        colour = _head_colour(head)
        for query in queries:
            for key in range(keys):
                weight = float(weights[head, query, key])
                if weight >= FAINTEST_LINE:
                    axes.plot([query, key], [0, 1], color=colour, alpha=weight, lw=1.8, solid_capstyle="butt")


def name_heads(figure: Figure, heads: Sequence[int]) -> None:
    """A legend of the heads' colours, which blend where lines cross."""
    lines = [Line2D([], [], color=_head_colour(head), label=f"head {head + 1}") for head in heads]
    figure.legend(handles=lines, loc="outside lower center", ncols=4, fontsize=7, frameon=False)


def _head_colour(head: int) -> tuple[float, ...]:
    palette = matplotlib.colormaps[HEAD_COLOURS]
    return palette(head % palette.N)


def name_words(axes: Axes, words: Sequence[str], height: float, side: str, marked: int | None) -> None:
    """Words at one height, upright, above or below it by `side`; the one at `marked` in bold."""
    for position, word in enumerate(words):
        weight = "bold" if position == marked else "normal"
        offset = -0.03 if side == "top" else 0.03
        axes.text(
            position, height + offset, plain(word), rotation=90, ha="center", va=side, fontsize=8, fontweight=weight
        )
