"""The trainer's checkpoints: each with a manifest, written last, so that a run goes on from one that is whole."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformer2017.configuration import RunError
from transformer2017.configuration.manifest import write_manifest
from transformers import Seq2SeqTrainer

from . import checkpoints
from .saving import is_finite
from .sharding import whole
from .training_arguments import TrainingArguments


class CheckpointingTrainer(Seq2SeqTrainer):
    """A `Seq2SeqTrainer` that keeps older checkpoints until a new one is known to be whole.

    Attributes:
        keeps_aside: Whether the next checkpoint is a signal's and not the schedule's.
    """

    args: TrainingArguments
    keeps_aside = False

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """As in `Trainer`; where weights are sharded, a whole copy of the model, as if they were not."""
        as_it_is = {name: getattr(self, name) for name in ("model", "is_fsdp_enabled", "is_deepspeed_enabled")}
        self.model, self.is_fsdp_enabled, self.is_deepspeed_enabled = whole(self.model), False, False
        try:
            super().save_model(*args, **kwargs)
        finally:
            vars(self).update(as_it_is)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Writes a checkpoint, its manifest last, and only then deletes older ones.

        Raises:
            RunError: If a weight is not a number, or the checkpoint cannot be written, as on a full disk.
        """
        run = Path(self.args.output_dir)
        checkpoint = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        if not is_finite(self.model):
            raise self._divergence(f"A weight is not a number at update {self.state.global_step}.")
        limit = self.args.save_total_limit
        self.args.save_total_limit = None  # `Trainer` would delete before this one is whole
        try:
            if self.args.should_save:
                checkpoints.remove([checkpoint])
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                write_manifest(checkpoint)
        except (OSError, RuntimeError, SafetensorError) as error:
            checkpoints.remove([checkpoint])
            raise RunError(f"{checkpoint} could not be written ({error}). {self._way_back()}") from error
        finally:
            self.args.save_total_limit = limit
            aside, self.keeps_aside = self.keeps_aside, False
        if self.args.should_save and not aside:
            checkpoints.remove(checkpoints.checkpoints_of(checkpoints.kept_aside(run)))
            checkpoints.rotate(run, limit, self.state.best_model_checkpoint)

    def _get_output_dir(self, trial: Any) -> str:
        """As in `Trainer`, but for a checkpoint that is kept aside."""
        folder = super()._get_output_dir(trial)
        return str(checkpoints.kept_aside(Path(folder))) if self.keeps_aside else folder

    def _divergence(self, what: str) -> RunError:
        """The end of a run whose numbers are none any more."""
        return RunError(f"{what} A lower --learning_rate or a longer --warmup_steps may help. {self._way_back()}")

    def _way_back(self) -> str:
        """Tells the user where the run stands."""
        last, _ = checkpoints.last_whole_checkpoint(Path(self.args.output_dir))
        if last is None:
            return "There is no checkpoint yet: the same command starts over."
        return f"The last good checkpoint is {last}; the same command goes on from it."

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Tied weights are saved once, so a checkpoint never has all names: no warning about that."""
        load_result.missing_keys[:] = [
            key for key in load_result.missing_keys if key not in self.model.all_tied_weights_keys
        ]
        super()._issue_warnings_after_load(load_result)
