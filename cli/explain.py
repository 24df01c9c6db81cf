"""`transformer2017 explain`: one sentence seen from inside, as a page and as figures."""

import argparse
import sys
import warnings
from typing import Any

from transformer2017.configuration import UsageError

from .loading import load

FORMS = ("png", "svg", "pdf")


def run(argv: list[str]) -> int:
    """Writes the page, and the figures if they are asked for."""
    from transformer2017.inspection import explain, write_page

    arguments = _parser().parse_args(argv)
    if arguments.length_penalty is not None and arguments.num_beams == 1:
        raise UsageError("--length_penalty ranks beams, and with --num_beams 1 there is only one")
    model, tokenizer = load(arguments.model)
    explanation = explain(
        model,
        tokenizer,
        arguments.sentence,
        num_beams=arguments.num_beams,
        length_penalty=arguments.length_penalty,
        walk_layer=1 if arguments.layer is None else arguments.layer,
    )
    page = write_page(explanation, arguments.output)
    print(explanation.translation)
    if not explanation.translation:
        print("transformer2017: the translation is empty: the model ended at once", file=sys.stderr)
    print(f"{page}: the page, for any browser", file=sys.stderr)
    if arguments.figures:
        _save_figures(explanation, arguments)
    return 0


def _save_figures(explanation: Any, arguments: argparse.Namespace) -> None:
    from transformer2017.inspection import figures
    from transformer2017.inspection.fonts import MissingGlyphWarning, TextOrderWarning

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        written = figures.save_all(explanation, arguments.figures, arguments.format, arguments.layer)
    told = (MissingGlyphWarning, TextOrderWarning)
    for message in sorted({str(w.message) for w in heard if issubclass(w.category, told)}):
        print(f"transformer2017: {message}", file=sys.stderr)
    print(f"{arguments.figures}: {len(written)} figures", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="transformer2017 explain",
        description="Translates one sentence and writes a page that shows how: attention, alignment, next words, "
        "beams, and a walk through the model with its numbers and lines of code.",
    )
    parser.add_argument("model", help="folder of a model, or its name on the Hub")
    parser.add_argument("sentence", help="the sentence, in quotes")
    parser.add_argument("--output", default="attention.html", help="the page to write (%(default)s)")
    parser.add_argument("--num_beams", type=int, default=4, help="beam size (%(default)s)")
    parser.add_argument("--length_penalty", type=float, default=None, help="power of the length that divides a score")
    parser.add_argument("--figures", metavar="DIR", help="write figures for a paper into this folder too")
    parser.add_argument("--format", choices=FORMS, default="png", help="what the figures are written as (%(default)s)")
    parser.add_argument(
        "--layer", type=int, default=None, help="layer of the walk (the first) and of the figures (the last)"
    )
    return parser
