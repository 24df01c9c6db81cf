"""Scores, against sacreBLEU's own command and counts by hand."""

import pytest
import sacrebleu
from transformer2017.training.metrics import SymbolErrorRate, TranslationScore, edit_distance


def test_bleu_is_of_the_corpus_and_carries_its_signature():
    outputs = ["the cat sat on the mat today", "a dog runs in the deep snow"]
    references = ["the cat sat on the mat", "a dog is running in the deep snow"]
    scores = TranslationScore(keep_in_memory=True).compute(predictions=outputs, references=[[r] for r in references])
    assert scores["bleu"] == sacrebleu.corpus_bleu(outputs, [references]).score
    assert scores["chrf"] == sacrebleu.corpus_chrf(outputs, [references]).score
    assert "tok:13a" in scores["bleu_signature"]


def test_the_target_language_decides_the_tokenizer():
    scores = TranslationScore(keep_in_memory=True).compute(
        predictions=["你好世界"], references=[["你好世界"]], target_language="zh"
    )
    assert "tok:zh" in scores["bleu_signature"]
    assert scores["bleu"] == pytest.approx(100)


def test_any_reference_counts_as_right():
    """Of 2 words one is right; 1 edit over the 3 + 2 symbols of the nearest references."""
    scores = SymbolErrorRate(keep_in_memory=True).compute(
        predictions=["R IY D", "K AE"], references=[["R EH D", "R IY D"], ["K AH", "D AO G Z"]]
    )
    assert scores == {"per": pytest.approx(100 * 1 / 5), "wer": 50.0}


@pytest.mark.parametrize(
    ("a", "b", "edits"), [("kitten", "sitting", 3), ("", "abc", 3), ("same", "same", 0), ("ab", "ba", 2)]
)
def test_edit_distance(a, b, edits):
    assert edit_distance(a, b) == edit_distance(b, a) == edits
