"""Batches of like lengths within a budget of tokens (§5.1), the same on any number of devices."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

IGNORED_LABEL = -100


class TokenBatchSampler(Sampler[list[int]]):
    """Draws batches of pairs of like lengths, each with at most about `batch_tokens` source and target tokens.

    An epoch sorts the pairs by length, those of equal lengths in a new random order, cuts the sorted row into
    batches of equal cost, and shuffles the batches. The cost of a pair is the longer of its sides, so neither side
    of a batch exceeds the budget. The number of batches never changes, and is a multiple of `batches_per_update`:
    an update takes that many in a row, dealt out over processes and accumulation, so that the same pairs make an
    update whatever the number of processes.

    All it does follows from `seed` and the epoch: a run that resumes needs no other state.
    """

    def __init__(
        self,
        source_lengths: np.ndarray,
        target_lengths: np.ndarray,
        batch_tokens: int,
        batches_per_update: int = 1,
        num_processes: int = 1,
        process_index: int = 0,
        seed: int = 0,
    ) -> None:
        self.source_lengths = np.asarray(source_lengths)
        self.target_lengths = np.asarray(target_lengths)
        self.num_processes = num_processes
        self.process_index = process_index
        self.seed = seed
        self.epoch = 0
        total = int(np.maximum(self.source_lengths, self.target_lengths).sum())
        updates = max(1, -(-total // (batch_tokens * batches_per_update)))
        self.num_batches = min(updates * batches_per_update, self._most_batches(batches_per_update))

    def _most_batches(self, batches_per_update: int) -> int:
        """No more batches than pairs, in whole updates."""
        return max(1, len(self.source_lengths) // batches_per_update) * batches_per_update

    def __len__(self) -> int:
        return self.num_batches // self.num_processes

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next iteration draws."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        batches = self.batches_of(self.epoch)
        return (batch.tolist() for batch in batches[self.process_index :: self.num_processes])

    def batches_of(self, epoch: int) -> list[np.ndarray]:
        """All processes' batches of an epoch, in the order of training: indices of pairs."""
        random = np.random.default_rng([self.seed, epoch])
        # Sources descend under every other target length, so that a batch across two of them needs little padding.
        snake = np.where(self.target_lengths % 2, -self.source_lengths, self.source_lengths)
        order = np.lexsort((random.random(len(snake)), snake, self.target_lengths))
        cost = np.maximum(self.source_lengths, self.target_lengths)[order].cumsum()
        shares = cost[-1] * np.arange(1, self.num_batches) / self.num_batches
        rank = np.arange(1, self.num_batches)
        cuts = np.maximum.accumulate(np.searchsorted(cost, shares) - rank) + rank  # each behind the one before
        cuts = np.clip(cuts, rank, len(order) - rank[::-1])  # so that no batch is empty
        batches = np.split(order, cuts)
        return [batches[i] for i in random.permutation(self.num_batches)]


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
    """

    def __init__(self, pad_token_id: int, multiple_of: int = 1) -> None:
        self.pad_token_id = pad_token_id
        self.multiple_of = multiple_of

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
        longest += -longest % self.multiple_of
        padded = np.full((len(sequences), longest), filler, dtype=np.int64)
        for row, sequence in zip(padded, sequences, strict=True):
            row[: len(sequence)] = sequence
        return torch.from_numpy(padded)
