"""`Seq2SeqTrainer` with the paper's schedule and batches by tokens; the two files beside it evaluate and save."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformer2017.configuration import RunError, UsageError
from transformer2017.modeling.loss import IGNORED_LABEL
from transformers import ProgressCallback, TrainerCallback

from . import checkpoints
from .batching import Collator, TokenBatchLoader, TokenBatchSampler, lengths_of
from .clock import Clock
from .evaluation import ValidationSet
from .faults import outer_fault
from .memory import FreedMemory
from .muon import muon_and_adam
from .progress import ProgressBar, SampleTranslations, TokensPerSecond
from .schedule import inverse_square_root_schedule, peak_learning_rate
from .sharding import tied_weights_together
from .stopping import EarlyStopping
from .subword_dropout import DroppedMerges, SubwordDropout
from .trainer_checkpoints import CheckpointingTrainer
from .trainer_evaluation import EvaluatingTrainer, choose_by_loss
from .training_arguments import WITHOUT_EVALUATION, TrainingArguments


class SeedEachUpdate(TrainerCallback):
    """Makes the random numbers of an update follow from the seed, the update and the process alone.

    So a run that resumes draws what the uninterrupted one would have drawn, wherever it stopped.
    """

    def on_step_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Seeds Python's, numpy's and torch's generators."""
        seeds = np.random.SeedSequence([args.seed, state.global_step, args.process_index])
        set_seed(int(seeds.generate_state(1)[0]))


class StateOfThisStart(TrainerCallback):
    """Mends what a checkpoint says of an earlier start: how often to log, and where its best one is."""

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """After the state of a checkpoint has been read."""
        state.compute_steps(args, state.max_steps)
        if best := checkpoints.best_of(Path(args.output_dir), state):  # transformers gives up one that was moved
            state.best_model_checkpoint = str(best)


class Transformer2017Trainer(EvaluatingTrainer, CheckpointingTrainer):
    """A `Seq2SeqTrainer` that trains as the paper does (§5).

    Args:
        model: The model; None where `model_init` makes it.
        args: The run's settings.
        validation: Sentences to evaluate on; without them, `eval_dataset` is evaluated as in `Seq2SeqTrainer`, and
            the best checkpoint is that of the lowest loss, unless `args` name another score or `compute_metrics`
            gives `bleu`. Without both, nothing is evaluated, whatever `args` say.
        **kwargs: As for `Seq2SeqTrainer`. `train_dataset` is a `datasets.Dataset` with the columns `input_ids` and
            `labels`; for `bpe_dropout`, as `data.tokenize` makes it `with_words`.

    Raises:
        TypeError: If `args` are of another class, such as `Seq2SeqTrainingArguments`.
    """

    def __init__(
        self, model: Any, args: TrainingArguments, validation: ValidationSet | None = None, **kwargs: Any
    ) -> None:
        if not isinstance(args, TrainingArguments):
            raise TypeError(
                "Transformer2017Trainer takes transformer2017.training.training_arguments.TrainingArguments, which "
                f"has every field of Seq2SeqTrainingArguments, not {type(args).__name__}."
            )
        if validation is not None:
            kwargs.setdefault("eval_dataset", validation.tokens)
        elif kwargs.get("eval_dataset") is None:
            vars(args).update(WITHOUT_EVALUATION)
        elif kwargs.get("compute_metrics") is None and args.metric_for_best_model == "bleu":
            choose_by_loss(args)
        super().__init__(model=model, args=args, **kwargs)
        if kwargs.get("data_collator") is None:
            config, multiple_of = self.model.config, 8 if args.device.type == "cuda" else 1
            self.data_collator = Collator(config.pad_token_id, multiple_of, config.learned_positions)
        self.validation = validation
        self.tokens_per_second = TokensPerSecond()
        for callback in (SeedEachUpdate(), StateOfThisStart(), FreedMemory(), self.tokens_per_second, EarlyStopping()):
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
        pairs, lengths = self.train_dataset, lengths_of(self.train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        dropout = None
        if self.args.bpe_dropout:
            merges = DroppedMerges(self.processing_class, self.args.bpe_dropout, seed)
            pairs = dropout = SubwordDropout(pairs, merges, self.model.config.learned_positions)
        sampler = TokenBatchSampler(
            *lengths,
            batch_tokens=math.ceil(self.args.batch_tokens / self.batches_per_update),
            batches_per_update=self.batches_per_update,
            num_processes=self.args.world_size,
            process_index=self.args.process_index,
            seed=seed,
            changing=dropout,
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
            UsageError: If the warm-up, from which that rate follows, is given as a part of the run, or if Muon is to
                turn matrices that are sharded, or none.
        """
        if self.args.learning_rate is None:
            if 0 < self.args.warmup_steps < 1:
                raise UsageError("--warmup_steps below 1, a part of the run, needs a --learning_rate beside it.")
            self.args.learning_rate = peak_learning_rate(self.model.config.d_model, self.args.warmup_steps)
        if self.args.muon and self.optimizer is None:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise UsageError("--muon needs whole matrices, and FSDP and DeepSpeed shard them: leave it out.")
            decayed = set(self.get_decay_parameter_names(self.model))
            self.optimizer = muon_and_adam(self.model, self.args, decayed)
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The paper's schedule (§5.3), or another of transformers' if asked."""
        if self.lr_scheduler is None and self.args.lr_scheduler_type == "inverse_sqrt":
            warmup = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = inverse_square_root_schedule(optimizer or self.optimizer, warmup)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in `Trainer`; True goes on from the last checkpoint that is whole.

        Raises:
            RunError: If memory runs out, or another process of the run is lost; the sentence says how to go on.
        """
        if resume_from_checkpoint is True:
            last, _ = checkpoints.last_whole_checkpoint(Path(self.args.output_dir))
            resume_from_checkpoint = str(last) if last else True
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        except (RuntimeError, MemoryError) as error:
            if reason := outer_fault(error):
                raise RunError(f"{reason} at update {self.state.global_step + 1}. {self._way_back()}") from error
            raise

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """As in `Trainer`. Where the loss is not the model's, the model has no labels, and is given them shifted."""
        if (self.compute_loss_func or self.label_smoother) and "decoder_input_ids" not in inputs:
            shifted = self.model.prepare_decoder_input_ids_from_labels(inputs["labels"])
            inputs = {**inputs, "decoder_input_ids": shifted}
        return super().compute_loss(model, inputs, *args, **kwargs)

    def training_step(
        self, model: Any, inputs: dict[str, torch.Tensor], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """One forward and backward pass.

        Raises:
            RunError: If the loss is not a number, before it reaches the weights.
        """
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise self._divergence(f"The loss of update {self.state.global_step + 1} is {loss.item()}.")
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
