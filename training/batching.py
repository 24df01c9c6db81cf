"""Batches of like lengths within a budget of tokens (§5.1), the same on any number of devices."""

import itertools
import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch.utils.data import DataLoader, Sampler
from transformer2017.configuration import UsageError
from transformer2017.modeling.loss import IGNORED_LABEL

POOL = 2**18  # pairs that are sorted together: all of a smaller corpus
BLOCK = 2**8  # neighbours in the corpus that come into the same pool
ROWS = 16  # pairs of which a large batch has a multiple
SAMPLE = 2**12  # pairs that tell how much longer an epoch's sides are than those of the corpus

Lengths = np.ndarray | pa.ChunkedArray


def lengths_of(pairs: Dataset) -> list[pa.ChunkedArray]:
    """How many tokens the source and the target of each pair have, (pairs,) each: as noted with them, or else counted.

    Raises:
        UsageError: If the pairs cannot be told apart before they are read, or have no tokens.
    """
    if not isinstance(pairs, Dataset) or not {"input_ids", "labels"} <= set(pairs.column_names):
        raise UsageError(
            "train_dataset must be a datasets.Dataset with the columns input_ids and labels: batches of like lengths "
            "need the lengths of all pairs. For one that is streamed, or of another kind, use Seq2SeqTrainer."
        )
    lengths = []
    for noted, tokens in (("source_length", "input_ids"), ("target_length", "labels")):
        name = noted if noted in pairs.column_names else tokens
        column = pairs.select_columns(name).with_format("arrow")[:].column(name)
        lengths.append(column if name == noted else pc.list_value_length(column))
    return lengths


