"""What is said at the end of every import and export: what was compared, on how much, and how far apart it was."""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformer2017.configuration import RunError, UsageError
from transformers import GenerationConfig

from .layout import NEVER

SAMPLE_SENTENCES = 16
LONGEST_SAMPLE = 24  # tokens, without the end
SENTENCES_AT_ONCE = 32
LONGEST_TRANSLATION = 64  # tokens
LOGITS_TOLERANCE = 1e-5
TIE = 1e-3  # log probabilities of two tokens that are closer may change places by rounding alone
Sources = list[list[int]]  # token ids of sentences, each with its end


@dataclass
class Report:
    """Comparisons of a converted model with the model that it was made of.

    Attributes:
        what: The conversion, as in "marian export".
        lines: One for each comparison, and one for each thing that the user should know.
        largest_difference: The largest difference of two logits; None where logits were not compared.
        different_translations: Sentences whose translations differ; None where translations were not compared.
        ties: How many of those part at two tokens that the model finds equally likely, up to `TIE`.
    """

    what: str
    lines: list[str] = field(default_factory=list)
    largest_difference: float | None = None
    different_translations: int | None = None
    ties: int = 0

    def note(self, sentence: str) -> None:
        """Adds what the user should know."""
        self.lines.append(sentence)

    def compare_logits(
        self, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], tolerance: float | None, what: str = "logits"
    ) -> None:
        """Compares logits (or what is made of them), a pair for each sentence; not those of forbidden tokens.

        Args:
            pairs: Ours and theirs.
            tolerance: How far apart two may be, in units of the largest of ours if that is above 1: float32 has some
                seven digits. None where any difference is allowed, as between float32 and int8.
            what: The name of what is compared.

        Raises:
            RunError: If two are further apart, or one is not a number.
        """
        found = []
        for ours, theirs in pairs:
            possible = ~(ours < NEVER / 2)  # not-a-number is among them
            found.append((float((ours - theirs)[possible].abs().max()), float(ours[possible].abs().max())))
        differences, sizes = torch.tensor(found, dtype=torch.float64).max(dim=0).values.tolist()  # keeps not-a-number
        self.largest_difference = differences
        self.lines.append(f"{what} of {len(found)} sentences: largest difference {differences:.1e}")
        allowed = float("inf") if tolerance is None else tolerance * max(1.0, sizes)
        if not differences <= allowed:  # so that not-a-number fails too
            raise RunError(
                f"The {self.what} went wrong: its {what} differ by {self.largest_difference:.1e}, more than "
                f"{allowed:.0e}. Please report this with the model's config.json."
            )

    def compare_translations(
        self, model: Any, sources: Sources, theirs: list[list[int]], longest: int, *, must_agree: bool = True
    ) -> None:
        """Compares greedy translations, of `longest` tokens at most, with those of a model of transformers.

        Args:
            theirs: Without start and end.
            must_agree: Whether one that differs, but at a tie, is a fault; not so where weights were rounded.

        Raises:
            RunError: If there is such a fault.
        """
        ours, pad = greedy_translations(model, sources, longest), Specials.of(model.config).pad
        theirs = [[token for token in row if token != pad] for row in theirs]
        parted = [row for row in zip(sources, ours, theirs, strict=True) if row[1] != row[2]]
        self.different_translations = len(parted)
        self.ties = sum(_is_tie(model, *row) for row in parted)
        equal = len(ours) - len(parted)
        said = f"; {self.ties} of the others part at a tie" if parted else ""
        self.lines.append(f"translations of {len(ours)} sentences (greedy): {equal} equal{said}")
        if must_agree and len(parted) > self.ties:
            raise RunError(
                f"The {self.what} went wrong: {len(parted) - self.ties} of {len(ours)} greedy translations differ, "
                "and not by rounding. Please report this with the model's config.json and generation_config.json."
            )

    def __str__(self) -> str:
        return "\n".join([self.what, *(f"  {line}" for line in self.lines)])


@dataclass(frozen=True)
class Specials:
    """Ids of the tokens that frame a sentence."""

    pad: int
    start: int
    end: int

    @classmethod
    def of(cls, config: Any) -> "Specials":
        """Reads them from a config of transformers."""
        end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
        return cls(config.pad_token_id, config.decoder_start_token_id, end)


def sample_sources(config: Any, longest: int = LONGEST_SAMPLE) -> Sources:
    """Sentences of random tokens, always the same ones, of 1 to `longest` tokens and an end."""
    specials = Specials.of(config)
    generator = torch.Generator().manual_seed(2017)
    excluded = {specials.pad, specials.start, specials.end, config.bos_token_id}
    words = torch.tensor([token for token in range(config.vocab_size) if token not in excluded])
    lengths = torch.linspace(1, longest, SAMPLE_SENTENCES).long().tolist()
    return [
        [*words[torch.randint(len(words), (length,), generator=generator)].tolist(), specials.end]
        for length in lengths
    ]


