"""Batches by tokens: what every epoch, on any number of processes, must hold."""

from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformer2017.training import batching
from transformer2017.training.batching import Collator, TokenBatchSampler

LENGTHS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=4, max_size=200)


def sampler(lengths, **settings) -> TokenBatchSampler:
    return TokenBatchSampler(np.array([s for s, _ in lengths]), np.array([t for _, t in lengths]), **settings)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(20, 500), st.sampled_from([1, 2, 4]), st.integers(0, 3), st.sampled_from([8, 64, 256]))
def test_an_epoch_holds_every_pair_once(lengths, tokens, per_update, epoch, pool):
    """Nothing is dropped or repeated, no batch is empty, and updates are whole; in one pool, and in several."""
    drawn = sampler(lengths, batch_tokens=tokens, batches_per_update=per_update)
    with patch.object(batching, "POOL", pool), patch.object(batching, "BLOCK", 4):
        batches = list(drawn.batches_of(epoch))
    assert len(batches) == drawn.num_batches
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(len(batch) for batch in batches)
    assert len(batches) % per_update == 0


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(60, 500))
def test_no_side_of_a_batch_exceeds_the_budget_by_more_than_a_sentence(lengths, tokens):
    source, target = np.array(lengths).T
    for batch in sampler(lengths, batch_tokens=tokens).batches_of(0):
        assert max(source[batch].sum(), target[batch].sum()) <= tokens + 60


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_batches_of_an_update(world):
    """What one process accumulates, several take at once: the same batches, in the same update, and equally many."""
    lengths = [(1 + i % 13, 1 + i % 7) for i in range(300)]
    alone = list(sampler(lengths, batch_tokens=40, batches_per_update=4).batches_of(3))
    shares = []
    for rank in range(world):
        share = sampler(lengths, batch_tokens=40, batches_per_update=4, num_processes=world, process_index=rank)
        share.set_epoch(3)
        shares.append(list(share))
        assert len(share) == len(shares[-1]) == len(alone) // world
    together = [batch for row in zip(*shares, strict=True) for batch in row]
    assert together == [batch.tolist() for batch in alone]


def test_a_corpus_of_several_pools_is_cut_as_evenly(monkeypatch):
    """From columns of memory-mapped Arrow, no batch is much over the budget, and an epoch mixes the whole corpus."""
    random = np.random.default_rng(0)
    lengths = random.integers(1, 60, 4000)
    monkeypatch.setattr(batching, "POOL", 512)
    monkeypatch.setattr(batching, "BLOCK", 8)
    columns = [pa.chunked_array([lengths[:1500], lengths[1500:]])] * 2
    drawn = TokenBatchSampler(*columns, batch_tokens=1000)
    batches = list(drawn.batches_of(0))
    assert max(lengths[batch].sum() for batch in batches) < 1000 * 9 / 8 + 60
    first_pool = np.concatenate(batches[: len(batches) // 8])
    assert abs(first_pool.mean() - 2000) < 300
    assert [b.tolist() for b in batches] == [b.tolist() for b in drawn.batches_of(0)]
    assert [b.tolist() for b in batches] != [b.tolist() for b in drawn.batches_of(1)]


def test_large_batches_have_few_sizes_and_no_pair_is_lost():
    """Multiples of 16, 8, 4 or 2, so that shapes come back; those of fewer than 16 pairs are as they are."""
    lengths = np.sort(np.random.default_rng(0).integers(3, 300, 20_000))
    batches = list(TokenBatchSampler(lengths, lengths, batch_tokens=2048).batches_of(0))
    sizes = sorted(batches, key=lambda batch: lengths[batch].max())  # the last one takes what is left
    for batch in sizes[:-1]:
        multiple = next((m for m in (16, 8, 4, 2) if len(batch) >= 8 * m), 1)
        assert len(batch) % multiple == 0
        assert lengths[batch].sum() < 2048 * 9 / 8 + 300
    assert sorted(np.concatenate(batches)) == list(range(20_000))


def test_rounding_changes_no_batch_by_more_than_an_eighth():
    """Neither one that loses pairs to its successor, nor one that gets them."""
    for size in range(1, 300):
        sizes = np.diff(batching._rounded(size * np.arange(1, 21)), prepend=0)
        assert (abs(sizes - size) <= size / 8).all(), size


def test_order_follows_from_seed_and_epoch():
    """The same again, and another order in another epoch or with another seed; always equally many batches."""
    lengths = [(1 + i % 13, 1 + i % 7) for i in range(300)]

    def order(seed, epoch):
        return [batch.tolist() for batch in sampler(lengths, batch_tokens=40, seed=seed).batches_of(epoch)]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
    assert len({len(order(1, epoch)) for epoch in range(5)}) == 1


def test_like_lengths_leave_little_padding():
    """On lengths spread as in text, under 10% of the places in batches of 2,000 tokens are padding."""
    random = np.random.default_rng(0)
    target = random.poisson(12, 4000) + 1
    source = np.maximum(1, target + random.integers(-3, 4, 4000))
    places = real = 0
    for batch in TokenBatchSampler(source, target, batch_tokens=2000).batches_of(0):
        places += len(batch) * (source[batch].max() + target[batch].max())
        real += source[batch].sum() + target[batch].sum()
    assert real / places > 0.9


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_batches_of_an_update_are_short_and_long(epoch):
    """One of each quarter of the row of batches, sorted by length, in an order that favours no process."""
    length = np.random.default_rng(0).permutation(2000) + 1
    drawn = TokenBatchSampler(length, length, batch_tokens=20_000, batches_per_update=4)
    means = np.array([length[batch].mean() for batch in drawn.batches_of(epoch)])
    quarters = (means.argsort().argsort() * 4 // len(means)).reshape(-1, 4)
    assert (np.sort(quarters, axis=1) == np.arange(4)).all()
    assert set(quarters[:, 0]) == {0, 1, 2, 3}


def test_collator_pads_source_and_labels_each_with_its_own():
    batch = Collator(pad_token_id=0, multiple_of=4)(
        [{"input_ids": [5, 2], "labels": [6, 7, 8, 9, 2]}, {"input_ids": [5, 6, 2], "labels": [2]}]
    )
    assert batch["input_ids"].tolist() == [[5, 2, 0, 0], [5, 6, 2, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert batch["labels"].tolist() == [[6, 7, 8, 9, 2, -100, -100, -100], [2] + [-100] * 7]


@pytest.mark.parametrize(("positions", "length"), [(None, 8), (100, 8), (7, 7), (5, 5)])
def test_no_batch_is_rounded_up_beyond_the_positions_of_the_model(positions, length):
    """Which refuses a longer one, though the rest were padding."""
    batch = Collator(0, 8, positions)([{"input_ids": [5, 6, 7, 8, 2], "labels": [2]}])
    assert batch["input_ids"].shape == (1, length)
