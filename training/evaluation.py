"""Scores of a model's translations: loss, perplexity, BLEU and chrF (§6.1)."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sacrebleu
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from transformer2017.configuration import RunError

from .data import language_of, read_pairs

# sacreBLEU's tokenizer by target language; 13a, the standard, for all others.
BLEU_TOKENIZERS = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}


def translate_lines(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    lines: Sequence[str],
    batch_size: int = 64,
    **generation: Any,
) -> list[str]:
    """Translates lines in batches of like lengths, and gives them back in order; an empty line stays empty.

    Args:
        batch_size: Sentences at once.
        **generation: What `generate()` takes, such as `num_beams`; the rest is as the model's generation config says.
    """
    outputs = [""] * len(lines)
    token_ids = tokenizer(list(lines), return_attention_mask=False)["input_ids"] if lines else []
    waiting = sorted((i for i, line in enumerate(lines) if line.strip()), key=lambda i: len(token_ids[i]))
    was_training = model.training
    model.eval()
    for start in range(0, len(waiting), batch_size):
        batch = waiting[start : start + batch_size]
        inputs = tokenizer.pad({"input_ids": [token_ids[i] for i in batch]}, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            generated = model.generate(**inputs, **generation)
        for i, text in zip(batch, tokenizer.batch_decode(generated, skip_special_tokens=True), strict=True):
            outputs[i] = text
    model.train(was_training)
    return outputs


def translation_scores(
    hypotheses: Sequence[str], references: Sequence[str], target_language: str | None = None
) -> dict[str, Any]:
    """Corpus BLEU and chrF by sacreBLEU, with the signatures that make them comparable.

    Args:
        target_language: Decides how sacreBLEU tokenizes (Chinese, Japanese and Korean have no spaces to go by).

    Raises:
        RunError: If what sacreBLEU needs for that language is not installed.
    """
    language = (target_language or "").split("-")[0].split("_")[0]
    try:
        bleu = sacrebleu.BLEU(tokenize=BLEU_TOKENIZERS.get(language, "13a"))
        bleu_score = bleu.corpus_score(list(hypotheses), [list(references)])
    except (ImportError, RuntimeError) as error:
        raise RunError(f"BLEU for the target language {language} needs a part of sacreBLEU that is missing: {error}") from error
    chrf = sacrebleu.CHRF()
    chrf_score = chrf.corpus_score(list(hypotheses), [list(references)])
    return {
        "bleu": bleu_score.score,
        "bleu_signature": str(bleu.get_signature()),
        "chrf": chrf_score.score,
        "chrf_signature": str(chrf.get_signature()),
    }


def teacher_forced_loss(model: PreTrainedModel, batches: Iterable[dict[str, torch.Tensor]]) -> tuple[float, int]:
    """Sums the cross-entropy of the references, without label smoothing.

    Returns:
        Nats over all tokens, and their number: the ratio is the loss, its exponential the perplexity.
    """
    was_training = model.training
    model.eval()
    nats, tokens = 0.0, 0
    for batch in batches:
        with torch.inference_mode():
            nats += model(**batch, num_items_in_batch=1).loss.item()
        tokens += int((batch["labels"] != -100).sum())
    model.train(was_training)
    return nats, tokens


def evaluate_files(
    model_folder: str,
    source: Path,
    target: Path,
    target_language: str | None = None,
    batch_size: int = 64,
    **generation: Any,
) -> dict[str, Any]:
    """Translates a file with a saved model and scores the result.

    Raises:
        UsageError: If the files are at fault (see `data.read_pairs`).
    """
    pairs = list(read_pairs(source, target))
    sources, references = zip(*pairs, strict=True)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(model_folder)
    hypotheses = translate_lines(model, tokenizer, sources, batch_size, **generation)
    scores = translation_scores(hypotheses, references, target_language or language_of(str(target)))
    return {"model": str(model_folder), "source": str(source), "target": str(target), "sentences": len(pairs), **scores}