def padded(sources: Sources, pad: int) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` of a batch (batch, longest)."""
    longest = max(map(len, sources))
    return {
        "input_ids": torch.tensor([row + [pad] * (longest - len(row)) for row in sources]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in sources]),
    }


def shifted(sources: Sources, start: int) -> Sources:
    """Targets to compare logits on: each source again, behind the start token and without its end."""
    return [[start, *source[:-1]] for source in sources]


def batches(sentences: Sources) -> Iterator[Sources]:
    """A few sentences at a time, in order: those of a whole test set would not fit in memory together."""
    for start in range(0, len(sentences), SENTENCES_AT_ONCE):
        yield sentences[start : start + SENTENCES_AT_ONCE]


@torch.no_grad()
def logits_of(model: Any, sources: Sources, targets: Sources, pad: int) -> Iterator[torch.Tensor]:
    """Logits of each sentence's target, given its source, computed in padded batches; (target_len, vocab) each."""
    for some, wanted in zip(batches(sources), batches(targets), strict=True):
        ids = padded(wanted, pad)["input_ids"]
        logits = model(
            **padded(some, pad), decoder_input_ids=ids, use_cache=False
        ).logits  # (batch, target_len, vocab)
        yield from (row[: len(target)].double() for row, target in zip(logits, wanted, strict=True))


def without_settings(model: Any) -> Any:
    """The model with a generation config of its start and end alone: other formats know of nothing else in it."""
    plain, own = copy.copy(model), model.generation_config
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    plain.generation_config = GenerationConfig(**{name: getattr(own, name) for name in names})
    return plain


@torch.no_grad()
def greedy_translations(model: Any, sources: Sources, longest: int = LONGEST_TRANSLATION) -> list[list[int]]:
    """Greedy output of `generate()`, of `longest` tokens at most, without start, end and padding."""
    specials = Specials.of(model.config)
    # A forced end would take the last of the tokens; FSMT and Marian have one, ours has none.
    settings = {"num_beams": 1, "do_sample": False, "max_length": None, "forced_eos_token_id": None}
    sequences = [
        sequence
        for some in batches(sources)
        for sequence in model.generate(**padded(some, specials.pad), **settings, max_new_tokens=longest).tolist()
    ]
    return [without_frame(sequence, specials) for sequence in sequences]


def longest_translation(*models: Any) -> int:
    """In tokens: `LONGEST_TRANSLATION`, or as many as models with a table of positions have positions for."""
    return int(min([LONGEST_TRANSLATION, *(_positions(model.config) - 1 for model in models)]))


def _positions(config: Any) -> float:
    """How many positions a model has a table of; infinitely many where it has a formula."""
    bound = getattr(config, "max_position_embeddings", None)
    return math.inf if bound is None else bound


@torch.no_grad()
def _is_tie(model: Any, source: list[int], one: list[int], other: list[int]) -> bool:
    """Whether the first tokens in which two translations of a source differ have equal log probabilities."""
    specials = Specials.of(model.config)
    one, other = [*one, specials.end], [*other, specials.end]
    place = next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        return False
    [logits] = logits_of(model, [source], [[specials.start, *one[:place]]], specials.pad)
    return bool((logits[-1, one[place]] - logits[-1, other[place]]).abs() <= TIE)


def without_frame(sequence: Sequence[int], specials: Specials) -> list[int]:
    """The tokens of a generated sequence up to its end, without start, end and padding."""
    tokens = list(sequence)
    tokens = tokens[1:] if tokens[:1] == [specials.start] else tokens
    tokens = tokens[: tokens.index(specials.end)] if specials.end in tokens else tokens
    return [token for token in tokens if token != specials.pad]


def compare_models(report: Report, one: Any, other: Any, sources: Sources | None, tolerance: float) -> None:
    """Compares two models of transformers: logits, and greedy translations, of the same sentences.

    Raises:
        RunError: If the logits differ by more than `tolerance`.
    """
    specials = Specials.of(one.config)
    sources = sources_or_samples(report, min(one.config, other.config, key=_positions), sources)
    targets = shifted(sources, specials.start)
    ours, theirs = (logits_of(model, sources, targets, specials.pad) for model in (one, other))
    report.compare_logits(zip(ours, theirs, strict=True), tolerance)
    longest = longest_translation(one, other)
    report.compare_translations(one, sources, greedy_translations(other, sources, longest), longest)


def sources_or_samples(report: Report, config: Any, sources: Sources | None, most: float = math.inf) -> Sources:
    """The user's sentences, as far as the model has positions for them, or random ones; the report says which.

    Args:
        most: Positions that the format has a table of.

    Raises:
        UsageError: If the model has no positions for any sentence.
    """
    positions = min(_positions(config), most)
    if positions < 2:  # a token and the end
        raise UsageError(f"The model has a table of {positions} positions, which is too few for any sentence.")
    if sources is None:
        report.note("compared on sentences of random tokens")
        return sample_sources(config, int(min(LONGEST_SAMPLE, positions - 1)))
    fitting = [source for source in sources if len(source) <= positions]
    if not fitting:
        raise UsageError(f"The model has a table of {positions} positions; all sentences to compare on are longer.")
    if len(fitting) < len(sources):
        report.note(f"not compared: {len(sources) - len(fitting)} sentences longer than its {positions} positions")
    return fitting
