"""The trainer's evaluation: loss on the references, and the scores of the model's own translations (§6.1)."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformer2017.modeling.precision import widest_float
from transformers import PreTrainedModel, Seq2SeqTrainer

from .evaluation import ValidationSet, teacher_forced_loss, translate_lines
from .sharding import whole
from .stopping import evaluations_since_best
from .training_arguments import TrainingArguments


def choose_by_loss(args: TrainingArguments) -> None:
    """Makes the checkpoint of the lowest loss the best one."""
    args.metric_for_best_model, args.greater_is_better = "loss", False


class EvaluatingTrainer(Seq2SeqTrainer):
    """A `Seq2SeqTrainer` that evaluates by translating whole sentences, shared out over the processes.

    Attributes:
        validation: Sentences to evaluate on; None leaves evaluation to `Seq2SeqTrainer`.
        last_translations: What the model made of them when it was last evaluated.
    """

    args: TrainingArguments
    validation: ValidationSet | None = None
    last_translations: Sequence[str] = ()

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

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As in `Trainer`, and by finer scores where the one asked for is level.

        By the loss where the default, BLEU, is none of the scores of the user's own function.
        """
        if self.args.metric_for_best_model == "bleu" and "eval_bleu" not in metrics and "eval_loss" in metrics:
            choose_by_loss(self.args)
        if self.args.metric_for_best_model and evaluations_since_best(self.state.log_history, self.args) == 0:
            self.state.best_metric = None  # this one is the best, if by a finer score alone
        return super()._determine_best_metric(metrics, trial)

    def _validation_loss(self, model: PreTrainedModel) -> dict[str, float]:
        """Every process takes its share of the batches; sums are added up over all of them."""
        with self.compute_loss_context_manager():
            share = teacher_forced_loss(model, self._validation_batches())
        device = self.args.device
        share = torch.tensor(share, dtype=widest_float(device), device=device)
        nats, tokens = self.accelerator.reduce(share, "sum").tolist()
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
        share = translate_lines(model, self.processing_class, part.sources[rank::world], **generation)
        translations = [""] * len(part.sources)
        for index, lines in enumerate(gather_object([share])):
            translations[index::world] = lines
        self.last_translations = translations
        return {name: score for name, score in part.score(translations).items() if isinstance(score, float)}
