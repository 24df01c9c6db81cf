"""The model card: `hub_card.md` filled in with what a run knows, a valid card for the Hub."""

import contextlib
import re
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformer2017.configuration.manifest import write_whole
from transformers import GenerationConfig, PreTrainedModel
from transformers.trainer_callback import TrainerState

from .arguments import DataArguments
from .prepare import Prepared

TEMPLATE = "hub_card.md"
NAMES = {"bleu": "BLEU", "chrf": "chrF", "per": "Symbol error rate (PER)", "wer": "Sequence error rate (WER)"}


def model_card(
    model: PreTrainedModel,
    prepared: Prepared,
    scores: dict[str, Any],
    state: TrainerState,
    curves: str,
    address: str | None = None,
) -> str:
    """Fills in the template.

    Args:
        prepared: What the run began with.
        scores: Validation scores and their signatures, as `ValidationSet.score` gives them, and `weights`, which says
            what the weights are, with `chosen`, whether these scores were a reason to take them.
        curves: The picture of the run's curves.
        address: Where others load the model from, such as "me/en-de"; the folder's name if None.
    """
    corpus, arguments = prepared.corpus, prepared.arguments
    name = Path(arguments.training.output_dir).resolve().name
    template = resources.files("transformer2017").joinpath(TEMPLATE).read_text(encoding="utf-8")
    card = ModelCard.from_template(
        metadata(name, prepared, scores),
        template_str=template,
        name=name,
        address=address or name,
        endings=(corpus.source_language or "source", corpus.target_language or "target"),
        source_language=corpus.source_language or "the source language",
        target_language=corpus.target_language or "the target language",
        parent=arguments.model.model,
        config=model.config,
        decoding=decoding(model.generation_config),
        parameters=f"{model.num_parameters():,}",
        pairs=f"{len(prepared.tokens):,}",
        cleaning=corpus.report + prepared.left_out,
        dataset=arguments.data.dataset_name or arguments.data.dataset,
        recipe=arguments.describe(),
        updates=f"{state.global_step:,}",
        epochs=f"{state.epoch or 0:.1f}",
        weights=scores.get("weights"),
        chosen=scores.get("chosen"),
        scores=[
            (NAMES[metric], f"{scores[metric]:.2f}", scores.get(f"{metric}_signature", "").replace("|", r"\|"))
            for metric in NAMES
            if metric in scores
        ],
        curves=curves,
        flags=" ".join(arguments.command_line()),
    )
    return str(card)


def metadata(name: str, prepared: Prepared, scores: dict[str, Any]) -> ModelCardData:
    """What the Hub reads of a card: languages, licence, data set and scores."""
    corpus, data = prepared.corpus, prepared.arguments.data
    return ModelCardData(
        model_name=name,
        language=[one.replace("_", "-") for one in (corpus.source_language, corpus.target_language) if one] or None,
        license=data.license,
        library_name="transformers",
        pipeline_tag="translation",
        tags=["transformer2017", "custom_code"],
        datasets=[hub_id] if (hub_id := hub_dataset(data)) else None,
        metrics=[metric for metric in NAMES if metric in scores] or None,
        eval_results=evaluation_results(scores, data) or None,
    )


def readdress(card: Path, address: str) -> None:
    """Has the commands of a finished card load the model from another address than the one that it was written for."""
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    if former := re.search(r'from_pretrained\("([^"]+)", trust_remote_code', text):
        use = rf'(from_pretrained\("|transformer2017 (?:translate|evaluate) ){re.escape(former[1])}(?=["\s])'
        write_whole(card, re.sub(use, lambda found: found[1] + address, text))


def decoding(generation: GenerationConfig) -> str:
    """How a model decodes by itself, in words."""
    margin = getattr(generation, "max_tokens_beyond_input", None)
    bound = "" if margin is None else f", and the output is at most {margin} tokens longer than the input"
    if (generation.num_beams or 1) == 1:
        return f"greedy{bound}"
    penalty = 1.0 if generation.length_penalty is None else generation.length_penalty
    return f"by beam search of size {generation.num_beams} with length penalty {penalty:g}{bound}"


def one_line(scores: dict[str, Any]) -> str:
    """The scores for the user."""
    return ", ".join(f"{NAMES[metric]} {scores[metric]:.2f}" for metric in NAMES if metric in scores)


def evaluation_results(scores: dict[str, Any], data: DataArguments) -> list[EvalResult]:
    """The scores as the Hub's index of results takes them, where data sets go by an id."""
    name = data.dataset_name or data.dataset or "validation set"
    of_hub = data.validation_split is not None
    return [
        EvalResult(
            task_type="translation",
            task_name="Translation",
            dataset_type=hub_dataset(data) or re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "validation-set",
            dataset_name=name,
            dataset_config=data.dataset_config if of_hub else None,
            dataset_split=data.validation_split if of_hub else "validation",
            metric_type=metric,
            metric_name=NAMES[metric],
            metric_value=round(scores[metric], 2),
            metric_config=scores.get(f"{metric}_signature"),
        )
        for metric in NAMES
        if metric in scores
    ]


def hub_dataset(data: DataArguments) -> str | None:
    """The id of the run's data set on the Hub, if `--dataset` or `--dataset_name` is one."""
    for name in (data.dataset, data.dataset_name):
        if name and name.isascii() and not Path(name).exists():  # older huggingface_hub lets any letter pass
            with contextlib.suppress(HFValidationError):
                validate_repo_id(name)
                return name
    return None
