"""Text to text over a file or a stream: lines in, translations out, in order (text -> token ids -> text)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from .decoding_ranker import Hypothesis
from .documents import in_parts, without_surrogates
from .translation_decoder import decoder_of
from .translation_review import Review, Reviewer

MOST_TOKENS = 512  # of a source: attention needs memory by the square of its length
WINDOW_CHARACTERS = 1 << 20  # a window of long lines closes early, so that memory stays bounded


@dataclass(frozen=True)
class Translation:
    """One line's translation.

    Attributes:
        text: The best hypothesis.
        score: Its log probability over the length penalty; None in greedy decoding and for an empty line.
        hypotheses: The n best with their scores, best first; of a line in parts the best alone.
        source_tokens: How many the line has, its end token included.
        parts: In how many parts it was translated; more than one where it was too long for the model.
        review: The model's opinion of the text, where it was asked for: confidence and alignment.
    """

    text: str = ""
    score: float | None = None
    hypotheses: tuple[tuple[str, float | None], ...] = ()
    source_tokens: int = 0
    parts: int = 1
    review: Review | None = field(default=None, repr=False)


class Translator:
    """Translates any number of lines with memory for one window of them, by the weights that the model has by then.

    The lines of a window are sorted by length, decoded with places refilled as sentences finish, and come out in the
    order in which they came in. An empty line is an empty translation. A line of more tokens than `longest` is cut
    into parts, whose translations are joined by spaces. Where hooks, adapters or modules have changed, make a new one.

    Args:
        model: A `Transformer2017ForConditionalGeneration`; others go through their `generate()`.
        tokenizer: Its tokenizer.
        int8: Quantises the linear maps to 8 bits (CPU). For bfloat16 load or turn the model so.
        workers: Threads that decode side by side, each with one core; None for as many as torch may use, on the CPU.
        rows: Hypotheses that a worker decodes side by side.
        batch_tokens: Source tokens that a worker holds at most, padding included, unless one line alone is longer.
        window: Lines read ahead and sorted together.
        confidence: Reviews each translation: log probabilities by token and word.
        alignments: Reviews each translation for its word alignment.
        longest: Tokens of a source at most; what the model and its tokenizer name, and at most 512, if None.
        **generation: Arguments of `model.generate`.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        int8: bool = False,
        workers: int | None = None,
        rows: int = 128,
        batch_tokens: int = 8192,
        window: int = 2048,
        confidence: bool = False,
        alignments: bool = False,
        longest: int | None = None,
        **generation: Any,
    ) -> None:
        self.tokenizer = tokenizer
        self.positions = getattr(model.config, "learned_positions", None)
        self.longest = longest or min(MOST_TOKENS, self.positions or MOST_TOKENS, tokenizer.model_max_length)
        self.window = window
        self.reviewer = Reviewer(model, tokenizer, alignments=alignments) if confidence or alignments else None
        sizes = {"int8": int8, "workers": workers, "rows": rows, "batch_tokens": batch_tokens}
        self.decoder = decoder_of(model, generation, **sizes)

    @property
    def decoded_by(self) -> str:
        """Which decoding runs: "fast", or "transformers: " and why."""
        return self.decoder.decoded_by

    def translate(self, lines: Iterable[str], prefixes: Iterable[str] | None = None) -> Iterator[Translation]:
        """Gives a translation for each line, in order, reading no further ahead than one window.

        Args:
            lines: What to translate.
            prefixes: For each line, what its translation is to begin with.

        Raises:
            ValueError: If there are fewer prefixes than lines.
        """
        prefixes = iter(prefixes) if prefixes is not None else None
        for window in windows(lines, self.window):
            begun = list(islice(prefixes, len(window))) if prefixes is not None else None
            if begun is not None and len(begun) < len(window):
                raise ValueError("There are fewer prefixes than lines.")
            yield from self._translate_window(window, begun)

    def _translate_window(self, lines: list[str], prefixes: list[str] | None) -> list[Translation]:
        lines = [without_surrogates(line) for line in lines]
        parts = self._sources(lines)
        owners = [i for i, pieces in enumerate(parts) for _ in pieces]
        if not owners:
            return [Translation()] * len(lines)
        sources = [piece for pieces in parts for piece in pieces]
        prompts = None
        if prefixes is not None:
            firsts = [n == 0 or owners[n - 1] != i for n, i in enumerate(owners)]
            prompts = self._prompts([prefixes[i] if first else "" for i, first in zip(owners, firsts, strict=True)])
        found: list[list[tuple[list[int], list[tuple[str, float | None]]]]] = [[] for _ in lines]
        texts = self._texts(self.decoder.decode(sources, prompts))
        for i, source, best in zip(owners, sources, texts, strict=True):
            found[i].append((source, best))
        translations = [_joined(pieces) for pieces in found]
        return translations if self.reviewer is None else self._reviewed(lines, translations)

    def _sources(self, lines: list[str]) -> list[list[list[int]]]:
        """The tokens of each line, or of the parts of one that is too long; nothing of an empty one."""
        encoded = self.tokenizer(lines, verbose=False)["input_ids"]
        return [self._parts(line, ids) if line.strip() else [] for line, ids in zip(lines, encoded, strict=True)]

    def _parts(self, line: str, ids: list[int]) -> list[list[int]]:
        if len(ids) <= self.longest:
            return [ids]
        parts = in_parts(line, lambda part: len(self.tokenizer(part, verbose=False)["input_ids"]) <= self.longest)
        return self.tokenizer([part for part in parts if part.strip()], verbose=False)["input_ids"]

    def _reviewed(self, lines: list[str], translations: list[Translation]) -> list[Translation]:
        """With the model's opinion of each translation, but of those made in parts or too long to be read again."""
        whole = [i for i, one in enumerate(translations) if one.source_tokens and one.parts == 1]
        if self.positions is not None:  # an output that was cut there has no room for its end
            texts = [translations[i].text for i in whole]
            tokens = self.tokenizer(text_target=texts, verbose=False)["input_ids"] if texts else []
            whole = [i for i, row in zip(whole, tokens, strict=True) if len(row) <= self.positions]
        reviews = self.reviewer.review([lines[i] for i in whole], [translations[i].text for i in whole])
        reviewed = list(translations)
        for i, review in zip(whole, reviews, strict=True):
            reviewed[i] = replace(translations[i], review=review)
        return reviewed

    def _prompts(self, prefixes: list[str]) -> list[list[int]]:
        """The tokens of each prefix, without an end."""
        ids = self.tokenizer(text_target=prefixes, verbose=False)["input_ids"]
        return [row[:-1] if row and row[-1] == self.tokenizer.eos_token_id else row for row in ids]

    def _texts(self, outputs: list[list[Hypothesis]]) -> list[list[tuple[str, float | None]]]:
        """The text and score of each hypothesis of each line."""
        flat = [hypothesis.tokens for hypotheses in outputs for hypothesis in hypotheses]
        texts = iter(self.tokenizer.batch_decode(flat, skip_special_tokens=True))
        return [[(next(texts), hypothesis.score) for hypothesis in hypotheses] for hypotheses in outputs]


