"""The trainer's checkpoints: each with a manifest, written last, so that a run goes on from one that is whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from transformer2017.configuration import RunError
from transformer2017.configuration.manifest import write_manifest
from transformers import Seq2SeqTrainer

from . import checkpoints
from .saving import is_finite, saying_cache
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
            with saying_cache(self.model):
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
        try:
            if self.args.should_save:
                checkpoints.remove([checkpoint])
            self.accelerator.wait_for_everyone()
            with self._keeping_all():  # `Trainer` would delete before this one is whole
                super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                write_manifest(checkpoint)
        except (OSError, RuntimeError, SafetensorError) as error:
            checkpoints.remove([checkpoint])
            raise RunError(f"{checkpoint} could not be written ({error}). {self._way_back()}") from error
        finally:
            aside, self.keeps_aside = self.keeps_aside, False
        if self.args.should_save and not aside:
            checkpoints.remove(checkpoints.checkpoints_of(checkpoints.kept_aside(run)))
            checkpoints.rotate(checkpoint.parent, self.args.save_total_limit, self.state.best_model_checkpoint)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        """As in `Trainer`, which with a limit of 1 would keep the best alone: a run goes on from its last."""
        with self._keeping_all():
            return super()._finalize_training(*args, **kwargs)

    @contextmanager
    def _keeping_all(self) -> Iterator[None]:
        """Without a limit to the number of checkpoints."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            yield
        finally:
            self.args.save_total_limit = limit

    def _determine_best_metric(self, *args: Any, **kwargs: Any) -> bool:
        """As in `Trainer`; what it says decides whether to save where the strategy is `best`, or a signal asked to."""
        is_best = super()._determine_best_metric(*args, **kwargs)
        self.keeps_aside = self.keeps_aside and not is_best
        return is_best or self.keeps_aside

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As in `Trainer`, but rate, decay and betas are those asked for now, which the user may have changed."""
        scheduler = self.lr_scheduler
        if checkpoint is None or not isinstance(scheduler, LambdaLR):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        asked = [{name: group[name] for name in group if name != "params"} for group in self.optimizer.param_groups]
        base_rates = scheduler.base_lrs
        super()._load_optimizer_and_scheduler(checkpoint)
        scheduler.base_lrs = base_rates
        parts = [part(scheduler.last_epoch) for part in scheduler.lr_lambdas]
        for group, options, base, part in zip(self.optimizer.param_groups, asked, base_rates, parts, strict=True):
            group.update({**options, "lr": base * part})

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
