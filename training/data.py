"""Pairs of sentences from files to token ids on disk: text -> `Dataset` of source and target -> token ids.

Both are memory-mapped Arrow files in the run's folder, so that a corpus larger than memory trains as a small one does.
"""

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import itertools
import json
import math
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from transformer2017.configuration import UsageError, in_a_line
from transformers import PreTrainedTokenizerBase

from .arguments import DataArguments
from .cleaning import Cleaner
from .encoding import PairEncoder
from .readers import Columns, read_dataset, read_pairs_file
from .stored_rows import ROWS_AT_ONCE, in_batches, remember, reusable, signature_of, store

TEXT = pa.schema({"source": pa.string(), "target": pa.string()})
LANGUAGE = re.compile("[a-z]{2,3}([-_]([A-Z][a-z]{3}|[A-Z]{2}|[0-9]{3})){0,2}")  # de, pt-BR, zh_Hant_TW
NOT_A_LANGUAGE = {"txt", "src", "tgt", "trg", "tok", "bpe", "raw", "tsv", "csv", "gz"}


def read_pairs(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    """Reads two files line by line, compressed ones (train.en.gz) too.

    Raises:
        UsageError: If a file is missing, empty or not UTF-8, or one has more lines than the other.
    """
    counts = [0, 0]
    for source_line, target_line in itertools.zip_longest(_lines(source), _lines(target)):
        counts[0] += source_line is not None
        counts[1] += target_line is not None
        if source_line is not None and target_line is not None:
            yield source_line, target_line
    if counts[0] != counts[1]:
        raise UsageError(
            f"{source} has {counts[0]:,} lines and {target} has {counts[1]:,}: "
            "line n of one must be the translation of line n of the other."
        )
    if not counts[0]:
        raise UsageError(f"{source} and {target} are empty.")


def _lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, or of standard input for -, without their ends. Only a line feed ends a line."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if str(path) == "-" else opened(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise UsageError(
                        f"{path}, line {number}: byte {error.start + 1} is not UTF-8. "
                        "Convert the file from the encoding that it is in, such as LATIN1 or CP949: "
                        f"iconv -f ENCODING -t UTF-8 {path.name}"
                    ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or in_a_line(error)}.") from None


def language_of(path: str | None) -> str | None:
    """The language code that a file's name ends with (train.en, train.zh_CN.gz), if it looks like one."""
    ending = Path((path or "").removesuffix(".gz")).suffix[1:]
    return ending if LANGUAGE.fullmatch(ending) and ending not in NOT_A_LANGUAGE else None


@dataclass
class Corpus:
    """Pairs of sentences, and what is known of them."""

    pairs: Dataset
    source_language: str | None = None
    target_language: str | None = None
    report: str = ""
    reused: bool = False


@dataclass(frozen=True)
class Origin:
    """Where some pairs come from: a name for the user, the files, if any, how to read them, and what languages."""

    name: str
    files: tuple[str, ...]
    read: Callable[[], Iterator[tuple[str, str]]]
    languages: tuple[str | None, str | None] = (None, None)


def training_corpus(arguments: DataArguments, folder: Path) -> Corpus:
    """Reads the training pairs, leaves out the faulty ones, and keeps the rest in an Arrow file of `folder`.

    Raises:
        UsageError: If no data is named, or what is named is at fault.
    """
    sources, targets = arguments.train_source or [], arguments.train_target or []
    if len(sources) != len(targets):
        raise UsageError("Give as many files to --train_target as to --train_source.")
    origins = [_two_files(*pair) for pair in zip(sources, targets, strict=True)]
    origins += [_one_file(path, arguments) for path in arguments.train_file or []]
    if arguments.dataset:
        origins.append(_split(arguments.train_split, arguments))
    if not origins:
        raise UsageError("Say what to learn from: --train_source and --train_target, --train_file, or --dataset.")
    weights = arguments.corpus_weights or [1.0] * len(origins)
    if len(weights) != len(origins) or not all(0 <= weight < math.inf for weight in weights):
        raise UsageError(f"--corpus_weights: give a number from 0 for each of the {len(origins)} corpora.")
    if not any(weights):
        raise UsageError("--corpus_weights are all 0, which takes no pair of any corpus: give one that is more.")
    return _corpus(arguments, list(zip(origins, weights, strict=True)), folder, "train")


def validation_corpus(arguments: DataArguments, folder: Path) -> Corpus | None:
    """Reads the validation pairs, if any are given: all but those with an empty side."""
    if (arguments.validation_source is None) != (arguments.validation_target is None):
        raise UsageError("Give both of --validation_source and --validation_target, or neither.")
    if arguments.validation_source is not None and arguments.validation_target is not None:
        origin = _two_files(arguments.validation_source, arguments.validation_target)
    elif arguments.validation_file:
        origin = _one_file(arguments.validation_file, arguments)
    elif arguments.dataset and arguments.validation_split:
        origin = _split(arguments.validation_split, arguments)
    else:
        return None
    uncleaned = {"drop_broken": False, "drop_copies": False, "drop_duplicates": False, "max_length_ratio": None}
    return _corpus(dataclasses.replace(arguments, **uncleaned), [(origin, 1.0)], folder, "validation")


