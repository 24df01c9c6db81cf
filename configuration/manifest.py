"""Whether a model folder is whole: its manifest of sizes and SHA-256, written last, and its weights."""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import RunError, UsageError, in_a_line

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
CHUNK = 1 << 20
FOR_EDITING = {".md", ".png"}  # the card and its pictures: people write in them, and no model loads them


def write_manifest(folder: Path) -> None:
    """Notes size and SHA-256 of each file of a folder that is written. Comes last: a torn folder has none."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST and path.suffix not in FOR_EDITING
    }
    write_whole(folder / MANIFEST, json.dumps({"format": 1, "files": files}, indent=2))


def write_whole(path: Path, text: str) -> None:
    """Writes a text file beside its place and moves it there, so that it is never half written."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:  # there is one only if there was an error
        partial.unlink(missing_ok=True)


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Gives a folder beside to write in, which takes its place at the end, or is gone if there was an error.

    Raises:
        UsageError: If the folder's place is taken.
        RunError: If the disk is full.
    """
    folder = folder.resolve()
    if folder == Path.cwd():  # which no other folder can take the place of
        raise UsageError(f"{str(folder)!r} is the folder that this runs in: name a new one")
    if folder.is_mount():
        raise UsageError(
            f"{folder} is the top of a file system, which no folder can take the place of: name one in it"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder: name a new one")
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)  # of a writer that was killed
    beside.mkdir(parents=True)
    try:
        yield beside
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    except Exception as error:  # safetensors and tokenizers have errors of their own
        if os.strerror(errno.ENOSPC) in str(error):
            raise RunError(f"{folder} could not be written: {os.strerror(errno.ENOSPC)}") from error
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def check_folder(name: str) -> None:
    """Refuses what is neither a whole model folder nor a name that the Hub may know, before the network is asked.

    Raises:
        UsageError: If it is a path to nothing, a folder without a configuration, or one that is not as it was saved.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UsageError(f"{name!r} holds no config.json, so it is not a model folder")
    elif folder.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UsageError(f"there is no model folder {name!r}")
    elif folder.parent.is_dir():  # "runs/en-de" mistyped is a name of the Hub's too, which takes long to be refused
        logger.warning("there is no folder %r here: the Hub is asked for a model of that name", name)
    check_manifest(folder)


def check_manifest(folder: str | Path) -> None:
    """Compares a folder with its manifest. One without a manifest passes: `save_pretrained` alone writes none.

    Raises:
        UsageError: If a file is missing, cut short or changed; the sentence names it.
    """
    folder = Path(folder)
    if (folder / MANIFEST).is_file() and (fault := fault_of(folder)):
        raise UsageError(
            f"{folder} is not as it was saved: {fault}. Copy or make the folder anew; if you changed it yourself, "
            f"delete its {MANIFEST}."
        )


def check_weights(name: str | Path, loading_info: Mapping[str, Any]) -> None:
    """Refuses a model that transformers has filled up with random weights.

    Args:
        name: The folder, or name on the Hub, for the sentence.
        loading_info: What `from_pretrained(..., output_loading_info=True)` tells.

    Raises:
        UsageError: If a weight is missing; the sentence names it.
    """
    if loading_info["missing_keys"]:
        raise UsageError(f"the weights of {str(name)!r} are not whole: {min(loading_info['missing_keys'])} is missing")


def fault_of(folder: Path) -> str | None:
    """What is wrong with a folder that must have a manifest: a few words; None if nothing."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        expected = {name: (int(facts["bytes"]), str(facts["sha256"])) for name, facts in files.items()}
    except OSError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return f"{MANIFEST} cannot be read"
    try:
        fault = next(filter(None, (_fault_of_file(folder, name, *facts) for name, facts in expected.items())), None)
        return fault and in_a_line(fault)  # it holds a name that anything may have been written into
    except OSError as error:
        return f"a file of it cannot be read ({error.strerror})"


def _fault_of_file(folder: Path, name: str, size: int, sha256: str) -> str | None:
    path = folder / name
    if Path(name).name != name or not path.is_file():
        return f"{name} is missing"
    if path.stat().st_size != size:
        return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
    return None if _sha256(path) == sha256 else f"{name} has changed (its SHA-256 differs)"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
