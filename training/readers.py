"""Pairs from files that hold both sides: TSV, CSV, JSONL, Parquet and TMX, and data sets of the Hub."""

import csv
import json
import re
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any

from transformer2017.configuration import UsageError, in_a_line

csv.field_size_limit(2**24)
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
LANGUAGE_CODE = re.compile("[a-z]{2,3}")
TMX_CODES = {"bpt", "ept", "ph", "it", "ut"}  # what stands in them is mark-up of the document that was translated


@dataclass(frozen=True)
class Columns:
    """Which part of a row is the source, and which the target."""

    source: str | None = None
    target: str | None = None
    source_language: str | None = None
    target_language: str | None = None

    def pair(self, row: dict[str, Any], where: str) -> tuple[str, str]:
        """Takes source and target from a row.

        The columns are those named by flag; else `source` and `target`; else those of the languages, inside a
        column `translation` as the Hub's data sets have it, or beside each other.

        Raises:
            UsageError: If the row has no such columns, or no text in them.
        """
        row = {**row, **row["translation"]} if isinstance(row.get("translation"), dict) else row
        names = self._names(row)
        if names[0] not in row or names[1] not in row:
            raise UsageError(
                f"{where} has the columns {in_a_line(', '.join(map(str, row)))}: say which are which, "
                "--source_column NAME --target_column NAME, or --source_language CODE --target_language CODE."
            )
        return _text(row, names[0], where), _text(row, names[1], where)

    def head(self, cells: list[str], where: str) -> bool:
        """Whether a first line holds the columns' names, by the same rules.

        Raises:
            UsageError: If flags name columns and it has no such, or if it may as well be a pair.
        """
        if self.source or self.target:
            self.pair(dict.fromkeys(cells), where)
        if self == Columns() and len(cells) == 2 and all(map(LANGUAGE_CODE.fullmatch, cells)):
            raise UsageError(
                f"{where} may be a pair or the names of languages: give --source_language and --target_language, "
                f"{cells[0]} and {cells[1]} if it names them."
            )
        return set(self._names(cells)) <= set(cells)

    def _names(self, columns: Container[str]) -> tuple[str | None, str | None]:
        return (
            self.source or ("source" if "source" in columns else self.source_language),
            self.target or ("target" if "target" in columns else self.target_language),
        )


def _text(row: dict[str, Any], column: str, where: str) -> str:
    """A cell as text: nothing is an empty side, and a number its digits. Anything else is refused."""
    value = row[column]
    if isinstance(value, str):
        return LONE_SURROGATE.sub("\ufffd", value)  # half a character, as JSON may have it, is a lost one
    if value is None:
        return ""
    if isinstance(value, Number) and not isinstance(value, bool):
        return str(value)
    raise UsageError(f"{where}, column {in_a_line(column)}: text is needed, and it is a {type(value).__name__}.")


def read_pairs_file(path: Path, columns: Columns) -> Iterator[tuple[str, str]]:
    """Reads the pairs of a file, by its ending.

    Raises:
        UsageError: If the file is missing, of another kind, or not what its ending says.
    """
    readers: dict[str, Callable[[Path, Columns], Iterable[tuple[str, str]]]] = {
        ".tsv": _read_tsv,
        ".csv": _read_csv,
        ".jsonl": _read_jsonl,
        ".parquet": _read_parquet,
        ".tmx": _read_tmx,
    }
    read = readers.get(path.suffix.lower())
    if read is None:
        raise UsageError(
            f"{path}: --train_file takes {', '.join(readers)}; two text files are --train_source and --train_target."
        )
    try:
        yield from read(path, columns)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: {error.reason}.") from None


def read_dataset(
    name: str, split: str, config: str | None, streaming: bool, columns: Columns
) -> Iterator[tuple[str, str]]:
    """Reads the pairs of a data set of the Hub, or of a local folder of one.

    Raises:
        UsageError: If it cannot be loaded.
    """
    import datasets

    try:
        if Path(name, "dataset_info.json").is_file() or Path(name, "dataset_dict.json").is_file():
            rows = _split_of(datasets.load_from_disk(name), split)
        else:
            rows = datasets.load_dataset(name, config, split=split, streaming=streaming)
    except Exception as error:
        cause = error.__cause__ or error  # the library says first that there was one
        raise UsageError(f"--dataset {name} (split {split}) cannot be loaded: {in_a_line(cause)}") from error
    for number, row in _as_they_come(rows, f"--dataset {name} (split {split})"):
        yield columns.pair(row, f"--dataset {name}, row {number}")


def _as_they_come(rows: Iterable[Any], name: str) -> Iterator[tuple[int, Any]]:
    """The rows of a data set, counted from 1. A streamed one reads them, or fails to, as they are asked for."""
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            yield number, row
    except Exception as error:  # of the network or of any format
        raise UsageError(f"{name} cannot be read behind row {number}: {in_a_line(error)}") from error


def _split_of(loaded: Any, split: str) -> Any:
    """A split of a saved data set. One that was saved without splits stands for the training split alone."""
    if isinstance(loaded, dict):
        if split not in loaded:
            raise ValueError(f"its splits are {', '.join(loaded)}, each of which is to be named whole")
        return loaded[split]
    if split not in ("train", str(loaded.split)):
        raise ValueError("it was saved as one data set, without splits")
    return loaded


