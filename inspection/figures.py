"""Figures of an explanation, fit for a paper: heat maps, lines between words, alignment, the next word, and beams.

Each function gives a matplotlib `Figure` that belongs to no window: show it in a notebook, or save it as PNG, SVG or
PDF. Names of layers and heads count from 1, as in the paper.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from transformer2017.configuration import RunError, UsageError

from .drawing import draw_lines, draw_matrix, fonts_for, inches, name_heads, name_words, write_numbers
from .explanation import KINDS, Explanation, Kind
from .tokens import plain
from .walk import Exhibit

RESOLUTION = 300  # dots an inch of a PNG


def heat_map(explanation: Explanation, kind: Kind, layer: int, head: int | None = None) -> Figure:
    """One head's attention weights, a row a query and a column a key.

    Args:
        kind: "encoder", "decoder" or "cross".
        layer: Counted from 1.
        head: Counted from 1; the mean of all heads if None.

    Raises:
        UsageError: If there is no such layer or head.
    """
    weights = _layer(explanation, kind, layer)
    chosen = weights.mean(0) if head is None else weights[_index(head, len(weights), "head")]
    rows, columns = explanation.axes(kind)
    name = "mean of all heads" if head is None else f"head {head}"
    with fonts_for(rows, columns):
        figure = Figure(figsize=inches(rows, columns), layout="constrained")
        axes = figure.add_subplot()
        draw_matrix(axes, chosen, rows, columns)
        axes.set_title(f"{KINDS[kind]}, layer {layer}, {name}", fontsize=9)
        figure.colorbar(axes.images[0], ax=axes, shrink=0.6, pad=0.02).ax.tick_params(labelsize=7)
    return figure


def head_grid(explanation: Explanation, kind: Kind, layer: int) -> Figure:
    """All heads of a layer side by side, as heat maps.

    Raises:
        UsageError: If there is no such layer.
    """
    weights = _layer(explanation, kind, layer)
    rows, columns = explanation.axes(kind)
    across = min(4, len(weights))
    down = -(-len(weights) // across)
    wide, high = inches(rows, columns)
    with fonts_for(rows, columns):
        figure = Figure(figsize=(min(16, across * wide * 0.8), min(16, down * high * 0.8)), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for panel in panels[len(weights) :]:
            panel.set_visible(False)
        for head, panel in enumerate(panels[: len(weights)]):
            draw_matrix(panel, weights[head], rows, columns, size=6)
            panel.set_title(f"head {head + 1}", fontsize=8)
        figure.suptitle(f"{KINDS[kind]}, layer {layer}", fontsize=9)
    return figure


def attention_lines(
    explanation: Explanation,
    kind: Kind,
    layer: int,
    heads: Sequence[int] | None = None,
    word: int | None = None,
) -> Figure:
    """Lines between words, a colour a head and the darker the larger the weight, as in the paper's Figures 3 to 5.

    Args:
        heads: Counted from 1; all if None.
        word: Position, from 0, of the only query whose lines are drawn (as Figure 3 shows "making"); all if None.

    Raises:
        UsageError: If there is no such layer, head or word.
    """
    weights = _layer(explanation, kind, layer)
    rows, columns = explanation.axes(kind)
    chosen = [_index(head, len(weights), "head") for head in heads] if heads else list(range(len(weights)))
    if word is not None and not 0 <= word < len(rows):
        raise UsageError(f"there are words 0 to {len(rows) - 1}, and no word {word}")
    with fonts_for(rows, columns):
        figure = Figure(figsize=(max(3.5, 0.3 * max(len(rows), len(columns))), 3.4), layout="constrained")
        axes = figure.add_subplot()
        draw_lines(axes, weights, chosen, range(len(rows)) if word is None else [word], len(columns))
        name_words(axes, rows, 0.0, "top", word)
        name_words(axes, columns, 1.0, "bottom", None)
        if len(chosen) > 1:
            name_heads(figure, chosen)
        axes.set_xlim(-0.5, max(len(rows), len(columns)) - 0.5)
        axes.set_ylim(0, 1)
        axes.axis("off")
    return figure


def alignment(explanation: Explanation, layer: int | None = None) -> Figure:
    """Which source words were looked at when each word was written: a layer's cross-attention, all heads' mean.

    Args:
        layer: Counted from 1; the last but one if None.
    """
    rows, columns = explanation.axes("cross")
    weights = explanation.alignment(layer)
    with fonts_for(rows, columns):
        figure = Figure(figsize=inches(rows, columns), layout="constrained")
        axes = figure.add_subplot()
        draw_matrix(axes, weights, rows, columns, most=float(weights.max()))
        best = weights.argmax(-1)
        axes.plot(best, range(len(rows)), "o", mfc="none", mec="tab:orange", ms=7)
        axes.set_xlabel("source", fontsize=8)
        axes.set_ylabel("translation", fontsize=8)
    return figure


def next_word(explanation: Explanation, step: int, words: int = 8) -> Figure:
    """The most probable tokens at one step, with the one that was written in a darker colour.

    Args:
        step: Counted from 1.
        words: How many to show.

    Raises:
        UsageError: If there is no such step.
    """
    winner = explanation.search.hypotheses[0].tokens
    position = _index(step, len(winner), "step")
    beam = next(b for b in explanation.search.steps[position] if b.prefix == winner[:position])
    choices = beam.choices[:words]
    names = [plain(explanation.vocabulary[choice.token]) for choice in choices]
    with fonts_for(names, explanation.target_output):
        figure = Figure(figsize=(4, 0.28 * len(choices) + 0.7), layout="constrained")
        axes = figure.add_subplot()
        colours = ["#1f5fbf" if choice.token == winner[position] else "#a9c3e8" for choice in choices]
        bars = axes.barh(range(len(choices)), [choice.probability for choice in choices], color=colours)
        axes.bar_label(bars, fmt="%.3f", fontsize=7, padding=2)
        axes.set_yticks(range(len(choices)), names, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, max(choice.probability for choice in choices) * 1.18)
        axes.tick_params(axis="x", labelsize=7)
        axes.set_title(f"Step {step}: probability of the next token", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def exhibit(shown: Exhibit, columns: int = 128) -> Figure:
    """One matrix of a stop of the walk: blue is positive, orange negative; or its numbers, if those are to be written.

    Args:
        columns: How many to draw at most, where columns are dimensions.
    """
    values = shown.values if shown.columns else shown.values[:, :columns]
    most = float(values.abs().max()) or 1.0
    wide = 0.32 * len(shown.columns) + 1.6 if shown.columns else 7.0
    with fonts_for(shown.rows, shown.columns):
        figure = Figure(figsize=(max(3.2, wide), max(1.2, 0.22 * len(shown.rows) + 1.0)), layout="constrained")
        axes = figure.add_subplot()
        draw_matrix(axes, values, shown.rows, shown.columns, most=most, signed=bool((values < 0).any()))
        if not shown.columns:
            axes.set_xticks([])
            axes.set_xlabel(f"dimensions 0 to {values.shape[1] - 1} of {shown.values.shape[1]}", fontsize=7)
        axes.set_title(shown.name, fontsize=9)
        if shown.is_written:
            write_numbers(axes, shown)
        else:
            figure.colorbar(axes.images[0], ax=axes, pad=0.02).ax.tick_params(labelsize=6)
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Saves a figure as its name says: .png, .svg or .pdf.

    Raises:
        RunError: If the file cannot be written.
    """
    path = Path(path)
    try:
        with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "transformer2017"}):
            figure.savefig(path, dpi=RESOLUTION, bbox_inches="tight")
    except OSError as error:
        raise RunError(f"{path} could not be written: {error.strerror or error}") from error
    return path


