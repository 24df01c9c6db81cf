"""Text to text over a file or a stream: lines in, translations out, in order (data flow: text -> ids -> text)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch


@dataclass(frozen=True)
class Translation:
    """One line's translation.

    Attributes:
        text: The best hypothesis.
    """

    text: str


class Translator:
    """Translates any number of lines with memory for one window of them.

    The lines of a window are sorted by length and batched by a budget of tokens, so that a batch holds little
    padding, and come out in the order in which they came in. An empty line is an empty translation.

    Args:
        model: A model for conditional generation, in evaluation mode.
        tokenizer: Its tokenizer.
        batch_tokens: Source tokens in a batch, padding included.
        window: Lines read ahead and sorted together.
        **generation: Arguments of `model.generate`.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, batch_tokens: int = 2048, window: int = 2048, **generation: Any
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self.window = window
        self.generation = generation

    def translate(self, lines: Iterable[str]) -> Iterator[Translation]:
        """Gives a translation for each line, in order, reading no further ahead than one window."""
        lines = iter(lines)
        while window := list(islice(lines, self.window)):
            yield from self._translate_window(window)

    def _translate_window(self, lines: list[str]) -> list[Translation]:
        sources = [self.tokenizer(line)["input_ids"] if line.strip() else [] for line in lines]
        translations = [Translation("")] * len(lines)
        for batch in batches_of_like_length([len(source) for source in sources], self.batch_tokens):
            texts = self._translate_batch([sources[i] for i in batch])
            for i, text in zip(batch, texts, strict=True):
                translations[i] = Translation(text)
        return translations

    @torch.inference_mode()
    def _translate_batch(self, sources: list[list[int]]) -> list[str]:
        padded = self.tokenizer.pad({"input_ids": sources}, return_tensors="pt").to(self.model.device)
        sequences = self.model.generate(
            input_ids=padded["input_ids"], attention_mask=padded["attention_mask"], **self.generation
        )
        return self.tokenizer.batch_decode(sequences, skip_special_tokens=True)


def batches_of_like_length(lengths: list[int], batch_tokens: int) -> Iterator[list[int]]:
    """Groups sequences by length, longest first, under a budget of tokens, padding included.

    Args:
        lengths: Tokens of each sequence; those of length 0 are left out.
        batch_tokens: Tokens in a batch at most, unless one sequence alone is longer.

    Yields:
        Indices into `lengths`.
    """
    batch: list[int] = []
    for i in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