def _read_tsv(path: Path, columns: Columns) -> Iterator[tuple[str, str]]:
    """Two columns without a header; or named ones, if the first line holds their names."""
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        header: list[str] | None = None
        for number, line in enumerate(file, start=1):
            cells, where = line.rstrip("\r\n").split("\t"), f"{path}, line {number}"
            if number == 1 and columns.head(cells, where):
                header = cells
            elif header is None:
                yield _two_cells(cells, where)
            elif len(cells) != len(header):
                raise UsageError(f"{where} has {len(cells)} cells, and line 1 has {len(header)}.")
            else:
                yield columns.pair(dict(zip(header, cells, strict=True)), where)


def _two_cells(cells: list[str], where: str) -> tuple[str, str]:
    """The pair of a line without names: which of three columns are meant, nobody can tell."""
    if len(cells) < 2:
        raise UsageError(f"{where}: a source and a target with a tab between them are needed.")
    if len(cells) > 2:
        raise UsageError(
            f"{where} has {len(cells)} cells, not a source and a target alone: write the names of the columns into a "
            "first line, and say --source_column NAME --target_column NAME."
        )
    return cells[0], cells[1]


def _read_csv(path: Path, columns: Columns) -> Iterator[tuple[str, str]]:
    """Named columns, quoted as spreadsheets do."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        try:
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                if None in row or None in row.values():  # more cells than names, or fewer
                    names = len(rows.fieldnames)
                    raise UsageError(f"{where} has not the {names} cells of line 1: quote a cell that has a comma.")
                yield columns.pair(row, where)
        except csv.Error as error:
            raise UsageError(f"{path}, line {rows.line_num} is not CSV: {in_a_line(error)}.") from None


def _read_jsonl(path: Path, columns: Columns) -> Iterator[tuple[str, str]]:
    """An object a line."""
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{path}, line {number} is not JSON: {in_a_line(error)}.") from None
            if not isinstance(row, dict):
                raise UsageError(f"{path}, line {number}: an object with source and target is needed.")
            yield columns.pair(row, f"{path}, line {number}")


def _read_parquet(path: Path, columns: Columns) -> Iterator[tuple[str, str]]:
    """A group of rows at a time, so that the file may be larger than memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = (row for batch in pq.ParquetFile(path).iter_batches(10_000) for row in batch.to_pylist())
        for number, row in enumerate(rows, start=1):
            yield columns.pair(row, f"{path}, row {number}")
    except (pa.ArrowException, OSError, OverflowError, MemoryError) as error:
        raise UsageError(f"{path} is not Parquet that can be read: {in_a_line(error)}") from None


def _read_tmx(path: Path, columns: Columns) -> Iterator[tuple[str, str]]:
    """Translation memories: a unit at a time, an empty side if it lacks a language; entities are refused."""
    try:
        from defusedxml.common import DefusedXmlException
        from defusedxml.ElementTree import ParseError, iterparse
    except ImportError as error:
        raise UsageError('TMX files need defusedxml: pip install "transformer2017[tmx]".') from error
    source, target = columns.source or columns.source_language, columns.target or columns.target_language
    if source is None or target is None:
        raise UsageError(f"{path}: say which languages to take, --source_language CODE --target_language CODE.")
    languages: set[str] = set()
    try:
        body = None
        for event, element in iterparse(path, events=("start", "end")):
            if event == "start" and element.tag == "body":
                body = element
            if event == "end" and element.tag == "tu":
                texts = _texts_of(element)
                languages.update(texts)
                yield texts.get(source.lower(), ""), texts.get(target.lower(), "")
                (element if body is None else body).clear()  # or what was read would stay in memory
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:  # of an encoding too
        raise UsageError(f"{path} is not a TMX file that can be read: {in_a_line(error)}") from None
    for language in (source, target):
        if languages and language.lower() not in languages:
            known = in_a_line(", ".join(sorted(languages - {""})) or "none, as its units name no language")
            raise UsageError(f"{path} has no {language}: take --source_language and --target_language from {known}.")


def _texts_of(unit: Any) -> dict[str, str]:
    """The texts of a unit by language, in lower case: one in en-GB as en-gb, and as en."""
    texts = {}
    for variant in unit.iter("tuv"):
        language = (variant.get("{http://www.w3.org/XML/1998/namespace}lang") or variant.get("lang") or "").lower()
        segment = variant.find("seg")
        texts[language] = texts[language.split("-")[0]] = "" if segment is None else _translatable(segment)
    return texts


def _translatable(segment: Any) -> str:
    """A segment's text without its codes. Text within one (`sub`, such as a footnote) is no part of the sentence."""
    for code in [one for one in segment.iter() if one.tag in TMX_CODES]:
        tail = code.tail
        code.clear()
        code.tail = tail
    return " ".join(re.split(r"[ \t\r\n]+", "".join(segment.itertext()).strip(" \t\r\n")))  # XML's white space
