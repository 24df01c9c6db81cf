"""The scheduler: runs steps until every sentence is done, and gives the places of those that are to others."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch.nn import functional as F

from .decoding_cache import DecodingCache
from .decoding_ranker import BeamRanker, GreedyRanker, Hypothesis
from .decoding_step import DecodingStep

# Numbers of sentences that a search shrinks to as they finish. Each new shape of a product costs a library some
# milliseconds, so there are few.
SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)


class Sources(NamedTuple):
    """Sentences that have been read and wait to be decoded.

    Attributes:
        names: What the caller knows each by.
        keys_and_values: For each layer (sentences * heads, source_len, d_k), and (..., d_v).
        mask: Added to the scores of the source (sentences, 1, source_len); None without padding.
        limits: Tokens that each output may have at most (sentences,).
    """

    names: list[int]
    keys_and_values: list[tuple[torch.Tensor, torch.Tensor]]
    mask: torch.Tensor | None
    limits: torch.Tensor

    def rows(self, start: int, end: int) -> "Sources":
        """Some of the sentences."""
        mask = None if self.mask is None else self.mask[start:end]
        heads = len(self.keys_and_values[0][0]) // max(1, len(self.names))
        kept = [(k[start * heads : end * heads], v[start * heads : end * heads]) for k, v in self.keys_and_values]
        return Sources(self.names[start:end], kept, mask, self.limits[start:end])


class Search:
    """Decodes sentences side by side, each in a slot of its own.

    Args:
        step: The model.
        ranker: Makes the ranker of a number of sentences with their limits.
        prompt: What every output begins with (sentences, prompt_len), or (1, prompt_len) for all: the start token,
            and tokens that are forced.
        process: Changes the scores (rows, vocab_size), knowing the tokens so far (rows, length). The sentences must
            then all have begun together.
        record: Receives the scores of each step, as they are ranked. Sentences that are done then stay to the end, so
            that all steps have as many rows.
    """

    def __init__(
        self,
        step: DecodingStep,
        ranker: Callable[[int, torch.Tensor], GreedyRanker | BeamRanker],
        prompt: torch.Tensor,
        process: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        record: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
    ) -> None:
        self.step = step
        self.make_ranker = ranker
        self.prompt = prompt
        self.process = process
        self.record = record

    def run(self, supply: Iterator[Sources], count: int = 1) -> Iterator[tuple[int, list[Hypothesis]]]:
        """Decodes all sentences.

        Args:
            supply: Sentences in batches; the first fills the slots, the others take the places of those that are
                done, and may not have longer sources.
            count: Outputs wanted of each sentence.

        Yields:
            The name of a sentence that is done, and its outputs, best first.
        """
        self._waiting: Sources | None = None
        first = next(supply, None)
        if first is None:
            return
        self._begin(first)
        while any(name is not None for name in self.names):
            self._advance()
            yield from self._finished(supply, count)

    def _begin(self, sources: Sources) -> None:
        """Gives each sentence a slot, and feeds all of the prompt but its last token."""
        self.names: list[int | None] = list(sources.names)
        self.ranker = self.make_ranker(len(self.names), sources.limits.clone())
        beams = self.ranker.beams
        self.cache = DecodingCache(sources.keys_and_values, sources.mask, beams, self.step.heads)
        prompt = self.prompt.expand(len(self.names), -1).repeat_interleave(beams, dim=0)
        for position, tokens in enumerate(prompt[:, :-1].unbind(1)):
            self.step(tokens, torch.full_like(tokens, position), position, self.cache)
        self.tokens = prompt[:, -1]
        self.sequences = prompt if self.process is not None else None

    def _advance(self) -> None:
        """One more token for every hypothesis."""
        ranker, beams = self.ranker, self.ranker.beams
        positions = ranker.lengths + (self.prompt.shape[1] - 1)
        longest = int(positions.max())
        positions = positions.repeat_interleave(beams) if beams > 1 else positions
        logits = self.step(self.tokens, positions, longest, self.cache)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # as transformers ranks
        scores = F.log_softmax(logits, dim=-1) if beams > 1 else logits
        if self.process is not None:
            scores = self.process(self.sequences, scores)
        if self.record is not None:
            self.record(logits, scores)
        self.tokens, parents = ranker.advance(scores)
        if parents is not None:
            self.cache.follow(parents)
        if self.sequences is not None:
            self._lengthen(parents)

    def _lengthen(self, parents: torch.Tensor | None) -> None:
        """Keeps the tokens of each running hypothesis, for those who change its scores."""
        sequences = self.sequences.unflatten(0, (-1, self.ranker.beams))  # (sentences, beams, length)
        if parents is not None:
            sequences = sequences.gather(1, parents.unsqueeze(-1).expand_as(sequences))
        self.sequences = torch.cat((sequences.flatten(0, 1), self.tokens.unsqueeze(1)), dim=1)

    def _finished(self, supply: Iterator[Sources], count: int) -> Iterator[tuple[int, list[Hypothesis]]]:
        """Gives the outputs of sentences that are done, and their slots to others."""
        done = self.ranker.done.tolist()
        slots = [slot for slot, name in enumerate(self.names) if done[slot] and name is not None]
        for slot in slots:
            yield self.names[slot], self.ranker.hypotheses(slot, count)
            self.names[slot] = None
        if slots and self.record is None:
            self._fill(slots, supply)
            self._shrink()

    def _fill(self, slots: list[int], supply: Iterator[Sources]) -> None:
        """Puts waiting sentences into free slots; a slot that stays free starts over, so that it stays in bounds."""
        while slots:
            if self._waiting is None or not self._waiting.names:
                self._waiting = next(supply, None)
            if self._waiting is None:
                break
            new = self._waiting.rows(0, len(slots))
            self._waiting = self._waiting.rows(len(new.names), len(self._waiting.names))
            filled, slots = slots[: len(new.names)], slots[len(new.names) :]
            self._place(filled, new)
        if slots:
            index = torch.tensor(slots, device=self.tokens.device)
            self.ranker.replace(index, self.ranker.limits[index])
            self.cache.clear(index)

    def _place(self, slots: list[int], new: Sources) -> None:
        """Lets new sentences begin in these slots."""
        index = torch.tensor(slots, device=self.tokens.device)
        self.cache.replace(index, new.keys_and_values, new.mask)
        self.ranker.replace(index, new.limits)
        self.tokens.view(-1, self.ranker.beams)[index] = self.prompt[0, -1]
        for slot, name in zip(slots, new.names, strict=True):
            self.names[slot] = name

    def _shrink(self) -> None:
        """Drops the slots of sentences that are done, once that makes the batch a size smaller."""
        running = [slot for slot, name in enumerate(self.names) if name is not None]
        size = next((size for size in SIZES if size >= len(running)), len(self.names))
        if not running or size >= len(self.names):
            return
        idle = [slot for slot, name in enumerate(self.names) if name is None]
        kept = running + idle[: size - len(running)]
        index = torch.tensor(kept, device=self.tokens.device)
        self.names = [self.names[slot] for slot in kept]
        self.cache.select(index)
        self.ranker.select(index)
        self.tokens = self.tokens.view(-1, self.ranker.beams)[index].flatten()
        if self.sequences is not None:
            self.sequences = self.sequences.unflatten(0, (-1, self.ranker.beams))[index].flatten(0, 1)
