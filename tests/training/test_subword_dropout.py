"""BPE-dropout: the oracle is the library's own, which cannot be seeded."""

import json
import random
from collections import Counter

import pyarrow as pa
import pytest
from datasets import Dataset
from transformer2017.cli import main
from transformer2017.configuration import UsageError
from transformer2017.training.arguments import TokenizerArguments
from transformer2017.training.batching import TokenBatchSampler
from transformer2017.training.encoding import PairEncoder
from transformer2017.training.subword_dropout import DroppedMerges, SubwordDropout
from transformer2017.training.tokenization import train_tokenizer

LINES = ["Two dogs run in the snow.", "Zwei Hunde laufen im Schnee.", "A dog's bowl, 24 cats!"] * 5
TEXTS = [*LINES[:3], "漢字 and </s> dogs", "snowdogs"]


@pytest.fixture
def tokenizer():
    return train_tokenizer(iter(LINES), TokenizerArguments(), 340, exact=False)


def rows(tokenizer, rate, epoch=0):
    pairs = Dataset(pa.Table.from_batches([PairEncoder(tokenizer, None, with_words=True)(TEXTS, TEXTS[::-1])]))
    sampler = TokenBatchSampler(pairs["source_length"][:], pairs["target_length"][:], 100)
    sampler.set_epoch(epoch)
    return SubwordDropout(pairs, DroppedMerges(tokenizer, rate, seed=1), sampler).__getitems__(range(len(TEXTS)))


def test_without_dropout_the_tokens_are_the_librarys(tokenizer):
    assert [row["input_ids"] for row in rows(tokenizer, 0.0)] == tokenizer(TEXTS)["input_ids"]


def test_with_dropout_the_text_is_the_same_and_follows_from_seed_and_epoch(tokenizer):
    """Words that merges do not make (bytes, special tokens) stay; another epoch gives other subwords."""
    first = rows(tokenizer, 0.5)
    assert first == rows(tokenizer, 0.5)
    assert first != rows(tokenizer, 0.5, epoch=1)
    for row, ids in zip(first, tokenizer(TEXTS)["input_ids"], strict=True):
        assert row["input_ids"] != ids
        assert tokenizer.decode(row["input_ids"]) == tokenizer.decode(ids)


def test_segmentations_are_as_frequent_as_the_librarys(tokenizer):
    """Within four standard deviations of 4,000 draws, for each segmentation."""
    word = tuple(tokenizer("Schnee", add_special_tokens=False)["input_ids"])
    merges, draws = DroppedMerges(tokenizer, 0.3), 4000
    ours = Counter(tuple(merges._draw(word, random.Random(draw))) for draw in range(draws))
    model = tokenizer.backend_tokenizer.model
    model.dropout = 0.3
    tokenizer.backend_tokenizer.model = model
    theirs = Counter(tuple(tokenizer("Schnee", add_special_tokens=False)["input_ids"]) for _ in range(draws))
    assert len(theirs) > 3
    for segmentation in ours | theirs:
        share = (ours[segmentation] + theirs[segmentation]) / (2 * draws)
        difference = abs(ours[segmentation] - theirs[segmentation]) / draws
        assert difference <= 4 * (2 * share * (1 - share) / draws) ** 0.5, segmentation


def test_other_kinds_are_refused():
    symbols = train_tokenizer(iter(["a b"]), TokenizerArguments(tokenizer_type="symbols"), 100)
    with pytest.raises(UsageError, match="--bpe_dropout needs a tokenizer of byte-pair encoding"):
        DroppedMerges(symbols, 0.1)


def test_the_saved_tokenizer_does_not_drop(flags, tmp_path):
    """Neither validation nor whoever loads the model."""
    assert main(["train", *flags(bpe_dropout=0.3, max_steps=2, save_steps=2, eval_steps=2)]) == 0
    assert not json.loads((tmp_path / "run" / "tokenizer.json").read_text())["model"]["dropout"]
