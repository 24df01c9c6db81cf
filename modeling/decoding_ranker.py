"""The ranker: which tokens follow, which hypotheses are finished, and when a sentence is done.

The rules are those of transformers' beam search, kept to the letter, so that the tokens are the same: a hypothesis
counts as finished only among the best `num_beams` of a step, its score is divided by a power of its length, and
`early_stopping` decides when the running beams are given up.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

from .precision import widest_float

NEVER = -1.0e9  # what transformers adds to the score of what must not be chosen


class Hypothesis(NamedTuple):
    """A finished output.

    Attributes:
        tokens: Ids, the end token included where it was reached.
        score: Log probability over the length penalty; None in greedy decoding.
        beams: For each token, the beam whose scores it was chosen from.
    """

    tokens: list[int]
    score: float | None
    beams: list[int]


@dataclass(frozen=True)
class Ranking:
    """How hypotheses of different lengths compare.

    Attributes:
        length_penalty: The exponent alpha.
        early_stopping: True ends a sentence at `num_beams` finished hypotheses; False when its best running beam is
            behind them at its present length; "never" when it is at any length up to the limit.
        form: "transformers" divides by |Y|^alpha; "paper" by ((5 + |Y|) / 6)^alpha (§6.1; Wu et al., 2016, eq. 14).
    """

    length_penalty: float = 1.0
    early_stopping: bool | str = False
    form: str = "transformers"

    def divisor(self, lengths: torch.Tensor) -> torch.Tensor:
        """What log probabilities of outputs of these lengths are divided by, float32."""
        lengths = lengths.to(widest_float(lengths.device))
        lengths = (5 + lengths) / 6 if self.form == "paper" else lengths
        return (lengths**self.length_penalty).float()


def dividing_block(size: int) -> int | None:
    """The divisor of the size that is nearest to 64, between 16 and 256; None if there is none."""
    divisors = [block for block in range(16, 257) if size % block == 0 and size > block]
    return min(divisors, key=lambda block: abs(block - 64), default=None)


def top_of_blocks(scores: torch.Tensor, count: int, block: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` largest of each row, sorted, and their columns.

    They lie in the `count` blocks with the largest maxima: finding these first reads the scores once, quickly.

    Args:
        scores: (rows, columns).
        count: How many.
        block: Columns in a block, which divides their number; None looks at all columns.
    """
    if block is None or scores.shape[1] // block <= count:
        return scores.topk(count, dim=1)
    blocks = scores.unflatten(1, (-1, block))  # (rows, blocks, block)
    best = blocks.amax(-1).topk(count, dim=1, sorted=False)[1]  # (rows, count)
    candidates = blocks.gather(1, best.unsqueeze(-1).expand(-1, -1, block)).flatten(1)  # (rows, count * block)
    values, where = candidates.topk(count, dim=1)
    return values, best.gather(1, where // block) * block + where % block


def first_of_largest(scores: torch.Tensor, block: int | None) -> torch.Tensor:
    """The column of the largest of each row (rows, 1), and of equal ones the first, as argmax has it.

    Args:
        scores: (rows, columns).
        block: As for `top_of_blocks`.
    """
    if block is None:
        return scores.argmax(1, keepdim=True)
    blocks = scores.unflatten(1, (-1, block))  # (rows, blocks, block)
    best = blocks.amax(-1).argmax(1, keepdim=True)
    within = blocks.gather(1, best.unsqueeze(-1).expand(-1, -1, block)).argmax(-1)
    return best * block + within


class GreedyRanker:
    """The most probable token each time.

    Args:
        sentences: How many there are.
        limits: Tokens that each may have at most (sentences,).
        eos: The ids that end an output.
        vocab_size: Columns of the logits.
        pad: What follows an output that is done.
    """

    beams = 1

    def __init__(self, sentences: int, limits: torch.Tensor, eos: torch.Tensor, vocab_size: int, pad: int = 0) -> None:
        self.limits = limits
        self.eos = eos
        self.pad = pad
        self.block = dividing_block(vocab_size)
        self.lengths = torch.zeros_like(limits)
        self.history = limits.new_zeros(sentences, 32)
        self.done = torch.zeros(sentences, dtype=torch.bool, device=limits.device)

    def advance(self, logits: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Chooses the next token of each sentence (sentences,) from its logits (sentences, vocab_size)."""
        tokens = first_of_largest(logits, self.block)  # (sentences, 1)
        tokens = torch.where(self.done.unsqueeze(1), self.pad, tokens)
        self.history = room_for(self.history, int(self.lengths.max()))
        self.history.scatter_(1, self.lengths.unsqueeze(1), tokens)
        self.lengths = self.lengths + 1
        self.done = self.done | torch.isin(tokens[:, 0], self.eos) | (self.lengths >= self.limits)
        return tokens[:, 0], None

    def hypotheses(self, sentence: int, count: int) -> list[Hypothesis]:
        """The one output of a sentence that is done."""
        tokens = self.history[sentence, : self.lengths[sentence]].tolist()
        return [Hypothesis(tokens, None, [0] * len(tokens))]

    def select(self, sentences: torch.Tensor) -> None:
        """Keeps some sentences."""
        for name in ("limits", "lengths", "history", "done"):
            setattr(self, name, getattr(self, name)[sentences])

    def replace(self, slots: torch.Tensor, limits: torch.Tensor) -> None:
        """Gives slots to new sentences with these limits."""
        self.limits[slots] = limits
        self.lengths[slots] = 0
        self.done[slots] = False


class BeamRanker:
    """Beam search with transformers' rules.

    Args:
        sentences: How many there are.
        limits: Tokens that each may have at most (sentences,).
        eos: The ids that end a hypothesis.
        vocab_size: Columns of the logits.
        beams: Hypotheses of a sentence that run on at each step.
        ranking: How finished ones compare.
    """

    def __init__(
        self,
        sentences: int,
        limits: torch.Tensor,
        eos: torch.Tensor,
        vocab_size: int,
        beams: int,
        ranking: Ranking,
    ) -> None:
        self.limits = limits
        self.eos = eos
        self.vocab_size = vocab_size
        self.block = dividing_block(vocab_size)
        self.beams = beams
        self.ranking = ranking
        self.candidates = max(2, 1 + len(eos)) * beams
        self.lengths = torch.zeros_like(limits)
        self.running = torch.empty(sentences, beams, device=limits.device)
        self.finished = torch.empty_like(self.running)
        # A choice is beam * vocab_size + token. The history holds that of each beam at each length; a finished
        # hypothesis is its last choice and its length, (length - 1) * beams * vocab_size + choice; -1 is none.
        self.history = limits.new_zeros(sentences, beams, 32)
        self.ends = limits.new_empty(sentences, beams)
        self.improvable = torch.empty(sentences, dtype=torch.bool, device=limits.device)
        self.done = torch.empty(sentences, dtype=torch.bool, device=limits.device)
        self.replace(slice(None), limits)

    def replace(self, slots: torch.Tensor | slice, limits: torch.Tensor) -> None:
        """Gives slots to new sentences with these limits."""
        self.limits[slots] = limits
        self.lengths[slots] = 0
        self.running[slots] = NEVER  # all beams start alike: the first alone may be continued
        self.running[slots, 0] = 0.0
        self.finished[slots] = NEVER
        self.ends[slots] = -1
        self.improvable[slots] = True
        self.done[slots] = False

    def select(self, sentences: torch.Tensor) -> None:
        """Keeps some sentences."""
        for name in ("limits", "lengths", "running", "finished", "history", "ends", "improvable", "done"):
            setattr(self, name, getattr(self, name)[sentences])

    def advance(self, log_probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Chooses the beams of the next step.

        Args:
            log_probs: Of each hypothesis's next token (sentences * beams, vocab_size).

        Returns:
            Their last tokens (sentences * beams,), and which beam each continues (sentences, beams).
        """
        sentences = len(self.lengths)
        scores = log_probs.unflatten(0, (sentences, self.beams)) + self.running.unsqueeze(-1)
        scores, choices = top_of_blocks(scores.flatten(1), self.candidates, self.block)
        self.lengths = self.lengths + 1
        ends = torch.isin(choices % self.vocab_size, self.eos) | (self.lengths >= self.limits).unsqueeze(1)

        self.running, best = (scores + ends * NEVER).topk(self.beams, dim=1)
        running = choices.gather(1, best)
        self._finish(scores[:, : self.beams], choices[:, : self.beams], ends[:, : self.beams])
        self._judge()

        longest = int(self.lengths.max())
        self.history = room_for(self.history, longest - 1)
        where = (self.lengths - 1).view(-1, 1, 1).expand(-1, self.beams, 1)
        self.history.scatter_(2, where, running.unsqueeze(-1))
        return (running % self.vocab_size).flatten(), running // self.vocab_size

    def _finish(self, scores: torch.Tensor, choices: torch.Tensor, ends: torch.Tensor) -> None:
        """Keeps the best of what was finished before and what ends now, all (sentences, beams)."""
        if not bool(ends.any()):
            return
        closed = ~self.improvable
        if self.ranking.early_stopping is True:
            closed = closed | (self.ends >= 0).all(1)
        scores = scores / self.ranking.divisor(self.lengths).unsqueeze(1)
        scores = scores + closed.unsqueeze(1) * NEVER + ~ends * NEVER
        last = (self.lengths - 1).unsqueeze(1) * (self.beams * self.vocab_size) + choices
        last = torch.where(ends, last, -1)
        self.finished, best = torch.cat((self.finished, scores), dim=1).topk(self.beams, dim=1)
        self.ends = torch.cat((self.ends, last), dim=1).gather(1, best)

    def _judge(self) -> None:
        """Decides which sentences are done."""
        lengths = self.lengths
        if self.ranking.early_stopping == "never" and self.ranking.length_penalty > 0.0:
            lengths = self.limits  # the longest that a running beam may become, at its present log probability
        best_possible = self.running[:, :1] / self.ranking.divisor(lengths).unsqueeze(1)
        finished = self.ends >= 0
        worst = torch.where(finished, self.finished[:, -1:], NEVER)
        self.improvable = self.improvable & (best_possible > worst).any(1)
        self.done = ~self.improvable | (self.lengths >= self.limits)
        if self.ranking.early_stopping is True:
            self.done = self.done | finished.all(1)

    def hypotheses(self, sentence: int, count: int) -> list[Hypothesis]:
        """The `count` best outputs of a sentence that is done, best first."""
        history = self.history[sentence].tolist()
        found = zip(self.finished[sentence].tolist(), self.ends[sentence].tolist(), strict=True)
        return [self._trace(history, score, end) for score, end in list(found)[:count]]

    def _trace(self, history: list[list[int]], score: float, end: int) -> Hypothesis:
        """Follows a finished hypothesis back to its start; nothing where all were impossible or not a number."""
        if end < 0:
            return Hypothesis([], score, [])
        position, choice = divmod(end, self.beams * self.vocab_size)
        tokens, beams = [], []
        while True:
            beam, token = divmod(choice, self.vocab_size)
            tokens.append(token)
            beams.append(beam)
            if position == 0:
                return Hypothesis(tokens[::-1], score, beams[::-1])
            position -= 1
            choice = history[beam][position]


def room_for(history: torch.Tensor, index: int) -> torch.Tensor:
    """The history with its last axis doubled until it holds the index."""
    while index >= history.shape[-1]:
        history = F.pad(history, (0, history.shape[-1]))
    return history
