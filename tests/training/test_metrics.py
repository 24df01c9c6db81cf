"""Scores, against sacreBLEU's own command and counts by hand."""

import sys

import pytest
import sacrebleu
from transformer2017.configuration import UsageError
from transformer2017.training.arguments import TokenizerArguments
from transformer2017.training.evaluation import teacher_forced_loss, translate_lines, validation_set
from transformer2017.training.metrics import SymbolErrorRate, TranslationScore, bleu_can_tell, edit_distance
from transformer2017.training.tokenization import train_tokenizer


def test_bleu_is_of_the_corpus_and_carries_its_signature():
    outputs = ["the cat sat on the mat today", "a dog runs in the deep snow"]
    references = ["the cat sat on the mat", "a dog is running in the deep snow"]
    scores = TranslationScore(keep_in_memory=True).compute(predictions=outputs, references=[[r] for r in references])
    assert scores["bleu"] == sacrebleu.corpus_bleu(outputs, [references]).score
    assert scores["chrf"] == sacrebleu.corpus_chrf(outputs, [references]).score
    assert "tok:13a" in scores["bleu_signature"]


def test_the_target_language_decides_the_tokenizer():
    scores = TranslationScore(keep_in_memory=True).compute(
        predictions=["你好世界"], references=[["你好世界"]], target_language="zho"
    )
    assert "tok:zh" in scores["bleu_signature"]
    assert scores["bleu"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("code", "tokenizer", "module"),
    [("ja", "ja-mecab", "MeCab"), ("jpn", "ja-mecab", "MeCab"), ("ko-KR", "ko-mecab", "mecab_ko")],
)
def test_japanese_and_korean_say_what_is_missing(code, tokenizer, module, monkeypatch):
    """Before a run begins, not at its first evaluation."""
    monkeypatch.setitem(sys.modules, module, None)
    for name in ("sacrebleu.tokenizers.tokenizer_ja_mecab", "sacrebleu.tokenizers.tokenizer_ko_mecab"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    tokens = train_tokenizer(iter(["a b"]), TokenizerArguments(), 300, exact=False)
    with pytest.raises(UsageError, match=rf"{tokenizer}, which is not installed: .*sacrebleu\[{tokenizer[:2]}\]"):
        validation_set([("a", "b")], tokens, target_language=code)


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


def test_a_model_trains_on_after_scores_that_failed(model):
    """Its mode is restored whatever ends the scoring: dropout would be off from then on."""
    model.train()
    with pytest.raises(AttributeError):
        translate_lines(model, None, ["a dog"])
    assert model.training
    with pytest.raises(ValueError, match="Give either ids"):
        teacher_forced_loss(model, [{}])
    assert model.training


@pytest.mark.parametrize(
    ("references", "language", "can"),
    [(["one two three four five"], "en", True), (["one", "two three"], "en", False), (["สวัสดี"], "th", True)],
)
def test_bleu_of_short_lines_tells_nothing(references, language, can):
    assert bleu_can_tell(references, language) is can


def test_symbols_are_compared_as_they_are_cut():
    """An output has spaces between its symbols, and its reference need not."""
    arguments = TokenizerArguments(tokenizer_type="symbols", symbol_pattern=r"\S")
    tokens = train_tokenizer(iter(["ab cd"]), arguments, 100)
    assert validation_set([("ab", "cd"), ("ab", "dc")], tokens).score(["d c"]) == {"per": 0.0, "wer": 0.0}


def test_a_space_that_is_a_symbol_is_scored():
    tokens = train_tokenizer(iter(["ab cd"]), TokenizerArguments(tokenizer_type="symbols", symbol_pattern="."), 100)
    references = validation_set([("x", "ab cd"), ("y", "abcd")], tokens)
    right = tokens.batch_decode(tokens(["ab cd", "abcd"])["input_ids"], skip_special_tokens=True)
    assert references.score(right) == {"per": 0.0, "wer": 0.0}
    assert references.score([right[1], right[1]]) == {"per": pytest.approx(100 / 9), "wer": 50.0}


def test_what_references_lose_to_the_pattern_is_told():
    """An output that lacks it counts as right."""
    tokens = train_tokenizer(iter(["ab"]), TokenizerArguments(tokenizer_type="symbols", symbol_pattern="[a-z]"), 100)
    assert validation_set([("a", "b+"), ("b", "가")], tokens).left_out.endswith(
        "left out of their lines: + (1), 가 (1)"
    )
    assert not validation_set([("a", "b")], tokens).left_out
