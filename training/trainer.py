"""`Seq2SeqTrainer` with the paper's schedule, batches by tokens, evaluation by translation, and exact resuming."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object, set_seed
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from transformer2017.configuration import RunError, UsageError
from transformer2017.configuration.manifest import write_manifest
from transformers import PreTrainedModel, ProgressCallback, Seq2SeqTrainer, TrainerCallback

from . import checkpoints
from .batching import IGNORED_LABEL, Collator, TokenBatchLoader, TokenBatchSampler
from .clock import Clock
from .evaluation import ValidationSet, teacher_forced_loss, translate_lines
from .faults import outer_fault
from .memory import FreedMemory
from .progress import ProgressBar, SampleTranslations, TokensPerSecond
from .saving import is_finite
from .schedule import inverse_square_root_schedule, peak_learning_rate
from .sharding import tied_weights_together, whole
from .stopping import EarlyStopping
from .subword_dropout import DroppedMerges, SubwordDropout
from .training_arguments import TrainingArguments

AGAINST_DIVERGENCE = "A lower --learning_rate or a longer --warmup_steps may help."


class SeedEachUpdate(TrainerCallback):
    """Makes the random numbers of an update follow from the seed, the update and the process alone.

    So a run that resumes draws what the uninterrupted one would have drawn, wherever it stopped.
    """

    def on_step_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Seeds Python's, numpy's and torch's generators."""
        seeds = np.random.SeedSequence([args.seed, state.global_step, args.process_index])
        set_seed(int(seeds.generate_state(1)[0]))


