"""Checkpoints that are whole: with a manifest when written, checked before a run resumes from them."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from transformer2017.configuration import UsageError, in_a_line
from transformer2017.configuration.manifest import MANIFEST, fault_of
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import sort_checkpoints


def is_whole(checkpoint: Path) -> bool:
    """Whether every file is as it was when the checkpoint's manifest was written, which comes last."""
    return fault_of(checkpoint) is None


def kept_aside(run: Path) -> Path:
    """Where the checkpoint of a run goes that a signal stopped, until the run is past it."""
    return run / "_run" / "stopped"


def checkpoints_of(run: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first, whole or not."""
    return [Path(path) for path in sort_checkpoints(output_dir=str(run))] if run.is_dir() else []


def last_whole_checkpoint(run: Path) -> tuple[Path | None, list[Path]]:
    """The checkpoint to resume from, and the torn ones after it, newest first."""
    torn = []
    found = [*checkpoints_of(run), *checkpoints_of(kept_aside(run))]
    for checkpoint in sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        if is_whole(checkpoint):
            return checkpoint, torn
        torn.append(checkpoint)
    return None, torn


def state_of(checkpoint: Path) -> TrainerState:
    """What the trainer knew when it wrote the checkpoint.

    Raises:
        UsageError: If it cannot be read.
    """
    try:
        return TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{checkpoint / 'trainer_state.json'} cannot be read ({in_a_line(error)}): delete {checkpoint}, and the "
            "same command goes on from the checkpoint before it."
        ) from error


def refuse_other_vocabulary(checkpoint: Path, vocab_size: int) -> None:
    """Raises where a run would go on with other words, as when the file of --add_words has changed.

    Raises:
        UsageError: Naming both numbers.
    """
    config = checkpoint / "config.json"
    saved = json.loads(config.read_text(encoding="utf-8"))["vocab_size"] if config.is_file() else vocab_size
    if saved != vocab_size:
        raise UsageError(
            f"{checkpoint} has a vocabulary of {saved:,}, and the run now one of {vocab_size:,}: give the words of "
            "--add_words, or the tokenizer, as they were, or --overwrite_output_dir to start over."
        )


def best_of(run: Path, state: TrainerState) -> Path | None:
    """The best checkpoint of a run, where its folder is now: the state has the path of where it was."""
    best = run / f"checkpoint-{state.best_global_step}"
    return best if best.is_dir() else None


def remove(checkpoints: Iterable[Path]) -> None:
    """Deletes checkpoints, their manifests first, so that one half deleted is torn."""
    for checkpoint in checkpoints:
        (checkpoint / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(checkpoint, ignore_errors=True)


def rotate(run: Path, limit: int | None, best: str | None) -> None:
    """Deletes all before the last `limit` checkpoints but the best one. Those without a manifest do not count."""
    found = checkpoints_of(run)
    kept = [path for path in found if (path / MANIFEST).is_file()][-limit:] if limit and limit > 0 else []
    if kept:
        keep = {Path(best).name} if best else set()
        remove(path for path in found[: found.index(kept[0])] if path.name not in keep)
