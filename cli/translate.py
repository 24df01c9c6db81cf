"""`transformer2017 translate`: a line out for each line in, in order."""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from transformer2017.configuration import UsageError, in_a_line

from .lines import Lines, open_bytes
from .loading import load

EARLY_STOPPING = (
    "a sentence is done when it has as many finished hypotheses as beams (true), when those that go on are unlikely "
    "to become better (false), or when they cannot (never); the model's own (true) if absent"
)
GENERATION_FLAGS = ("num_beams", "length_penalty", "early_stopping", "ranking", "max_new_tokens", "fast")


def run(argv: list[str]) -> int:
    """Translates standard input or files to standard output."""
    flags = _parser().parse_args(argv)
    _check(flags)
    started = time.perf_counter()
    with ExitStack() as files:
        lines = Lines([files.enter_context(open_bytes(path)) for path in flags.files or ["-"]])
        given = flags.score or flags.prefix
        others = None if given is None else Lines([files.enter_context(open_bytes(given))])
        model, tokenizer = load(flags.model, flags.precision, flags.device)
        _write_utf8()
        rest = None if others is None else iter(others)
        count, decoded_by = _run(flags, model, tokenizer, lines, rest and _one_for_each_line(rest, given))
        if rest and next(rest, None) is not None:
            raise UsageError(f"{given!r} has more lines than the {count} of the text")
        lines.tell()
    if flags.report:
        seconds = time.perf_counter() - started
        print(f"transformer2017: {count} lines in {seconds:.1f} s, decoded by {decoded_by}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="transformer2017 translate", description="Translates lines: a line out for each line in, in order."
    )
    add = parser.add_argument
    add("model", help="a model's folder, or its name on the Hub")
    add("files", nargs="*", help="files to translate, one after the other; - (the default) is standard input")
    add("--num_beams", type=int, help="beam size; the model's own setting if absent")
    add("--length_penalty", type=float, help="exponent of the length that divides a score; the model's own if absent")
    add("--ranking", choices=["transformers", "paper"], help="divide by |Y|^alpha, or the paper's ((5+|Y|)/6)^alpha")
    add("--early_stopping", choices=["true", "false", "never"], help=EARLY_STOPPING)
    add("--max_new_tokens", type=int, help="tokens of an output at most; 50 more than its source if absent (§6.1)")
    add("--precision", choices=["float32", "bfloat16", "int8"], default="float32", help="of products (%(default)s)")
    add("--device", default=None, help="cpu, cuda, mps; a GPU if there is one")
    add("--n_best", type=int, default=1, help="hypotheses of a line, as `line ||| hypothesis ||| score`")
    add("--confidence", action="store_true", help="add a column: the mean log probability of a token")
    add("--word_confidence", action="store_true", help="add a column: the same for each word")
    add("--alignments", action="store_true", help="add a column: which source word each word looked at (0-0 1-2)")
    add("--json", action="store_true", help="write an object a line, with all that was asked for")
    add("--prefix", metavar="FILE", help="what each translation is to begin with, line by line")
    add("--score", metavar="FILE", help="translate nothing: judge these translations, line by line")
    add("--workers", type=int, help="threads that decode side by side on the CPU; one a core if absent")
    add("--rows", type=int, default=128, help="hypotheses that a worker decodes side by side (%(default)s)")
    add("--batch_tokens", type=int, default=8192, help="source tokens that a worker holds (%(default)s)")
    add("--window", type=int, default=2048, help="lines sorted by length together (%(default)s)")
    add("--decoding", choices=["fast", "transformers"], help="force this package's or transformers' own decoding")
    add("--report", action="store_true", help="say on standard error how long it took and which decoding ran")
    return parser


def _check(flags: argparse.Namespace) -> None:
    """Refuses flags that do not go together or are out of range."""
    for name in ("num_beams", "max_new_tokens", "n_best", "workers", "rows", "batch_tokens", "window"):
        if getattr(flags, name) is not None and getattr(flags, name) < 1:
            raise UsageError(f"--{name} must be at least 1, not {getattr(flags, name)}")
    if flags.ranking == "paper" and flags.decoding == "transformers":
        raise UsageError("--ranking paper is of this package's own decoding: drop --decoding transformers")
    if flags.prefix and flags.score:
        raise UsageError("--score judges whole translations: drop --prefix")
    if flags.n_best > 1 and flags.score:
        raise UsageError("--score judges one translation a line: drop --n_best")
    if flags.n_best > 1 and not flags.json and (flags.confidence or flags.word_confidence or flags.alignments):
        raise UsageError("--n_best goes with --json or alone: confidence and alignments are of the best hypothesis")
    if flags.length_penalty is not None and not math.isfinite(flags.length_penalty):
        raise UsageError(f"--length_penalty must be a finite number, not {flags.length_penalty}")
    if flags.num_beams is not None and flags.n_best > flags.num_beams:
        raise UsageError(f"--n_best {flags.n_best} needs --num_beams of at least {flags.n_best}")


