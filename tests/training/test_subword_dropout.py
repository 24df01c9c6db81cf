"""BPE-dropout: the oracle is the library's own, which cannot be seeded."""

import json
import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from transformer2017.cli import main
from transformer2017.configuration import UsageError
from transformer2017.training.arguments import TokenizerArguments
from transformer2017.training.batching import TokenBatchLoader, TokenBatchSampler
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
    dropout = SubwordDropout(pairs, DroppedMerges(tokenizer, rate, seed=1))
    dropout.set_epoch(epoch)
    return dropout.__getitems__(range(len(TEXTS)))


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


def test_batches_keep_to_the_budget_with_the_lengths_of_the_epoch(tokenizer):
    """Dropout lengthens sentences: cut by the lengths of the corpus, batches are over it and hold more padding."""
    texts = [" ".join(random.Random(i).choices(" ".join(LINES).split(), k=3 + i % 20)) for i in range(400)]
    pairs = Dataset(pa.Table.from_batches([PairEncoder(tokenizer, None, with_words=True)(texts, texts)]))
    columns = [np.array(pairs[name][:]) for name in ("source_length", "target_length")]
    dropout = SubwordDropout(pairs, DroppedMerges(tokenizer, 0.3, seed=1))
    drawn = TokenBatchSampler(*columns, batch_tokens=1000, changing=dropout)
    assert sorted(np.concatenate(list(drawn.batches_of(3)))) == list(range(len(texts)))

    def tokens_of_batches(sampler):
        loader = TokenBatchLoader(dropout, batch_sampler=sampler, collate_fn=list)
        loader.set_epoch(3)
        batches = [[(len(row["input_ids"]), len(row["labels"])) for row in batch] for batch in loader]
        real = sum(sum(map(sum, batch)) for batch in batches)
        cells = sum(len(batch) * max(side) for batch in batches for side in zip(*batch, strict=True))
        return max(max(map(sum, zip(*batch, strict=True))) for batch in batches), cells - real, real

    largest, padding, tokens = tokens_of_batches(drawn)
    otherwise_largest, otherwise_padding, _ = tokens_of_batches(TokenBatchSampler(*columns, batch_tokens=1000))
    assert tokens > 1.2 * sum(map(sum, columns))
    assert largest <= 1000 + 60 < otherwise_largest
    assert padding < 0.7 * otherwise_padding


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


def test_pairs_without_their_words_are_refused(tokenizer):
    pairs = Dataset.from_dict({"input_ids": [[5, 2]], "labels": [[6, 2]]})
    with pytest.raises(UsageError, match="needs a dataset with the columns source_words and target_words"):
        SubwordDropout(pairs, DroppedMerges(tokenizer, 0.1))


def test_the_saved_tokenizer_does_not_drop(flags, tmp_path):
    """Neither validation nor whoever loads the model."""
    assert main(["train", *flags(bpe_dropout=0.3, max_steps=2, save_steps=2, eval_steps=2)]) == 0
    assert not json.loads((tmp_path / "run" / "tokenizer.json").read_text())["model"]["dropout"]
