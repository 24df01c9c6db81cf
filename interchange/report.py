"""What is said at the end of every import and export: what was compared, on how much, and how far apart it was."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

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

    def compare_logits(self, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], tolerance: float) -> None:
        """Compares logits, a pair for each sentence.

        Raises:
            RunError: If two logits are further apart than `tolerance`, or one is not a number.
        """
        differences = [float((ours - theirs).abs().max()) for ours, theirs in pairs]
        self.largest_difference = max(differences)
        self.lines.append(f"logits of {len(differences)} sentences: largest difference {self.largest_difference:.1e}")
        if not self.largest_difference <= tolerance:  # so that not-a-number fails too
            raise RunError(
                f"The {self.what} went wrong: its logits differ by {self.largest_difference:.1e}, more than "
                f"{tolerance:.0e}. Please report this with the model's config.json."
            )

    def compare_translations(self, ours: list[list[int]], theirs: list[list[int]], how: str) -> None:
        """Compares the tokens of translations, and counts those that differ."""
        self.different_translations = sum(a != b for a, b in zip(ours, theirs, strict=True))
        equal = len(ours) - self.different_translations
        self.lines.append(f"translations of {len(ours)} sentences ({how}): {equal} equal")

    def __str__(self) -> str:
        return "\n".join([self.what, *(f"  {line}" for line in self.lines)])


def sample_sources(vocab_size: int, special_ids: Iterable[int], end: int, longest: int = 24) -> Sources:
    """Sentences of random tokens, always the same ones, of 1 to `longest` tokens and an end.

    Args:
        vocab_size: Tokens to draw from.
        special_ids: Tokens that no sentence holds.
        end: The token at the end of each.
        longest: Tokens in the longest sentence, without its end.
    """
    generator = torch.Generator().manual_seed(2017)
    excluded = set(special_ids)
    words = torch.tensor([token for token in range(vocab_size) if token not in excluded] or [end])
    lengths = torch.linspace(1, longest, SAMPLE_SENTENCES).long().tolist()
    return [[*words[torch.randint(len(words), (length,), generator=generator)].tolist(), end] for length in lengths]


def padded(sources: Sources, pad: int) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` of a batch (batch, longest)."""
    longest = max(map(len, sources))
    return {
        "input_ids": torch.tensor([row + [pad] * (longest - len(row)) for row in sources]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in sources]),
    }


@torch.no_grad()
def logits_of(model: Callable[..., object], sources: Sources, targets: Sources, pad: int) -> list[torch.Tensor]:
    """Logits of each sentence's target, given its source, computed in one padded batch; (target_len, vocab) each."""
    source, target = padded(sources, pad), padded(targets, pad)
    logits = model(**source, decoder_input_ids=target["input_ids"]).logits  # type: ignore[attr-defined]
    return [row[: len(ids)].double() for row, ids in zip(logits, targets, strict=True)]


def without_padding(sequences: Iterable[Iterable[int]], start: int, end: int, pad: int) -> list[list[int]]:
    """The tokens of generated sequences up to their end, without start, end and padding."""
    stripped = []
    for sequence in sequences:
        tokens = list(map(int, sequence))
        tokens = tokens[1:] if tokens and tokens[0] == start else tokens
        tokens = tokens[: tokens.index(end)] if end in tokens else tokens
        stripped.append([token for token in tokens if token != pad])
    return stripped
