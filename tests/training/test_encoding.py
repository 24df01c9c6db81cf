"""Token ids of pairs: the oracle is the tokenizer itself, asked for each sentence."""

import pytest
from transformer2017.training import encoding
from transformer2017.training.arguments import TokenizerArguments
from transformer2017.training.encoding import PairEncoder
from transformer2017.training.tokenization import splits_at_spaces, train_tokenizer

LINES = ["Two dogs run in the snow.", "Zwei Hunde laufen im Schnee.", "A dog's bowl, 24 cats!"] * 5
TEXTS = [
    *LINES[:3], "a  b ,  c", " lead", "trail ", "", " ", "\ttab\there", "a▁b ▁", "漢字 ✓ Straße", "no\u00a0break",
    "x</s>y z", "dogs </s> run", "<0x41> <unk>", "it's 1234!", "e\u0301 \u2028 x",
]  # fmt: skip


@pytest.mark.parametrize("remembered", [200_000, 0])
@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_word_by_word_gives_the_tokens_of_the_sentence(kind, remembered, monkeypatch):
    """Whatever spaces, special tokens and unknown characters stand in it; when words were forgotten, too."""
    monkeypatch.setattr(encoding, "MOST_REMEMBERED", remembered)
    tokenizer = train_tokenizer(iter(LINES), TokenizerArguments(tokenizer_type=kind), 310, exact=False)
    assert splits_at_spaces(tokenizer)
    encode = PairEncoder(tokenizer, None)
    for _ in range(2):
        rows = encode(TEXTS, TEXTS[::-1]).to_pydict()
        assert rows["input_ids"] == tokenizer(TEXTS)["input_ids"]
        assert rows["labels"] == tokenizer(TEXTS[::-1])["input_ids"]
        assert rows["source_length"] == [len(ids) for ids in rows["input_ids"]]


def test_long_pairs_are_left_out_by_either_side():
    tokenizer = train_tokenizer(iter(LINES), TokenizerArguments(), 310, exact=False)
    rows = PairEncoder(tokenizer, 12)(["a", LINES[0] * 3, "b"], ["a", "b", LINES[0] * 3])
    assert rows.to_pydict()["labels"] == tokenizer(["a"])["input_ids"]


def test_symbols_go_by_the_sentence():
    """Their pattern, not spaces, says what a symbol is."""
    arguments = TokenizerArguments(tokenizer_type="symbols", symbol_pattern=r"\S")
    tokenizer = train_tokenizer(iter(["ab c"]), arguments, 100)
    assert not splits_at_spaces(tokenizer)
    rows = PairEncoder(tokenizer, None)(["ab c"], ["c a"]).to_pydict()
    assert rows["input_ids"] == tokenizer(["ab c"])["input_ids"]