class Transformer2017Trainer(Seq2SeqTrainer):
    """A `Seq2SeqTrainer` that trains as the paper does (§5).

    Args:
        model: The model.
        args: The run's settings.
        validation: Sentences to evaluate on; without them, `eval_dataset` is evaluated as in `Seq2SeqTrainer`.
        **kwargs: As for `Seq2SeqTrainer`. `train_dataset` has rows of `input_ids`, `labels`, `source_length` and
            `target_length`, as `data.tokenize` makes them; for `bpe_dropout`, `with_words`.
    """

    args: TrainingArguments

    def __init__(
        self, model: Any, args: TrainingArguments, validation: ValidationSet | None = None, **kwargs: Any
    ) -> None:
        multiple_of = 8 if args.device.type == "cuda" else 1
        kwargs.setdefault("data_collator", Collator(model.config.pad_token_id, multiple_of))
        if validation is not None:
            kwargs.setdefault("eval_dataset", validation.tokens)
        super().__init__(model=model, args=args, **kwargs)
        self.validation = validation
        self.keeps_aside = False  # whether the next checkpoint is a signal's and not the schedule's
        self.last_translations: list[str] = []
        self.tokens_per_second = TokensPerSecond()
        for callback in (SeedEachUpdate(), FreedMemory(), self.tokens_per_second, EarlyStopping()):
            self.add_callback(callback)
        if args.max_minutes or args.save_minutes:
            self.add_callback(Clock())
        if not args.disable_tqdm:
            self.remove_callback(ProgressCallback)
            self.add_callback(ProgressBar())
        if args.sample_outputs:
            self.add_callback(SampleTranslations(self, args.sample_outputs))

    # Batches, optimizer and schedule (§5.1, §5.3).

    @property
    def batches_per_update(self) -> int:
        """Batches that all processes take together between two updates."""
        return self.args.world_size * self.args.gradient_accumulation_steps

    def get_train_dataloader(self) -> DataLoader:
        """Batches by token budget. They are this process's share already, so accelerate does not wrap the loader."""
        pairs, columns = self.train_dataset, self.train_dataset.data
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        dropout = None
        if self.args.bpe_dropout:
            merges = DroppedMerges(self.processing_class, self.args.bpe_dropout, seed)
            pairs = dropout = SubwordDropout(pairs, merges, self.model.config.learned_positions)
        sampler = TokenBatchSampler(
            columns.column("source_length"),
            columns.column("target_length"),
            batch_tokens=math.ceil(self.args.batch_tokens / self.batches_per_update),
            batches_per_update=self.batches_per_update,
            num_processes=self.args.world_size,
            process_index=self.args.process_index,
            seed=seed,
            lengths_in_epoch=None if dropout is None else dropout.lengths,
        )
        return TokenBatchLoader(
            pairs,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            # Those that outlive an epoch would not hear of the next one, from which subword dropout draws.
            persistent_workers=self.args.dataloader_persistent_workers and dropout is None,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As in `Trainer`, with the paper's rate where none is given (§5.3).

        Raises:
            UsageError: If the warm-up, from which that rate follows, is given as a part of the run.
        """
        if self.args.learning_rate is None:
            if 0 < self.args.warmup_steps < 1:
                raise UsageError("--warmup_steps below 1, a part of the run, needs a --learning_rate beside it.")
            self.args.learning_rate = peak_learning_rate(self.model.config.d_model, self.args.warmup_steps)
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The paper's schedule (§5.3), or another of transformers' if asked."""
        if self.lr_scheduler is None and self.args.lr_scheduler_type == "inverse_sqrt":
            warmup = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = inverse_square_root_schedule(optimizer or self.optimizer, warmup)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As in `Trainer`.

        Raises:
            RunError: If memory runs out, or another process of the run is lost; the sentence says how to go on.
        """
        try:
            return super().train(*args, **kwargs)
        except (RuntimeError, MemoryError) as error:
            if reason := outer_fault(error):
                raise RunError(f"{reason} at update {self.state.global_step + 1}. {self._way_back()}") from error
            raise

    def training_step(
        self, model: Any, inputs: dict[str, torch.Tensor], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """One forward and backward pass.

        Raises:
            RunError: If the loss is not a number, before it reaches the weights.
        """
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            step, value = self.state.global_step + 1, loss.item()
            raise RunError(f"The loss of update {step} is {value}. {AGAINST_DIVERGENCE} {self._way_back()}")
        return loss

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        """As in `Trainer`, which has accelerate shard the model here where it is to."""
        with tied_weights_together(self.model) if self.is_fsdp_enabled else nullcontext():
            return super()._prepare_for_training(*args, **kwargs)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The batches of an update, and the number of their target tokens over all processes."""
        batches, num_items_in_batch = super().get_batch_samples(epoch_iterator, num_batches, device)
        if num_items_in_batch is not None:
            self.tokens_per_second.count(int(num_items_in_batch))
        else:
            self.tokens_per_second.count(sum(int((batch["labels"] != IGNORED_LABEL).sum()) for batch in batches))
        return batches, num_items_in_batch

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in `Trainer`, with the rate of target tokens."""
        if "loss" in logs:
            logs["tokens_per_second"] = self.tokens_per_second.take()
        super().log(logs, start_time)

    # Evaluation.

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval", **generation: Any
    ) -> dict[str, float]:
        """Loss, perplexity and scores on the validation set; any other dataset as in `Seq2SeqTrainer`."""
        if self.validation is None or eval_dataset is not None:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix, **generation)
        model = whole(self.accelerator.unwrap_model(self.model))
        metrics = self._validation_loss(model)
        if self.args.predict_with_generate:
            metrics |= self._validation_scores(model, **generation)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _validation_loss(self, model: PreTrainedModel) -> dict[str, float]:
        """Every process takes its share of the batches; sums are added up over all of them."""
        with self.compute_loss_context_manager():
            share = torch.tensor(teacher_forced_loss(model, self._validation_batches()), dtype=torch.float64)
        nats, tokens = self.accelerator.reduce(share.to(self.args.device), "sum").tolist()
        return {"loss": nats / tokens, "perplexity": math.exp(min(nats / tokens, 700.0))}

    def _validation_batches(self) -> Iterator[dict[str, torch.Tensor]]:
        tokens = self.validation.tokens
        by_length = np.lexsort((tokens["source_length"][:], tokens["target_length"][:]))
        size = self.args.per_device_eval_batch_size
        batches = [by_length[start : start + size] for start in range(0, len(by_length), size)]
        for batch in batches[self.args.process_index :: self.args.world_size]:
            yield self._prepare_inputs(self.data_collator([tokens[int(i)] for i in batch]))

    def _validation_scores(self, model: PreTrainedModel, **generation: Any) -> dict[str, float]:
        """Every process translates its share of the sentences; the scores are those of the whole corpus."""
        generation.setdefault("num_beams", self.args.generation_num_beams)
        generation.setdefault("max_length", self.args.generation_max_length)
        generation = {name: value for name, value in generation.items() if value is not None}
        rank, world = self.args.process_index, self.args.world_size
        part = self.validation.part(self.args.eval_sentences)
        with self.autocast_smart_context_manager():
            share = translate_lines(model, self.processing_class, part.sources[rank::world], **generation)
        translations = [""] * len(part.sources)
        for index, lines in enumerate(gather_object([share])):
            translations[index::world] = lines
        self.last_translations = translations
        return {name: score for name, score in part.score(translations).items() if isinstance(score, float)}

    # Checkpoints.

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
            step = self.state.global_step
            raise RunError(f"A weight is not a number at update {step}. {AGAINST_DIVERGENCE} {self._way_back()}")
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
