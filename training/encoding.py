"""Pairs of sentences as token ids with their lengths, some thousand at a time."""

import itertools
import re
from array import array

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from .tokenization import splits_at_spaces

TOKENS = pa.schema(
    {
        "input_ids": pa.list_(pa.int32()),
        "labels": pa.list_(pa.int32()),
        "source_length": pa.int32(),
        "target_length": pa.int32(),
    }
)
WORDS = pa.schema({"source_words": pa.list_(pa.int32()), "target_words": pa.list_(pa.int32())})
MOST_REMEMBERED = 500_000  # words, some 200 bytes each
END_OF_LINE = "\n"  # a word that stands for the end token


class PairEncoder:
    """Encodes pairs, each side ending in the end token, without those that are too long.

    Args:
        tokenizer: Of any kind; one of subwords that `train_tokenizer` made is asked for each word once, not for each
            sentence, unless `with_words`.
        max_length: Pairs with more tokens on a side are left out; None keeps all.
        with_words: Whether to note of how many tokens each word is, as subword dropout needs.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int | None, with_words: bool = False) -> None:
        self.tokenizer, self.max_length, self.with_words = tokenizer, max_length, with_words
        self.schema = pa.unify_schemas([TOKENS, WORDS]) if with_words else TOKENS
        self.word_by_word = None
        if not with_words and splits_at_spaces(tokenizer):
            self.word_by_word = WordByWord(tokenizer.backend_tokenizer, tokenizer.eos_token_id)

    def __call__(self, sources: list[str], targets: list[str]) -> pa.RecordBatch:
        """Rows of `input_ids`, `labels` and both lengths (the end token counted)."""
        words: list[list[list[int]]] = []
        if self.word_by_word is not None:
            sides = [self.word_by_word(pa.array(lines, pa.string())) for lines in (sources, targets)]
        else:
            encoded = [
                self.tokenizer(sources, return_attention_mask=False),
                self.tokenizer(text_target=targets, return_attention_mask=False),
            ]
            sides = [pa.array(side["input_ids"], TOKENS.field("labels").type) for side in encoded]
            if self.with_words:
                words = [[tokens_of_words(side.word_ids(i)) for i in range(len(sources))] for side in encoded]
        lengths = [side.value_lengths() for side in sides]
        columns = [*sides, *lengths, *words]
        rows = pa.RecordBatch.from_pydict(dict(zip(self.schema.names, columns, strict=True)), self.schema)
        if self.max_length is None:
            return rows
        return rows.filter(pa.array(np.maximum(*map(np.asarray, lengths)) <= self.max_length))


class WordByWord:
    """Encodes lines of which each word between two spaces has the same tokens wherever it stands.

    Words return again and again, and a sentence is then a look-up for each of its words, where the library looks at
    every sentence as if it were the first.

    Args:
        backend: As `splits_at_spaces` requires.
        end: The token that ends each line.
    """

    def __init__(self, backend: Tokenizer, end: int) -> None:
        self.backend = backend
        added = (token.content for token in backend.get_added_tokens_decoder().values())
        # Where words do not stand alone: at a space too many, and in a token that may hold one.
        self.joined = "|".join(["^ ", " $", "  ", "^$", END_OF_LINE, *map(re.escape, added)])
        self._tokens = {END_OF_LINE: np.int32(end).tobytes()}

    def __call__(self, lines: pa.StringArray) -> pa.ListArray:
        """A list of int32 for each line."""
        words = pc.split_pattern(pc.binary_join_element_wise(lines, END_OF_LINE, " "), " ")
        distinct = words.flatten().dictionary_encode()
        tokens = self._look_up(distinct.dictionary.to_pylist()).take(distinct.indices)
        encoded = pa.ListArray.from_arrays(tokens.offsets.take(words.offsets), tokens.values)
        return self._with_joined(encoded, lines)

    def _look_up(self, words: list[str]) -> pa.ListArray:
        new = [word for word in words if word not in self._tokens]
        for word, encoding in zip(new, self.backend.encode_batch_fast(new, add_special_tokens=False), strict=True):
            self._tokens[word] = array("i", encoding.ids).tobytes()  # quicker than numpy for so few
        tokens = list(map(self._tokens.__getitem__, words))
        if len(self._tokens) > MOST_REMEMBERED:  # frequent words come early, and are kept
            for word in new:
                del self._tokens[word]
        ends = np.cumsum([0, *map(len, tokens)], dtype=np.int32) // 4
        return pa.ListArray.from_arrays(ends, np.frombuffer(b"".join(tokens), np.int32))

    def _with_joined(self, encoded: pa.ListArray, lines: pa.StringArray) -> pa.ListArray:
        """Has the library encode the lines in which words do not stand alone."""
        joined = np.flatnonzero(pc.match_substring_regex(lines, self.joined))
        if not len(joined):
            return encoded
        instead = [encoding.ids for encoding in self.backend.encode_batch_fast(lines.take(joined).to_pylist())]
        rows = np.arange(len(lines))
        rows[joined] = len(lines) + np.arange(len(joined))
        return pa.concat_arrays([encoded, pa.array(instead, encoded.type)]).take(pa.array(rows))


def tokens_of_words(word_ids: list[int | None]) -> list[int]:
    """Of how many tokens each word is; a special token, of no word, counts as one."""
    return [len(list(tokens)) for _, tokens in itertools.groupby(word_ids)]
