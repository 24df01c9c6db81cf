"""The model card: `hub_card.md` filled in with what a run knows, a valid card for the Hub."""

from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel
from transformers.trainer_callback import TrainerState

from .arguments import RunArguments
from .data import Corpus

TEMPLATE = "hub_card.md"
NAMES = {"bleu": "BLEU", "chrf": "chrF", "per": "Phoneme error rate", "wer": "Word error rate"}


def model_card(
    model: PreTrainedModel,
    corpus: Corpus,
    arguments: RunArguments,
    scores: dict[str, Any],
    state: TrainerState,
    curves: str | None,
) -> str:
    """Fills in the template.

    Args:
        scores: Validation scores and their signatures, as `ValidationSet.score` gives them, and `weights`, which says
            what the weights are.
        curves: The picture of the run's curves, if it was drawn.
    """
    name = Path(arguments.training.output_dir).resolve().name
    metadata = ModelCardData(
        model_name=name,
        language=[one for one in (corpus.source_language, corpus.target_language) if one] or None,
        license=arguments.data.license,
        library_name="transformers",
        pipeline_tag="translation",
        tags=["transformer2017", "custom_code"],
        datasets=[arguments.data.dataset_name] if arguments.data.dataset_name else None,
        metrics=[metric for metric in NAMES if metric in scores] or None,
        eval_results=_results(scores, arguments) or None,
    )
    template = resources.files("transformer2017").joinpath(TEMPLATE).read_text(encoding="utf-8")
    card = ModelCard.from_template(
        metadata,
        template_str=template,
        name=name,
        source_language=corpus.source_language or "the source language",
        target_language=corpus.target_language or "the target language",
        config=model.config,
        generation=model.generation_config,
        parameters=f"{model.num_parameters():,}",
        pairs=f"{len(corpus.pairs):,}",
        cleaning=corpus.report,
        dataset=arguments.data.dataset_name,
        recipe=arguments.describe(),
        updates=f"{state.global_step:,}",
        epochs=f"{state.epoch or 0:.1f}",
        weights=scores.get("weights"),
        scores=[
            (NAMES[metric], f"{scores[metric]:.2f}", scores.get(f"{metric}_signature", ""))
            for metric in NAMES
            if metric in scores
        ],
        curves=curves,
        flags=" ".join(arguments.command_line()),
    )
    return str(card)


def one_line(scores: dict[str, Any]) -> str:
    """The scores for the user."""
    return ", ".join(f"{NAMES[metric]} {scores[metric]:.2f}" for metric in NAMES if metric in scores)


def _results(scores: dict[str, Any], arguments: RunArguments) -> list[EvalResult]:
    """The scores as the Hub's index of results takes them."""
    dataset = arguments.data.dataset_name or "validation set"
    return [
        EvalResult(
            task_type="translation",
            task_name="Translation",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split="validation",
            metric_type=metric,
            metric_name=NAMES[metric],
            metric_value=round(scores[metric], 2),
            metric_config=scores.get(f"{metric}_signature"),
        )
        for metric in NAMES
        if metric in scores
    ]
