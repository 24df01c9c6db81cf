"""Beam search as it happened (§6.1): the beams alive at each step, what they could have said, why the winner won."""

from dataclasses import dataclass

import torch
from transformer2017.modeling.output_length import with_bound
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Choice:
    """One token that could come next."""

    token: int
    probability: float
    score: float  # log-probability of the prefix and this token together, in nats


@dataclass(frozen=True)
class Beam:
    """A prefix that was alive at a step, with its most probable continuations."""

    prefix: tuple[int, ...]  # without the start token
    score: float  # its log-probability, in nats
    choices: tuple[Choice, ...]  # most probable first


@dataclass(frozen=True)
class Hypothesis:
    """A finished translation."""

    tokens: tuple[int, ...]  # without the start token, with the end token
    log_probabilities: tuple[float, ...]  # of each token, in nats
    score: float  # what beam search ranks by: the sum divided by a penalty of the length
    text: str

    @property
    def total(self) -> float:
        """The logarithm of P(translation | source), in nats."""
        return sum(self.log_probabilities)

    @property
    def penalty(self) -> float:
        """What the sum was divided by."""
        return self.total / self.score if self.score else 1.0


@dataclass(frozen=True)
class Search:
    """A whole beam search: its steps, and its finished hypotheses with the winner first."""

    steps: tuple[tuple[Beam, ...], ...]
    hypotheses: tuple[Hypothesis, ...]


class _Watcher(LogitsProcessor):
    """Notes the prefixes and the log-probabilities that `generate()` shows to its processors, and changes nothing.

    Greedy search shows logits; beam search shows log-probabilities.
    """

    def __init__(self, shown_logits: bool) -> None:
        self.shown_logits = shown_logits
        self.steps: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        log_p = scores.float().log_softmax(-1) if self.shown_logits else scores.float().clone()
        self.steps.append((input_ids.cpu().clone(), log_p.cpu()))
        return scores


@torch.no_grad()
def search(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    inputs: dict[str, torch.Tensor],
    *,
    num_beams: int = 4,
    length_penalty: float | None = None,
    choices: int = 8,
) -> Search:
    """Translates one sentence by `generate()` and tells what beam search did.

    Args:
        inputs: `input_ids` and `attention_mask` of one sentence (1, source_len).
        num_beams: Beam size; 1 is greedy search.
        length_penalty: As in `generate()`; the model's own if None.
        choices: How many continuations to keep of each beam at each step.
    """
    watcher = _Watcher(shown_logits=num_beams == 1)
    options = {} if length_penalty is None else {"length_penalty": length_penalty}
    outputs = model.generate(  # type: ignore[operator]
        **inputs,
        num_beams=num_beams,
        num_return_sequences=num_beams,
        do_sample=False,
        logits_processor=LogitsProcessorList([watcher]),
        return_dict_in_generate=True,
        output_scores=True,
        **with_bound(options, model.generation_config),
    )
    totals = _prefix_scores(watcher.steps)
    steps = tuple(_beams(ids, log_p, totals, choices) for ids, log_p in watcher.steps)
    scores = getattr(outputs, "sequences_scores", None)
    sequences = [_ended(row[1:].tolist(), model.generation_config) for row in outputs.sequences]
    hypotheses = [
        _hypothesis(tokens, watcher.steps, None if scores is None else float(scores[i]), tokenizer)
        for i, tokens in enumerate(sequences)
    ]
    return Search(steps, tuple(hypotheses))


def _prefix_scores(steps: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[tuple[int, ...], float]:
    """The log-probability of each prefix that was ever alive, from those of the prefixes that it grew from."""
    totals: dict[tuple[int, ...], float] = {(): 0.0}
    before: dict[tuple[int, ...], torch.Tensor] = {}
    for ids, log_p in steps:
        prefixes = [tuple(row[1:].tolist()) for row in ids]
        for prefix in prefixes:
            if prefix:
                totals[prefix] = totals[prefix[:-1]] + float(before[prefix[:-1]][prefix[-1]])
        before = dict(zip(prefixes, log_p, strict=True))
    return totals


def _beams(
    ids: torch.Tensor, log_p: torch.Tensor, totals: dict[tuple[int, ...], float], choices: int
) -> tuple[Beam, ...]:
    """The different prefixes of a step, the best first: at the first step all beams are one."""
    beams = {}
    for row, row_log_p in zip(ids, log_p, strict=True):
        prefix = tuple(row[1:].tolist())
        best = row_log_p.topk(min(choices, len(row_log_p)))
        found = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        own = tuple(Choice(token, float(torch.tensor(p).exp()), totals[prefix] + p) for token, p in found)
        beams[prefix] = Beam(prefix, totals[prefix], own)
    return tuple(sorted(beams.values(), key=lambda beam: -beam.score))


def _ended(tokens: list[int], generation_config: object) -> tuple[int, ...]:
    """The tokens up to the first end token, without the padding behind it."""
    end = getattr(generation_config, "eos_token_id", None)
    ends = set(end if isinstance(end, list) else [end])
    stop = next((i + 1 for i, token in enumerate(tokens) if token in ends), len(tokens))
    return tuple(tokens[:stop])


def _hypothesis(
    tokens: tuple[int, ...],
    steps: list[tuple[torch.Tensor, torch.Tensor]],
    score: float | None,
    tokenizer: PreTrainedTokenizerBase,
) -> Hypothesis:
    log_probabilities = []
    for position, token in enumerate(tokens):
        ids, log_p = steps[position]
        row = next(i for i, prefix in enumerate(ids) if tuple(prefix[1:].tolist()) == tokens[:position])
        log_probabilities.append(float(log_p[row, token]))
    text = str(tokenizer.decode(list(tokens), skip_special_tokens=True))
    total = sum(log_probabilities)
    return Hypothesis(tokens, tuple(log_probabilities), total if score is None else score, text)


def why_the_winner_won(hypotheses: tuple[Hypothesis, ...]) -> str:
    """Says in a few sentences what put the first hypothesis before the others."""
    winner, *others = hypotheses
    if not others:
        return (
            f"Greedy search took the most probable token at each step; together they have log-probability "
            f"{winner.total:.3f}. With more beams it would have had rivals."
        )
    runner = others[0]
    facts = (
        f"The winner's score is {winner.score:.3f}: its log-probability {winner.total:.3f}, divided by "
        f"{winner.penalty:.3f} for its {len(winner.tokens)} tokens. The next has {runner.score:.3f}: "
        f"{runner.total:.3f} divided by {runner.penalty:.3f} for {len(runner.tokens)} tokens. "
    )
    likelier = [h for h in others if h.total > winner.total]
    if likelier:
        best = max(likelier, key=lambda h: h.total)
        return facts + (
            f'By probability alone "{best.text}" would have come first ({best.total:.3f}); it has {len(best.tokens)} '
            "tokens, and the length penalty, without which short translations always look better, put it behind."
        )
    return facts + "It is also the most probable of them all, so the length penalty did not decide."
