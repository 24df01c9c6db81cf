"""The folder of a run: what it was asked to do, so that the same command goes on and another does not overwrite it."""

import json
import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from transformer2017.configuration import UsageError
from transformer2017.configuration.manifest import write_whole

from . import checkpoints
from .saving import MARK

# Flags that do not change what a run learns: they may differ when it goes on.
OF_NO_CONSEQUENCE = {
    "overwrite_output_dir",
    "resume_from_checkpoint",
    "disable_tqdm",
    "report_to",
    "run_name",
    "logging_strategy",
    "logging_steps",
    "logging_first_step",
    "logging_dir",
    "log_level",
    "sample_outputs",
    "save_total_limit",
    "dataloader_num_workers",
    "dataloader_pin_memory",
    "push_to_hub",
    "hub_model_id",
    "hub_token",
    "hub_private_repo",
    "hub_strategy",
    "ddp_timeout",
    "license",
    "dataset_name",
}


class RunFolder:
    """Where a run keeps its data, checkpoints, logs and model. What is not for others is under `_run`.

    Used as a context: once claimed, the folder is this process's alone until the context ends. The system takes the
    lock from a process that is killed.

    Args:
        path: The folder given as `--output_dir`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / "_run"
        self.note = self.store / "flags.json"
        self.lock = FileLock(self.store / "lock")

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *error: object) -> None:
        self.lock.release()

    def claim(self, flags: dict[str, Any], overwrite: bool, resume: bool) -> None:
        """Makes the folder this run's.

        Args:
            flags: What the user gave.
            overwrite: Whether to delete what another run left.
            resume: Whether to go on with other flags than it began with.

        Raises:
            UsageError: If the folder holds something else, cannot be written, or another process has it.
        """
        self._refuse_foreign_files(overwrite)
        self._take()
        before = self._flags_before()
        changed = _changes(before, flags) if before is not None else []
        if overwrite or (changed and not self.has_learnt):
            self._clear()
            changed = []
        if changed and not resume:
            raise UsageError(
                f"{self.path} holds a run with other flags ({', '.join(changed)}). Give another --output_dir, "
                "--overwrite_output_dir to delete it and start over, or --resume_from_checkpoint true to go on."
            )
        self._write({"flags": flags, "finished": self.is_finished and not changed})

    def _take(self) -> None:
        try:
            self.store.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(blocking=False)
        except Timeout:
            raise UsageError(
                f"Another process is training in {self.path}: wait until it ends, or give another --output_dir."
            ) from None
        except OSError as error:
            raise UsageError(
                f"--output_dir {self.path} cannot be written ({error.strerror or error}): give another folder."
            ) from None

    @property
    def has_learnt(self) -> bool:
        """Whether there is a checkpoint or a model to lose: a start that failed on its flags or data leaves none."""
        places = (self.path, checkpoints.kept_aside(self.path))
        return (self.path / MARK).is_file() or any(checkpoints.checkpoints_of(place) for place in places)

    @property
    def is_finished(self) -> bool:
        """Whether the run has written its final model."""
        return bool(self._note().get("finished")) and (self.path / MARK).is_file()

    def finish(self) -> None:
        """Notes that the final model is written."""
        self._write({**self._note(), "finished": True})

    def _note(self) -> dict[str, Any]:
        try:
            note = json.loads(self.note.read_text(encoding="utf-8")) if self.note.is_file() else {}
        except (ValueError, RecursionError):
            note = None
        if not isinstance(note, dict) or not isinstance(note.get("flags") or {}, dict):
            raise UsageError(
                f"{self.note}, which says what this run was asked to do, cannot be read: delete it to start anew with "
                "--overwrite_output_dir, or restore it."
            )
        return note

    def _write(self, note: dict[str, Any]) -> None:
        write_whole(self.note, json.dumps(note, indent=2, default=str, ensure_ascii=False))

    def _flags_before(self) -> dict[str, Any] | None:
        return self._note().get("flags")

    def _refuse_foreign_files(self, overwrite: bool) -> None:
        if overwrite or not self.path.exists() or self.note.is_file():
            return
        if not self.path.is_dir():
            raise UsageError(f"--output_dir {self.path} is a file: give a folder.")
        if any(self.path.iterdir()):
            raise UsageError(
                f"{self.path} is not empty and holds no run of `transformer2017 train`: give another --output_dir, "
                "or --overwrite_output_dir."
            )

    def _clear(self) -> None:
        """Deletes a run's own files, and no others."""
        (self.path / MARK).unlink(missing_ok=True)
        checkpoints.remove(checkpoints.checkpoints_of(self.path))
        for path in self.store.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path != Path(self.lock.lock_file):
                path.unlink()
        self._write({})


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The flags that matter and differ."""
    now = json.loads(json.dumps(now, default=str))
    names = sorted((before.keys() | now.keys()) - OF_NO_CONSEQUENCE - {"output_dir"})
    missing = object()
    return [f"--{name}" for name in names if before.get(name, missing) != now.get(name, missing)]