class ChangingPairs(Protocol):
    """Pairs whose tokens differ from epoch to epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Says from which epoch the pairs are."""

    def lengths(self, indices: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """How many tokens the source and the target of each of these pairs have in an epoch, (pairs,) each."""


class TokenBatchSampler(Sampler[list[int]]):
    """Draws batches of pairs of like lengths, each with about `batch_tokens` source or target tokens, the longer side.

    An epoch sorts the pairs by length, those of equal lengths in a new random order, cuts the sorted row into
    batches of equal cost, and shuffles the batches. The cost of a pair is the longer of its sides, so neither side
    of a batch exceeds the budget by more than an eighth, which round numbers of pairs ask for. The number of batches
    never changes, and is a multiple of `batches_per_update`: an update takes that many in a row, dealt out over
    processes and accumulation, so that the same pairs make an update whatever the number of processes. Where it takes
    several, they are short and long in equal parts, as the gradient of one length alone is a poor guide to that of
    the corpus.

    A corpus of more than `POOL` pairs is dealt out, in blocks of neighbours and anew in each epoch, to pools that are
    sorted one after the other, so that memory does not grow with it.

    All it does follows from `seed` and the epoch: a run that resumes needs no other state.

    Args:
        source_lengths: Arrays or columns of memory-mapped Arrow: they are looked at a pool at a time.
        target_lengths: The same of the targets.
        changing: The pairs, where they change from epoch to epoch. They are told of each, and batches are cut by
            their lengths in it; the number of batches follows from a sample of these.

    Raises:
        UsageError: If there are fewer pairs than batches in an update.
    """

    def __init__(
        self,
        source_lengths: Lengths,
        target_lengths: Lengths,
        batch_tokens: int,
        batches_per_update: int = 1,
        num_processes: int = 1,
        process_index: int = 0,
        seed: int = 0,
        changing: ChangingPairs | None = None,
    ) -> None:
        self.source_lengths = source_lengths
        self.target_lengths = target_lengths
        self.changing = changing
        self.batches_per_update = batches_per_update
        self.num_processes = num_processes
        self.process_index = process_index
        self.seed = seed
        self.epoch = 0
        self.total_cost = sum(
            int(np.maximum(source_lengths[start : start + POOL], target_lengths[start : start + POOL]).sum())
            for start in range(0, len(source_lengths), POOL)
        )
        if 0 < len(source_lengths) < batches_per_update:
            raise UsageError(
                f"{len(source_lengths)} pairs cannot fill the {batches_per_update} batches of an update: take fewer "
                "processes, or parts of an update."
            )
        updates = max(1, math.ceil(self._growth() * self.total_cost / (batch_tokens * batches_per_update)))
        self.num_batches = min(updates * batches_per_update, self._most_batches(batches_per_update))

    def _growth(self) -> float:
        """How many times its cost in the corpus a pair costs in an epoch."""
        if self.changing is None:
            return 1.0
        pairs = len(self.source_lengths)
        rows = np.unique(np.linspace(0, pairs - 1, min(SAMPLE, pairs)).astype(int))
        in_epoch, in_corpus = self.changing.lengths(rows, 0), self._lengths(rows)
        return float(np.maximum(*in_epoch).sum() / np.maximum(*in_corpus).sum())

    def _lengths(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self.source_lengths.take(rows)), np.asarray(self.target_lengths.take(rows))

    def _most_batches(self, batches_per_update: int) -> int:
        """No more batches than pairs, in whole updates."""
        return max(1, len(self.source_lengths) // batches_per_update) * batches_per_update

    def __len__(self) -> int:
        return self.num_batches // self.num_processes

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next iteration draws; pairs that change with it are told."""
        self.epoch = epoch
        if self.changing is not None:
            self.changing.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        share = itertools.islice(self.batches_of(self.epoch), self.process_index, None, self.num_processes)
        return (batch.tolist() for batch in share)

    def batches_of(self, epoch: int) -> Iterator[np.ndarray]:
        """All processes' batches of an epoch, in the order of training: indices of pairs."""
        random = np.random.default_rng([self.seed, epoch])
        pools = min(-(-len(self.source_lengths) // POOL), self.num_batches)
        cost = made = 0
        left = len(self.source_lengths)
        for number, rows in enumerate(self._pools(pools, random), start=1):
            source, target = self._lengths(rows)
            cost += int(np.maximum(source, target).sum())
            left -= len(rows)
            # Its part of all batches, by cost; no batch is empty, here or in the pools to come.
            count = round(self.num_batches * cost / self.total_cost) - made
            count = max(min(count, len(rows), self.num_batches - made - (pools - number)), 1)
            count = max(count, self.num_batches - made - left)
            if self.changing is not None:
                source, target = self.changing.lengths(rows, epoch)
            batches = _cut(source, target, count, random)
            yield from (rows[batches[i]] for i in _mixed(count, self.batches_per_update, random))
            made += count

    def _pools(self, count: int, random: np.random.Generator) -> Iterator[np.ndarray]:
        """Deals the corpus out: the indices of each pool's pairs."""
        pairs = len(self.source_lengths)
        if count == 1:
            yield np.arange(pairs)
            return
        for blocks in np.array_split(random.permutation(-(-pairs // BLOCK)), count):
            rows = (BLOCK * blocks[:, None] + np.arange(BLOCK)).ravel()
            yield rows[rows < pairs]


def _cut(source: np.ndarray, target: np.ndarray, count: int, random: np.random.Generator) -> list[np.ndarray]:
    """Sorts pairs by length and cuts the row into `count` batches of equal cost."""
    # Sources descend under every other target length, so that a batch across two of them needs little padding.
    snake = np.where(target % 2, -source, source)
    order = np.lexsort((random.random(len(snake)), snake, target))
    cost = np.maximum(source, target)[order].cumsum()
    shares = cost[-1] * np.arange(1, count) / count
    rank = np.arange(1, count)
    cuts = np.maximum.accumulate(_rounded(np.searchsorted(cost, shares)) - rank) + rank  # each behind the one before
    cuts = np.clip(cuts, rank, len(order) - rank[::-1])  # so that no batch is empty
    return np.split(order, cuts)


def _rounded(cuts: np.ndarray) -> np.ndarray:
    """Cuts such that a batch has a multiple of 2, 4, 8 or 16 pairs, its size being changed by an eighth at most.

    So shapes come back: oneDNN has fewer programs to write and keep, and glibc fewer sizes of freed memory to search,
    which otherwise takes a growing part of a long run (docs/training-speed.md).
    """
    rounded = [0]
    for cut in cuts.tolist():
        size = cut - rounded[-1]
        multiple = min(2 ** max(size // 8, 1).bit_length() // 2, ROWS)
        rounded.append(rounded[-1] + size // multiple * multiple)
    return np.array(rounded[1:], dtype=np.int64)


def _mixed(count: int, together: int, random: np.random.Generator) -> np.ndarray:
    """A random order of `count` batches sorted by length, where so many `together` are one of each part of the row."""
    parts = np.array_split(np.arange(count), together)
    turns = np.concatenate([random.permutation(len(part)) for part in parts])
    return np.lexsort((random.random(count), turns))


class TokenBatchLoader(DataLoader):
    """A `DataLoader` over a `TokenBatchSampler`, which is already one process's share: accelerate need not wrap it."""

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next iteration draws."""
        self.batch_sampler.set_epoch(epoch)


class Collator:
    """Pads pairs of token ids into a batch of what the model takes.

    Args:
        pad_token_id: Fills the source; the labels are filled with -100.
        multiple_of: Lengths are rounded up to this: 8 suits a GPU's matrix units.
        positions: How many positions the model has, if it learned them: no length is rounded up beyond these.
    """

    def __init__(self, pad_token_id: int, multiple_of: int = 1, positions: int | None = None) -> None:
        self.pad_token_id = pad_token_id
        self.multiple_of = multiple_of
        self.positions = positions

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Rows of `input_ids` and `labels` to tensors (batch, length)."""
        input_ids = self._padded([row["input_ids"] for row in rows], self.pad_token_id)
        return {
            "input_ids": input_ids,
            "attention_mask": (input_ids != self.pad_token_id).long(),
            "labels": self._padded([row["labels"] for row in rows], IGNORED_LABEL),
        }

    def _padded(self, sequences: list[list[int]], filler: int) -> torch.Tensor:
        longest = max(map(len, sequences))
        rounded = longest + -longest % self.multiple_of
        longest = max(longest, min(rounded, self.positions or rounded))
        padded = np.full((len(sequences), longest), filler, dtype=np.int64)
        for row, sequence in zip(padded, sequences, strict=True):
            row[: len(sequence)] = sequence
        return torch.from_numpy(padded)
