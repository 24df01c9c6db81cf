"""Checkpoints that are whole: sealed when written, checked before a run resumes from them."""

import json
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path

from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import sort_checkpoints

SEAL = "seal.json"
CHUNK = 1 << 20


def seal(checkpoint: Path) -> None:
    """Notes the size and checksum of each file; written last, so that a checkpoint without it is torn."""
    files = {path.name: _facts(path) for path in sorted(checkpoint.iterdir()) if path.is_file() and path.name != SEAL}
    (checkpoint / SEAL).write_text(json.dumps(files, indent=2), encoding="utf-8")


def is_whole(checkpoint: Path) -> bool:
    """Whether every file is as it was when the checkpoint was sealed."""
    try:
        files = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        return all(_facts(checkpoint / name) == facts for name, facts in files.items())
    except (OSError, ValueError):
        return False


def checkpoints_of(run: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first, whole or not."""
    return [Path(path) for path in sort_checkpoints(output_dir=str(run))] if run.is_dir() else []


def last_whole_checkpoint(run: Path) -> tuple[Path | None, list[Path]]:
    """The checkpoint to resume from, and the torn ones after it, newest first."""
    torn = []
    for checkpoint in reversed(checkpoints_of(run)):
        if is_whole(checkpoint):
            return checkpoint, torn
        torn.append(checkpoint)
    return None, torn


def state_of(checkpoint: Path) -> TrainerState:
    """What the trainer knew when it wrote the checkpoint."""
    return TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))


def remove(checkpoints: Iterable[Path]) -> None:
    """Deletes checkpoints, their seals first, so that one half deleted is torn."""
    for checkpoint in checkpoints:
        (checkpoint / SEAL).unlink(missing_ok=True)
        shutil.rmtree(checkpoint, ignore_errors=True)


def rotate(run: Path, limit: int | None, best: str | None) -> None:
    """Deletes all but the last `limit` checkpoints and the best one."""
    if limit is None or limit <= 0:
        return
    keep = {Path(best).name} if best else set()
    remove(path for path in checkpoints_of(run)[:-limit] if path.name not in keep)


def _facts(path: Path) -> list[int]:
    """The size in bytes and the CRC-32 of a file."""
    size = checksum = 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            size += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
    return [size, checksum]
