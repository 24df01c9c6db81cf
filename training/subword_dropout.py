"""BPE-dropout: in each epoch, words fall into other subwords (Provilkov et al., 2020, arXiv 1910.13267)."""

import itertools
import json
import random
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tokenizers import models
from transformer2017.configuration import UsageError
from transformers import PreTrainedTokenizerBase

DRAWS = 64  # segmentations that a word has in a run, equal ones among them: frequent words are not segmented anew
MOST_REMEMBERED = 2_000_000  # of them, over all words
AT_A_TIME = 2**12  # pairs that are segmented for their lengths alone


def is_byte_pair_encoding(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer makes words of merges, which can be left out."""
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    return isinstance(model, models.BPE) and not (model.continuing_subword_prefix or model.end_of_word_suffix)


class DroppedMerges:
    """Segments words as BPE does, except that each possible merge is passed over at a rate, at each step anew.

    The library's own dropout draws from a generator that cannot be seeded; a run could not be resumed exactly with it.

    Args:
        tokenizer: Of byte-pair encoding.
        rate: The probability of passing over a merge (0.1 in the paper).
        seed: What is drawn follows from it alone.

    Raises:
        UsageError: If the tokenizer is of another kind.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rate: float, seed: int = 0) -> None:
        if not is_byte_pair_encoding(tokenizer):
            raise UsageError("--bpe_dropout needs a tokenizer of byte-pair encoding (--tokenizer_type bpe).")
        self.rate, self.seed = rate, seed
        description = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        self.ids: dict[str, int] = description["vocab"]
        self.tokens = {number: token for token, number in self.ids.items()}
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in description["merges"]]
        self.merges = {
            (self.ids[left], self.ids[right]): (rank, self.ids[left + right])
            for rank, (left, right) in enumerate(pairs)
        }
        self._remembered: dict[tuple[tuple[int, ...], int], list[int]] = {}

    def segment(self, word: tuple[int, ...], draw: int) -> list[int]:
        """One of the word's segmentations.

        Args:
            word: The tokens that it has without dropout.
            draw: Which of them, from 0 to `DRAWS` - 1.
        """
        if (word, draw) not in self._remembered:
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[word, draw] = self._draw(word, random.Random(f"{self.seed} {draw} {word}"))
        return self._remembered[word, draw]

    def _draw(self, word: tuple[int, ...], generator: random.Random) -> list[int]:
        """A word that merges alone do not make (bytes, unknown characters, added words) stays as it is."""
        characters = [self.ids.get(character) for token in word for character in self.tokens.get(token, "")]
        if None in characters or self._merge(characters, 0.0, generator) != list(word):
            return list(word)
        return self._merge(characters, self.rate, generator)

    def _merge(self, symbols: list[int], rate: float, generator: random.Random) -> list[int]:
        """Algorithm 1 of the paper: the best merge that is not passed over, until there is none."""
        symbols = list(symbols)
        while True:
            possible = [
                (*self.merges[pair], place)
                for place, pair in enumerate(itertools.pairwise(symbols))
                if pair in self.merges and not (rate and generator.random() < rate)
            ]
            if not possible:
                return symbols
            _, merged, place = min(possible, key=lambda merge: (merge[0], merge[2]))
            symbols[place : place + 2] = [merged]


class SubwordDropout(torch.utils.data.Dataset):
    """Tokenized pairs whose words are segmented with dropout: the same for a seed, an epoch and a pair.

    Args:
        pairs: As `data.tokenize` makes them, `with_words`.
        merges: What segments a word.
        longest: A side that would get more tokens than this keeps its undropped ones.

    Raises:
        UsageError: If the pairs do not say of how many tokens each word is.
    """

    def __init__(self, pairs: Dataset, merges: DroppedMerges, longest: int | None = None) -> None:
        if not {"source_words", "target_words"} <= set(pairs.column_names):
            raise UsageError(
                "bpe_dropout needs a dataset with the columns source_words and target_words, as "
                "transformer2017.training.data.tokenize makes it with_words=True."
            )
        self.pairs, self.merges, self.longest = pairs, merges, longest
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Says from which epoch the pairs are."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """The rows of a batch, as `DataLoader` asks for them."""
        return self._rows(indices, self.epoch)

    def lengths(self, indices: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """How many tokens the source and the target of each of these pairs have in an epoch, (pairs,) each."""
        lengths = [
            (len(row["input_ids"]), len(row["labels"]))
            for start in range(0, len(indices), AT_A_TIME)
            for row in self._rows(indices[start : start + AT_A_TIME].tolist(), epoch)
        ]
        source, target = np.array(lengths).T
        return source, target

    def _rows(self, indices: list[int], epoch: int) -> list[dict[str, Any]]:
        rows = self.pairs[indices]
        sides = (rows["input_ids"], rows["source_words"], rows["labels"], rows["target_words"])
        return [self._drop(epoch, *row) for row in zip(indices, *sides, strict=True)]

    def _drop(
        self,
        epoch: int,
        index: int,
        source: list[int],
        source_words: list[int],
        target: list[int],
        target_words: list[int],
    ) -> dict[str, list[int]]:
        generator = np.random.default_rng([self.merges.seed, epoch, index])
        draws = generator.integers(DRAWS, size=len(source_words) + len(target_words)).tolist()
        return {
            "input_ids": self._side(source, source_words, draws),
            "labels": self._side(target, target_words, draws[len(source_words) :]),
        }

    def _side(self, tokens: list[int], words: list[int], draws: list[int]) -> list[int]:
        dropped: list[int] = []
        start = 0
        for length, draw in zip(words, draws, strict=False):
            dropped += self.merges.segment(tuple(tokens[start : start + length]), draw)
            start += length
        return tokens if self.longest and len(dropped) > self.longest else dropped
