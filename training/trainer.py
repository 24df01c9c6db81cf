"""`Seq2SeqTrainer` with the paper's schedule, batches by tokens, and evaluation by translation."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object, set_seed
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import Seq2SeqTrainer, TrainerCallback

from .arguments import TrainingArguments
from .batching import Collator, TokenBatchLoader, TokenBatchSampler
from .evaluation import teacher_forced_loss, translate_lines, translation_scores
from .schedule import inverse_square_root_schedule, peak_learning_rate


@dataclass
class ValidationSet:
    """What a run is evaluated on: the sentences, and their tokens."""

    sources: list[str]
    references: list[str]
    tokens: Dataset
    target_language: str | None = None


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
        train_dataset: Rows of `input_ids`, `labels`, `source_length` and `target_length`, as `data.tokenize` makes.
        validation: Sentences to evaluate on; without them, `eval_dataset` is evaluated as in `Seq2SeqTrainer`.
        **kwargs: As for `Seq2SeqTrainer`.
    """

    def __init__(self, model: Any = None, args: Any = None, validation: ValidationSet | None = None, **kwargs: Any) -> None:
        multiple_of = 8 if args is not None and args.device.type == "cuda" else 1
        kwargs.setdefault("data_collator", Collator(model.config.pad_token_id, multiple_of))
        if validation is not None:
            kwargs.setdefault("eval_dataset", validation.tokens)
        super().__init__(model=model, args=args, **kwargs)
        self.validation = validation
        self.last_translations: list[str] = []
        self.add_callback(SeedEachUpdate())

    def get_train_dataloader(self) -> DataLoader:
        """Batches by token budget. They are this process's share already, so accelerate does not wrap the loader."""
        lengths = self.train_dataset.data
        sampler = TokenBatchSampler(
            lengths.column("source_length").to_numpy(),
            lengths.column("target_length").to_numpy(),
            batch_tokens=math.ceil(self.args.batch_tokens / self.batches_per_update),
            batches_per_update=self.batches_per_update,
            num_processes=self.args.world_size,
            process_index=self.args.process_index,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
        )
        return TokenBatchLoader(
            self.train_dataset,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
        )

    @property
    def batches_per_update(self) -> int:
        """Batches that all processes take together between two updates."""
        return self.args.world_size * self.args.gradient_accumulation_steps

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As in `Trainer`, with the paper's rate where none is given (§5.3)."""
        if self.args.learning_rate is None:
            self.args.learning_rate = peak_learning_rate(self.model.config.d_model, self.args.warmup_steps)
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The paper's schedule (§5.3), or another of transformers' if asked."""
        if self.lr_scheduler is None and self.args.lr_scheduler_type == "inverse_sqrt":
            warmup = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = inverse_square_root_schedule(optimizer or self.optimizer, warmup)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval", **generation: Any) -> dict[str, float]:
        """Loss, perplexity, BLEU and chrF on the validation set; any other dataset as in `Seq2SeqTrainer`."""
        if self.validation is None or eval_dataset is not None:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix, **generation)
        metrics = self._validation_loss()
        if self.args.predict_with_generate:
            metrics |= self._validation_scores(**generation)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _validation_loss(self) -> dict[str, float]:
        """Every process takes its share of the batches; sums are added up over all of them."""
        with self.compute_loss_context_manager():
            share = torch.tensor(teacher_forced_loss(self.model, self._validation_batches()), dtype=torch.float64)
        nats, tokens = self.accelerator.reduce(share.to(self.args.device), "sum").tolist()
        return {"loss": nats / tokens, "perplexity": math.exp(min(nats / tokens, 700.0))}

    def _validation_batches(self) -> Iterator[dict[str, torch.Tensor]]:
        tokens = self.validation.tokens
        by_length = np.lexsort((tokens["source_length"][:], tokens["target_length"][:]))
        size = self.args.per_device_eval_batch_size
        batches = [by_length[start : start + size] for start in range(0, len(by_length), size)]
        for batch in batches[self.args.process_index :: self.args.world_size]:
            rows = [tokens[int(i)] for i in batch]
            yield self._prepare_inputs(self.data_collator(rows))

    def _validation_scores(self, **generation: Any) -> dict[str, float]:
        """Every process translates its share of the sentences; the scores are of the whole corpus."""
        generation.setdefault("num_beams", self.args.generation_num_beams)
        if self.args.generation_max_length is not None:
            generation.setdefault("max_length", self.args.generation_max_length)
        generation = {name: value for name, value in generation.items() if value is not None}
        rank, world = self.args.process_index, self.args.world_size
        model = self.accelerator.unwrap_model(self.model)
        with self.autocast_smart_context_manager():
            share = translate_lines(
                model,
                self.processing_class,
                self.validation.sources[rank::world],
                self.args.per_device_eval_batch_size,
                **generation,
            )
        translations: list[str] = [""] * len(self.validation.sources)
        for index, lines in enumerate(gather_object([share])):
            translations[index::world] = lines
        self.last_translations = translations
        scores = translation_scores(translations, self.validation.references, self.validation.target_language)
        return {name: scores[name] for name in ("bleu", "chrf")}