def _run(
    flags: argparse.Namespace, model: Any, tokenizer: Any, lines: Iterable[str], others: Iterator[str] | None
) -> tuple[int, str]:
    """Writes a line for each line; tells how many, and which decoding ran."""
    from transformer2017.modeling.translation import Translator, review_lines

    translator = None
    try:
        if flags.score:
            pairs = zip(lines, others, strict=False)
            results = review_lines(model, tokenizer, pairs, flags.alignments, flags.window)
        else:
            translator = Translator(
                model,
                tokenizer,
                int8=flags.precision == "int8",
                confidence=flags.confidence or flags.word_confidence,
                alignments=flags.alignments,
                **{name: getattr(flags, name) for name in ("workers", "rows", "batch_tokens", "window")},
                **_generation(flags, model),
            )
            results = translator.translate(lines, others)
        count = _write(flags, results, translator)
    except UsageError:
        raise
    except ValueError as error:  # such as int8 where it cannot be, or a given line longer than learned positions
        raise UsageError(in_a_line(error)) from error
    return count, translator.decoded_by if translator else "nothing: translations were given"


def _write(flags: argparse.Namespace, results: Iterable[Any], translator: Any) -> int:
    """Writes a line for each result, as they come; tells how many."""
    count = 0
    for count, result in enumerate(results, start=1):
        if result.parts > 1:
            print(
                f"transformer2017: line {count} is longer than the {translator.longest} tokens that the model takes "
                f"at once: it was translated in {result.parts} parts",
                file=sys.stderr,
            )
        sys.stdout.write(_written(flags, result, count - 1) + "\n")
        if count % 64 == 0 or sys.stdout.isatty():
            sys.stdout.flush()
        if sys.stderr.isatty() and count % 64 == 0:
            print(f"\r{count} lines", end="", file=sys.stderr, flush=True)
    sys.stdout.flush()
    if sys.stderr.isatty() and count >= 64:
        print(f"\r{count} lines", file=sys.stderr)
    return count


def _generation(flags: argparse.Namespace, model: Any) -> dict[str, Any]:
    """The arguments of `generate()` that the flags say."""
    own = model.generation_config
    generation = {name: getattr(flags, name, None) for name in GENERATION_FLAGS}
    generation["fast"] = {"fast": True, "transformers": False, None: None}[flags.decoding]
    if flags.early_stopping is not None:
        generation["early_stopping"] = {"true": True, "false": False, "never": "never"}[flags.early_stopping]
    if flags.n_best > 1:
        beams = flags.num_beams or own.num_beams or 1
        if beams < flags.n_best:
            raise UsageError(f"--n_best {flags.n_best} needs --num_beams of at least {flags.n_best}")
        generation["num_return_sequences"] = flags.n_best
    return {name: value for name, value in generation.items() if value is not None}


def _written(flags: argparse.Namespace, result: Any, number: int) -> str:
    """One result as the flags want it written."""
    review = result.review
    # A token may stand for a line feed, and a line stays a line.
    result = replace(result, text=_in_one_line(result.text), hypotheses=_hypotheses_in_one_line(result))
    if flags.json:
        return json.dumps(_record(flags, result), ensure_ascii=False)
    if flags.n_best > 1:
        scored = result.hypotheses or (("", 0.0),)
        return "\n".join(f"{number} ||| {text} ||| {score:.4f}" for text, score in scored)
    columns = [result.text]
    if flags.confidence or flags.score:
        columns.append(f"{review.confidence:.4f}" if review else "")
    if flags.word_confidence:
        columns.append(" ".join(f"{word:.4f}" for word in review.words) if review else "")
    if flags.alignments:
        columns.append(review.pharaoh if review else "")
    return "\t".join(columns)


def _in_one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def _hypotheses_in_one_line(result: Any) -> tuple[tuple[str, float | None], ...]:
    return tuple((_in_one_line(text), score) for text, score in result.hypotheses)


def _write_utf8() -> None:
    """Whatever the locale: a character that it cannot write would end the work."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")


def _record(flags: argparse.Namespace, result: Any) -> dict[str, Any]:
    """One result as JSON."""
    record: dict[str, Any] = {"text": result.text}
    if result.score is not None:
        record["score"] = result.score
    if flags.n_best > 1:
        record["hypotheses"] = [{"text": text, "score": score} for text, score in result.hypotheses]
    if result.review is not None:
        record["log_prob"] = result.review.log_prob
        record["confidence"] = result.review.confidence
        record["word_confidence"] = list(result.review.words)
        if flags.alignments:
            record["alignment"] = result.review.pharaoh
    return record


def _one_for_each_line(others: Iterator[str], path: str) -> Iterator[str]:
    """The lines of the file that goes with the text, asked for one by one."""
    taken = 0
    for line in others:
        taken += 1
        yield line
    raise UsageError(f"{path!r} has {taken} lines, and the text has more")
