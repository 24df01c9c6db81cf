"""The page of `explain`: one HTML file that needs nothing else, no network and no server."""

import base64
import html
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformer2017.configuration import RunError, UsageError
from transformer2017.configuration.manifest import write_whole

from .beams import Beam, Search, why_the_winner_won
from .explanation import KINDS, MOST_WEIGHTS, Explanation
from .walk import Exhibit, Stop

FINE_WEIGHTS = 300_000  # up to so many attention weights a page keeps 16 bits of each, beyond it 8
EXHIBIT_COLUMNS = 128  # of a stop's matrix, the first so many columns are shown,
WAVE_COLUMNS = 512  # but of the positional encoding more: its waves are slow at the far end


def write_page(explanation: Explanation, path: str | Path) -> Path:
    """Writes the page. It is written beside its place and renamed, so that no half page is left behind.

    Raises:
        UsageError: If the sentence is too long for a page, the folder does not exist, or the path is a folder.
        RunError: If the file cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file for the page, such as {path / 'attention.html'}")
    text = page(explanation)
    try:
        write_whole(path, text)
    except OSError as error:
        raise RunError(f"{path} could not be written: {error.strerror or error}") from error
    return path


def page(explanation: Explanation) -> str:
    """The page as a string.

    Raises:
        UsageError: If the sentence is too long for a page.
        RunError: If a number of the model's is none.
    """
    room = files(__package__)
    parts = {name: room.joinpath(f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    return (
        parts["html"]
        .replace("/*STYLE*/", parts["css"])
        .replace("/*SCRIPT*/", parts["js"])
        .replace("TITLE", html.escape(explanation.text[:60]), 1)
        .replace("/*DATA*/", _json_in_html(_data(explanation)))
    )


def _json_in_html(data: object) -> str:
    """JSON that cannot end the element it stands in: every character of HTML's own is written as an escape."""
    try:
        text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise RunError("the model's numbers are not finite: its training diverged, or its file is damaged") from error
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(explanation: Explanation) -> dict[str, Any]:
    count = sum(explanation.attention(kind).numel() for kind in KINDS)
    if count > MOST_WEIGHTS:
        raise UsageError(
            f"the sentence has {len(explanation.source)} tokens, and a page of all its {count:,} attention weights "
            "would be too large to open: give a shorter sentence"
        )
    bits = 16 if count <= FINE_WEIGHTS else 8
    return {
        "text": explanation.text,
        "translation": explanation.translation,
        "facts": explanation.model_facts,
        "source": explanation.source,
        "written": explanation.target_output,
        "attention": [_attention(explanation, kind, bits) for kind in KINDS],
        "alignment": {
            "sourceWords": explanation.source_words,
            "targetWords": explanation.target_words,
            "layer": max(1, len(explanation.cross_attention) - 1),
        },
        "steps": _steps(explanation),
        "hypotheses": _hypotheses(explanation),
        "why": why_the_winner_won(explanation.search.hypotheses),
        "walk": [_stop(stop) for stop in explanation.walk],
    }


def _attention(explanation: Explanation, kind: Any, bits: int) -> dict[str, Any]:
    weights, (queries, keys) = explanation.attention(kind), explanation.axes(kind)
    most = 2**bits - 1
    whole = (weights.clamp(0, 1) * most).round().to(torch.int32).numpy()
    data = base64.b64encode(whole.astype("<u2" if bits == 16 else "u1").tobytes()).decode()
    layers, heads = weights.shape[:2]
    return {
        "kind": kind,
        "title": KINDS[kind],
        "rows": queries,
        "cols": keys,
        "layers": layers,
        "heads": heads,
        "bits": bits,
        "data": data,
    }


def _steps(explanation: Explanation) -> list[dict[str, Any]]:
    """For each token that was written: the likeliest tokens, and the beams alive when it was chosen."""
    winner = explanation.search.hypotheses[0].tokens
    steps = []
    for position, token in enumerate(winner):
        probabilities = explanation.next_word[position]
        own = next(b for b in explanation.search.steps[position] if b.prefix == winner[:position])
        top = [[explanation.vocabulary[c.token], c.probability, c.token == token] for c in own.choices]
        if not any(chosen for *_, chosen in top):
            top.append([explanation.vocabulary[token], float(probabilities[token]), True])
        steps.append(
            {
                "written": explanation.target_output[position],
                "probability": float(probabilities[token]),
                "rank": int((probabilities > probabilities[token]).sum()) + 1,
                "top": top,
                "beams": [_beam(explanation, beam, position, winner) for beam in explanation.search.steps[position]],
            }
        )
    return steps


def _beam(explanation: Explanation, beam: Beam, position: int, winner: tuple[int, ...]) -> dict[str, Any]:
    return {
        "prefix": _joined(explanation, beam.prefix),
        "score": beam.score,
        "winning": beam.prefix == winner[: len(beam.prefix)],
        "choices": [
            [
                explanation.vocabulary[choice.token],
                choice.probability,
                choice.score,
                _fate(explanation.search, (*beam.prefix, choice.token), position, winner),
            ]
            for choice in beam.choices[:5]
        ],
    }


def _fate(search: Search, tokens: tuple[int, ...], position: int, winner: tuple[int, ...]) -> str:
    """What became of a beam's continuation."""
    if tokens == winner[: len(tokens)]:
        return "wins"
    if any(tokens == hypothesis.tokens for hypothesis in search.hypotheses):
        return "finished"
    later = search.steps[position + 1] if position + 1 < len(search.steps) else ()
    return "kept" if any(beam.prefix == tokens for beam in later) else "dropped"


def _joined(explanation: Explanation, tokens: tuple[int, ...]) -> str:
    return "".join(explanation.vocabulary[token] for token in tokens).replace("▁", " ").strip()


def _hypotheses(explanation: Explanation) -> list[dict[str, Any]]:
    return [
        {
            "text": hypothesis.text,
            "total": hypothesis.total,
            "length": len(hypothesis.tokens),
            "penalty": hypothesis.penalty,
            "score": hypothesis.score,
        }
        for hypothesis in explanation.search.hypotheses
    ]


def _stop(stop: Stop) -> dict[str, Any]:
    return {
        "key": stop.text.key,
        "term": stop.text.term,
        "korean": stop.text.korean,
        "section": stop.text.section,
        "says": stop.text.says,
        "lines": [[line.file, line.number, line.code] for line in stop.lines],
        "exhibits": [_exhibit(exhibit, stop.text.key) for exhibit in stop.exhibits],
    }


def _exhibit(exhibit: Exhibit, key: str) -> dict[str, Any]:
    """A stop's matrix in 16 bits a number, with its own scale; integers, such as ids of tokens, as they are."""
    most = WAVE_COLUMNS if key == "positional_encoding" else EXHIBIT_COLUMNS
    values = exhibit.values if exhibit.columns else exhibit.values[:, :most]
    described = {
        "name": exhibit.name,
        "shape": exhibit.shape,
        "rows": exhibit.rows,
        "cols": exhibit.columns,
        "is_written": exhibit.is_written,
        "width": values.shape[1],
        "all": exhibit.values.shape[1],
    }
    if not values.is_floating_point():
        return {**described, "numbers": values.tolist()}
    scale = max(float(values.abs().max()), 1e-9) if values.numel() else 1.0
    whole = (values / scale * 32767).round().to(torch.int16).numpy().astype("<i2")
    return {**described, "scale": scale, "data": base64.b64encode(whole.tobytes()).decode()}