def save_all(explanation: Explanation, folder: str | Path, form: str = "png", layer: int | None = None) -> list[Path]:
    """Saves every head of each use of attention in one layer, with lines; and the alignment and the next words.

    Args:
        folder: Made if it is not there.
        form: "png", "svg" or "pdf".
        layer: Counted from 1; the last if None.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} could not be made: {error.strerror or error}") from error
    return [save(draw(), folder / f"{name}.{form}") for name, draw in _all(explanation, layer)]


def _all(explanation: Explanation, layer: int | None) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """The name of each figure of a layer, and what draws it."""
    for kind in KINDS:
        depth = len(explanation.attention(kind))
        own = depth if layer is None else min(layer, depth)  # in the shallower stack, its last
        yield f"{kind}-layer{own}-heads", partial(head_grid, explanation, kind, own)
        yield f"{kind}-layer{own}-lines", partial(attention_lines, explanation, kind, own)
        for head in range(1, explanation.attention(kind).shape[1] + 1):
            yield f"{kind}-layer{own}-head{head}", partial(heat_map, explanation, kind, own, head)
            yield f"{kind}-layer{own}-head{head}-lines", partial(attention_lines, explanation, kind, own, [head])
    yield "alignment", partial(alignment, explanation)
    for step in range(1, len(explanation.target_output) + 1):
        yield f"next-word-step{step}", partial(next_word, explanation, step)


def _layer(explanation: Explanation, kind: Kind, layer: int) -> torch.Tensor:
    weights = explanation.attention(kind)
    return weights[_index(layer, len(weights), "layer")]


def _index(number: int, count: int, what: str) -> int:
    """From a number that counts from 1 to an index."""
    if not 1 <= number <= count:
        raise UsageError(f"there are {what}s 1 to {count}, and no {what} {number}")
    return number - 1