def _two_files(source: str, target: str) -> Origin:
    languages = (language_of(source), language_of(target))
    read = functools.partial(read_pairs, Path(source), Path(target))
    return Origin(f"{source} and {target}", (source, target), read, languages)


def _one_file(path: str, arguments: DataArguments) -> Origin:
    return Origin(path, (path,), lambda: read_pairs_file(Path(path), _columns(arguments)))


def _split(split: str, arguments: DataArguments) -> Origin:
    name, config, streaming = arguments.dataset, arguments.dataset_config, arguments.streaming
    read = functools.partial(read_dataset, name, split, config, streaming, _columns(arguments))
    return Origin(f"{name} ({split})", tuple(sorted(_files_below(name))), read)


def _files_below(folder: str) -> Iterator[str]:
    """The files of a data set that is a folder, but for hidden ones and those of runs; none if it is of the Hub."""
    for place, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if not (one.startswith(".") or Path(place, one, "_run").is_dir())]
        files = (os.path.join(place, name) for name in names if not name.startswith("."))
        yield from filter(os.path.isfile, files)  # and no link to nothing


def _columns(arguments: DataArguments) -> Columns:
    return Columns(
        arguments.source_column, arguments.target_column, arguments.source_language, arguments.target_language
    )


def weighted(pairs: Iterable[tuple[str, str]], weight: float) -> Iterator[tuple[str, str]]:
    """Takes each pair `weight` times on average: 2.5 is twice, and once more every other time."""
    share, whole = Fraction(str(weight)).as_integer_ratio()  # 0.1 is a tenth, and ten of them are one
    owed = 0
    for pair in pairs:
        owed += share
        while owed >= whole:
            owed -= whole
            yield pair


def _corpus(arguments: DataArguments, origins: list[tuple[Origin, float]], folder: Path, name: str) -> Corpus:
    path = folder / f"{name}.pairs.arrow"
    signature = signature_of([origin.files for origin, _ in origins], dataclasses.asdict(arguments))
    report = reusable(path, signature)
    reused = report is not None
    if report is None:
        cleaner = Cleaner(arguments)
        pairs = (pair for origin, weight in origins for pair in weighted(cleaner.clean(origin.read()), weight))
        stored = store(path, TEXT, in_batches(pairs, TEXT))
        report = cleaner.report()
        if not len(stored):
            why = f"{report}, of which --corpus_weights takes none" if cleaner.kept else report
            raise UsageError(f"No pair of {origins[0][0].name} is left: {why}.")
        if any(weight != 1 for _, weight in origins):
            report += f"; by --corpus_weights an epoch takes {len(stored):,}"
        remember(path, signature, report)
    source_language, target_language = origins[0][0].languages
    return Corpus(
        Dataset.from_file(str(path)),
        arguments.source_language or source_language,
        arguments.target_language or target_language,
        report,
        reused,
    )


def sentences(pairs: Dataset, at_most: int = 1_000_000) -> Iterator[str]:
    """Source and target sentences to learn a vocabulary from: all, or evenly spread ones of a very large corpus."""
    step = -(-2 * len(pairs) // at_most)
    for rows in (pairs if step == 1 else pairs.select(range(0, len(pairs), step))).iter(1000):
        yield from rows["source"]
        yield from rows["target"]


def total(dataset: Dataset, column: str) -> int:
    """The sum of a column."""
    return pc.sum(dataset.data.column(column)).as_py() or 0


def tokenize(
    corpus: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
    max_length: int | None,
    with_words: bool = False,
) -> tuple[Dataset, str]:
    """Turns pairs into token ids with their lengths, in an Arrow file; made once for a corpus and a tokenizer.

    Args:
        path: The Arrow file to write, or to use if it was made from the same pairs with the same tokenizer.
        max_length: Pairs with more tokens on a side are left out; None keeps all.
        with_words: Whether to note of how many tokens each word is, as subword dropout needs.

    Returns:
        Rows of `input_ids`, `labels` and both lengths (the end token counted), and a line about what was left out.
    """
    pairs_file = corpus.cache_files[0]["filename"]
    settings = {"tokenizer": _vocabulary_digest(tokenizer), "max_length": max_length, "with_words": with_words}
    signature = signature_of([(pairs_file,)], settings)
    if (report := reusable(path, signature)) is not None:
        return Dataset.from_file(str(path)), report
    left_out = 0

    encode = PairEncoder(tokenizer, max_length, with_words)

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal left_out
        for rows in corpus.iter(ROWS_AT_ONCE):
            batch = encode(rows["source"], rows["target"])
            left_out += len(rows["source"]) - len(batch)
            yield batch

    dataset = store(path, encode.schema, batches())
    if not len(dataset):
        raise UsageError(
            f"No pair is left: each has more than {max_length} tokens on a side (--max_length, positions learned)."
        )
    report = f"; {left_out:,} pairs with more than {max_length} tokens on a side left out" if left_out else ""
    remember(path, signature, report)
    return dataset, report


def _vocabulary_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """A fingerprint of what the tokenizer does."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    description = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(description.encode()).hexdigest()
