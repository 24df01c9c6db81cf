"""Scores of a model: loss and perplexity on the references, and the scores of its own translations (§6.1)."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformer2017.configuration import UsageError, in_a_line
from transformer2017.configuration.manifest import check_folder, check_weights
from transformer2017.configuration.placement import placed
from transformer2017.configuration.token_numbers import saved_tokenizer
from transformer2017.modeling.loss import IGNORED_LABEL
from transformer2017.modeling.translation import Translator
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase

from .data import Corpus, language_of, read_pairs, tokenize
from .metrics import SymbolErrorRate, TranslationScore, bleu_of
from .tokenization import in_symbols, is_symbol_table, told_of_characters_left_out


@dataclass
class ValidationSet:
    """What a run is evaluated on: sentences, their references, their tokens, and how outputs are scored.

    Attributes:
        left_out: Says which characters of the references are no symbols, and therefore not asked for.
    """

    sources: list[str]
    references: list[list[str]]
    tokens: Dataset | None = None
    target_language: str | None = None
    of_symbols: bool = False
    left_out: str = ""

    def part(self, at_most: int) -> "ValidationSet":
        """At most so many sentences, evenly spread."""
        step = -(-len(self.sources) // at_most)
        return dataclasses.replace(self, sources=self.sources[::step], references=self.references[::step])

    def score(self, outputs: Sequence[str]) -> dict[str, Any]:
        """BLEU and chrF; error rates where outputs are symbols (phonemes, letters)."""
        if self.of_symbols:
            return SymbolErrorRate(keep_in_memory=True).compute(predictions=outputs, references=self.references)
        return TranslationScore(keep_in_memory=True).compute(
            predictions=outputs, references=self.references, target_language=self.target_language
        )


def validation_set(
    pairs: Iterable[tuple[str, str]],
    tokenizer: PreTrainedTokenizerBase,
    tokens: Dataset | None = None,
    target_language: str | None = None,
) -> ValidationSet:
    """Prepares pairs for scoring. Of symbols, equal sources are one source with several right answers."""
    of_symbols = is_symbol_table(tokenizer)
    if not of_symbols:
        bleu_of(target_language)  # now rather than at the first evaluation
        sources, targets = map(list, zip(*pairs, strict=True))
        return ValidationSet(sources, [[target] for target in targets], tokens, target_language)
    answers: dict[str, list[str]] = {}
    pairs = list(pairs)
    for source, target in pairs:
        answers.setdefault(source, []).append(in_symbols(target, tokenizer))
    left_out = told_of_characters_left_out((target for _, target in pairs), tokenizer)
    return ValidationSet(list(answers), list(answers.values()), tokens, target_language, True, left_out)


def tokenized_validation_set(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, file: Path, longest: int | None = None
) -> ValidationSet:
    """A validation set with its tokens, which the loss needs, kept in `file`: of pairs no longer than `longest`."""
    tokens, _ = tokenize(corpus.pairs, tokenizer, file, max_length=longest)
    pairs = zip(corpus.pairs["source"], corpus.pairs["target"], strict=True)
    return validation_set(pairs, tokenizer, tokens, corpus.target_language)


def translate_lines(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, lines: Sequence[str], **generation: Any
) -> list[str]:
    """Translates lines, and gives them back in order; an empty line stays empty.

    Args:
        **generation: What `generate()` takes, such as `num_beams`; the rest is as the model's generation config says.
    """
    was_training = model.training
    model.eval()
    try:
        translator = Translator(model, tokenizer, window=max(len(lines), 1), **generation)
        return [translation.text for translation in translator.translate(lines)]
    finally:
        model.train(was_training)


def teacher_forced_loss(model: PreTrainedModel, batches: Iterable[dict[str, torch.Tensor]]) -> tuple[float, int]:
    """Sums the cross-entropy of the references, without label smoothing.

    Returns:
        Nats over all tokens, and their number: the ratio is the loss, its exponential the perplexity.
    """
    was_training = model.training
    model.eval()
    nats, tokens = 0.0, 0
    try:
        for batch in batches:
            with torch.inference_mode():
                nats += model(**batch, num_items_in_batch=1).loss.item()
            tokens += int((batch["labels"] != IGNORED_LABEL).sum())
    finally:
        model.train(was_training)
    return nats, tokens


def load_model(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a saved model and its tokenizer.

    Raises:
        UsageError: If the folder is not there, holds no model, or is not as its manifest says.
    """
    check_folder(name)
    try:
        model, told = AutoModelForSeq2SeqLM.from_pretrained(name, output_loading_info=True)
        check_weights(name, told)
        return model, saved_tokenizer(name)
    except UsageError:
        raise
    except Exception as error:  # files of any kind of damage raise errors of any kind
        raise UsageError(f"{name} is not a model that can be loaded: {in_a_line(error)}") from error


def evaluate_files(
    name: str,
    source: Path,
    target: Path,
    target_language: str | None = None,
    device: str | None = None,
    **generation: Any,
) -> dict[str, Any]:
    """Translates a file with a saved model and scores the result.

    Of symbols, lines with the same source are one sentence with several right answers.

    Args:
        device: As torch names it; a GPU if there is one, if None.

    Raises:
        UsageError: If the model, a file or the device is at fault (see `load_model` and `data.read_pairs`).
    """
    pairs = list(read_pairs(source, target))
    model, tokenizer = load_model(name)
    model = placed(model, device)
    references = validation_set(pairs, tokenizer, target_language=target_language or language_of(str(target)))
    outputs = translate_lines(model, tokenizer, references.sources, **generation)
    facts = {"model": name, "source": str(source), "target": str(target), "lines": len(pairs)}
    facts["sentences"] = len(references.sources)
    warnings = {"left_out": references.left_out} if references.left_out else {}
    return {**facts, **references.score(outputs), **warnings}
