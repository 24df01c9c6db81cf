"""What is said at the end of every import and export: what was compared, on how much, and how far apart it was."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformer2017.configuration import RunError

SAMPLE_SENTENCES = 16
Sources = list[list[int]]  # token ids of sentences, each with its end


@dataclass
class Report:
    """Comparisons of a converted model with the model that it was made of.

    Attributes:
        what: The conversion, as in "marian export".
        lines: One for each comparison, and one for each thing that the user should know.
        largest_difference: The largest difference of two logits; None where logits were not compared.
        different_translations: Sentences whose translations differ; None where translations were not compared.
    """

    what: str
    lines: list[str] = field(default_factory=list)
    largest_difference: float | None = None
    different_translations: int | None = None

    def note(self, sentence: str) -> None:
        """Adds what the user should know."""
        self.lines.append(sentence)

    def compare_logits(
        self, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], tolerance: float, what: str = "logits"
    ) -> None:
        """Compares logits (or what is made of them), a pair for each sentence.

        Args:
            pairs: Ours and theirs.
            tolerance: How far apart two may be, in units of the largest of ours if that is above 1: float32 has some
                seven digits.
            what: The name of what is compared.

        Raises:
            RunError: If two are further apart, or one is not a number.
        """
        pairs = list(pairs)
        differences = [float((ours - theirs).abs().max()) for ours, theirs in pairs]
        self.largest_difference = max(differences)
        self.lines.append(f"{what} of {len(pairs)} sentences: largest difference {self.largest_difference:.1e}")
        allowed = tolerance * max(1.0, *(float(ours.abs().max()) for ours, _ in pairs))
        if not self.largest_difference <= allowed:  # so that not-a-number fails too
            raise RunError(
                f"The {self.what} went wrong: its {what} differ by {self.largest_difference:.1e}, more than "
                f"{allowed:.0e}. Please report this with the model's config.json."
            )

    def compare_translations(self, ours: list[list[int]], theirs: list[list[int]], how: str) -> None:
        """Compares the tokens of translations, and counts those that differ."""
        self.different_translations = sum(a != b for a, b in zip(ours, theirs, strict=True))
        equal = len(ours) - self.different_translations
        self.lines.append(f"translations of {len(ours)} sentences ({how}): {equal} equal")

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


def sample_sources(config: Any, longest: int = 24) -> Sources:
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


@torch.no_grad()
def logits_of(model: Any, sources: Sources, targets: Sources, pad: int) -> list[torch.Tensor]:
    """Logits of each sentence's target, given its source, computed in one padded batch; (target_len, vocab) each."""
    source, target = padded(sources, pad), padded(targets, pad)
    logits = model(**source, decoder_input_ids=target["input_ids"]).logits  # (batch, target_len, vocab)
    return [row[: len(ids)].double() for row, ids in zip(logits, targets, strict=True)]


@torch.no_grad()
def greedy_translations(model: Any, sources: Sources) -> list[list[int]]:
    """Greedy output of `generate()`, 64 tokens at most, without start, end and padding."""
    specials = Specials.of(model.config)
    sequences = model.generate(
        **padded(sources, specials.pad), num_beams=1, do_sample=False, max_length=None, max_new_tokens=64
    )
    return [without_frame(sequence, specials) for sequence in sequences.tolist()]


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
    sources = sources_or_samples(report, one.config, sources)
    targets = shifted(sources, specials.start)
    ours, theirs = (logits_of(model, sources, targets, specials.pad) for model in (one, other))
    report.compare_logits(zip(ours, theirs, strict=True), tolerance)
    report.compare_translations(greedy_translations(one, sources), greedy_translations(other, sources), "greedy")


def sources_or_samples(report: Report, config: Any, sources: Sources | None) -> Sources:
    """The user's sentences, or random ones, which the report then says."""
    if sources is not None:
        return sources
    report.note("compared on sentences of random tokens")
    return sample_sources(config)
