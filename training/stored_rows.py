"""Arrow files of rows, memory-mapped, each beside a note of what it was made of, so that it is made once."""

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
from datasets import Dataset
from transformer2017.configuration import UsageError
from transformer2017.configuration.manifest import write_whole

ROWS_AT_ONCE = 10_000


def store(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Dataset:
    """Writes rows to an Arrow file, whole or not at all, and opens it memory-mapped. A note of other rows is gone."""
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    path.with_suffix(".json").unlink(missing_ok=True)
    os.replace(partial, path)
    return Dataset.from_file(str(path))


def in_batches(rows: Iterable[tuple], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Groups rows into columns of some thousand values."""
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, ROWS_AT_ONCE)):
        columns = dict(zip(schema.names, map(list, zip(*chunk, strict=True)), strict=True))
        yield pa.RecordBatch.from_pydict(columns, schema)


def signature_of(files: list[tuple[str, ...]], settings: dict[str, object]) -> str:
    """What a stored file was made of: the files with their sizes and times, and the settings."""
    facts = []
    for path in itertools.chain.from_iterable(files):
        try:
            status = os.stat(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
        facts.append([os.path.abspath(path), status.st_size, status.st_mtime_ns])
    return json.dumps([facts, settings], sort_keys=True, default=str)


def remember(path: Path, signature: str, report: str) -> None:
    """Notes what a stored file was made of."""
    write_whole(path.with_suffix(".json"), json.dumps({"made_of": signature, "report": report}))


def reusable(path: Path, signature: str) -> str | None:
    """The report of a stored file, if it was made of the same."""
    note = path.with_suffix(".json")
    if not (path.is_file() and note.is_file()):
        return None
    try:
        memory = json.loads(note.read_text(encoding="utf-8"))
        return memory["report"] if memory["made_of"] == signature else None
    except (ValueError, KeyError, TypeError):
        return None
