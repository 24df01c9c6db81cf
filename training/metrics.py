"""Metrics of the `evaluate` library that need no network: sacreBLEU's scores, and error rates of symbol sequences."""

import re
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import sacrebleu
from transformer2017.configuration import UsageError

# sacreBLEU's tokenizer by target language; 13a, the standard, for all others.
BLEU_TOKENIZERS = {
    "zh": "zh", "zho": "zh", "chi": "zh", "cmn": "zh",
    "ja": "ja-mecab", "jpn": "ja-mecab",
    "ko": "ko-mecab", "kor": "ko-mecab",
    "th": "char", "tha": "char", "lo": "char", "lao": "char", "km": "char", "khm": "char", "my": "char", "mya": "char",
}  # fmt: skip
SEVERAL_REFERENCES = datasets.Features(
    {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
)
SYMBOL = re.compile("(?:^|(?<= ))( |[^ ]+)(?: |$)")  # of a text with a space between them; one may be a space itself


class TranslationScore(evaluate.Metric):
    """BLEU and chrF of a whole corpus, with sacreBLEU's signatures, which make them comparable.

    `compute(predictions=..., references=..., target_language="ja")`: a list of references for each prediction, all
    of equal number; the language decides how sacreBLEU tokenizes.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__, citation="https://aclanthology.org/W18-6319", features=SEVERAL_REFERENCES
        )

    def _compute(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]], target_language: str | None = None
    ) -> dict[str, Any]:
        """Raises `UsageError` if what sacreBLEU needs for that language is not installed."""
        streams = [list(stream) for stream in zip(*references, strict=True)]
        bleu, chrf = bleu_of(target_language), sacrebleu.CHRF()
        bleu_score = bleu.corpus_score(predictions, streams)
        chrf_score = chrf.corpus_score(predictions, streams)
        return {
            "bleu": bleu_score.score,
            "bleu_signature": str(bleu.get_signature()),
            "chrf": chrf_score.score,
            "chrf_signature": str(chrf.get_signature()),
        }


def bleu_of(target_language: str | None) -> sacrebleu.BLEU:
    """BLEU with sacreBLEU's tokenizer for that language, by its code (ja, jpn, ja-JP).

    Raises:
        UsageError: If the tokenizer's part of sacreBLEU is not installed.
    """
    language = (target_language or "").lower().replace("_", "-").split("-")[0]
    tokenizer = BLEU_TOKENIZERS.get(language, "13a")
    try:
        return sacrebleu.BLEU(tokenize=tokenizer)
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            f"BLEU for {target_language} is made with {tokenizer}, which is not installed: "
            f'pip install "sacrebleu[{tokenizer[:2]}]".'
        ) from error


def bleu_can_tell(references: Sequence[str], target_language: str | None) -> bool:
    """Whether BLEU is 100 for the references themselves: where none has four words in a row it is always 0."""
    return bleu_of(target_language).corpus_score(references, [references]).score > 99


class SymbolErrorRate(evaluate.Metric):
    """Error rates of sequences of symbols with one space between them, in percent, as pronunciation is scored.

    `per`, the phoneme error rate: edits (insertions, deletions, substitutions) that turn each output into the nearest
    of its references, over the symbols of those references. `wer`, the word error rate: the share of outputs that
    equal none of their references.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__, citation="https://arxiv.org/abs/2004.06338", features=SEVERAL_REFERENCES
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        edits = symbols = wrong = 0
        for prediction, alternatives in zip(predictions, references, strict=True):
            output, *answers = map(SYMBOL.findall, (prediction, *alternatives))
            distance, length = min((edit_distance(output, answer), len(answer)) for answer in answers)
            edits += distance
            symbols += length
            wrong += distance > 0
        return {"per": 100 * edits / max(symbols, 1), "wer": 100 * wrong / max(len(predictions), 1)}


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """The fewest insertions, deletions and substitutions that turn one sequence into the other (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]