def _joined(pieces: list[tuple[list[int], list[tuple[str, float | None]]]]) -> Translation:
    """One line's translation of those of its parts: the best of each, with the sum of their scores."""
    if not pieces:
        return Translation()
    if len(pieces) == 1:
        [(source, best)] = pieces
        return Translation(*best[0], tuple(best), len(source))
    text = " ".join(best[0][0] for _, best in pieces)
    scores = [best[0][1] for _, best in pieces]
    score = None if None in scores else sum(scores)
    return Translation(text, score, ((text, score),), sum(len(source) for source, _ in pieces), len(pieces))


def review_lines(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Iterable[tuple[str, str]],
    alignments: bool = False,
    window: int = 2048,
) -> Iterator[Translation]:
    """Reviews given translations instead of making them: forced decoding of pairs of lines, in order.

    Raises:
        ValueError: If words are to be aligned, and the tokenizer does not tell which characters a token covers.
    """
    return _reviews(Reviewer(model, tokenizer, alignments=alignments), iter(pairs), window)


def _reviews(reviewer: Reviewer, pairs: Iterator[tuple[str, str]], window: int) -> Iterator[Translation]:
    while some := list(islice(pairs, window)):
        sources, targets = ([pair[side] for pair in some] for side in (0, 1))
        for target, review in zip(targets, reviewer.review(sources, targets), strict=True):
            yield Translation(target, review=review)


def windows(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """Groups lines, at most `size` and not many more than `WINDOW_CHARACTERS` at a time."""
    window: list[str] = []
    characters = 0
    for line in lines:
        window.append(line)
        characters += len(line)
        if len(window) == size or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window
