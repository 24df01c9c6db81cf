"""What the model makes of a given translation: how probable each token and word is, and which words it looked at."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from .decoding_outputs import padded
from .loss import IGNORED_LABEL
from .translation_decoder import batches_of_like_length

Span = tuple[int, int]  # of characters
_lock = Lock()


@dataclass(frozen=True)
class Review:
    """The model's opinion of one translation.

    Attributes:
        log_prob: The log probability of the translation, its end token included.
        confidence: Its mean over tokens.
        words: For each word of the translation, the mean log probability of its tokens; empty without offsets.
        alignment: Pairs of a source word and a target word, counted from 0, sorted by the target; None unless asked.
    """

    log_prob: float
    confidence: float
    words: tuple[float, ...] = ()
    alignment: tuple[tuple[int, int], ...] | None = None

    @property
    def pharaoh(self) -> str:
        """The alignment as aligners write it, such as `0-0 1-2`."""
        return " ".join(f"{source}-{target}" for source, target in sorted(self.alignment or ()))


class Reviewer:
    """Reads source and translation in one pass, each token of the translation seeing those before it.

    Args:
        model: A model for conditional generation.
        tokenizer: Its tokenizer; one that tells which characters a token covers, where words are asked for.
        alignments: Whether to align words. A target word is aligned with the source word that its tokens look at most
            in the encoder-decoder attention, averaged over the heads of one layer.
        layer: Which layer of the decoder; by default the last but one, which follows alignments best (Garg et al.,
            2019, "Jointly learning to align and translate with Transformer models").
        batch_tokens: Tokens of a batch, padding included, unless one pair alone is longer.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        alignments: bool = False,
        layer: int | None = None,
        batch_tokens: int = 4096,
    ) -> None:
        if alignments and not tokenizer.is_fast:
            raise ValueError(
                "Word alignments need a tokenizer that tells which characters a token covers (a tokenizer.json)."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.alignments = alignments
        self.layer = layer
        self.batch_tokens = batch_tokens

    def review(self, sources: list[str], targets: list[str]) -> list[Review]:
        """Reviews pairs of lines, in their order."""
        if not sources:  # of which transformers has no offsets
            return []
        given = self._encode(text=sources)
        wanted = self._encode(text_target=targets)
        reviews: list[Any] = [None] * len(sources)
        longest = [max(len(s), len(t)) for s, t in zip(given["input_ids"], wanted["input_ids"], strict=True)]
        for batch in batches_of_like_length(longest, len(longest), self.batch_tokens):
            rows = [given["input_ids"][i] for i in batch], [wanted["input_ids"][i] for i in batch]
            log_probs, attention = self._read(*rows)
            for row, i in enumerate(batch):
                length = len(wanted["input_ids"][i])
                spans = [
                    encoding["offset_mapping"][i] if self.tokenizer.is_fast else [] for encoding in (given, wanted)
                ]
                looked = None if attention is None else attention[row, :length, : len(given["input_ids"][i])]
                reviews[i] = self._judge(log_probs[row, :length], looked, spans, (sources[i], targets[i]))
        return reviews

    def _encode(self, **texts: list[str]) -> Any:
        return self.tokenizer(**texts, return_offsets_mapping=self.tokenizer.is_fast, verbose=False)

    @torch.inference_mode()
    def _read(self, sources: list[list[int]], targets: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log probabilities of the target's tokens (pairs, target_len), and attention (pairs, target, source)."""
        device = self.model.device
        labels = padded(targets, IGNORED_LABEL, device)
        inputs = {
            "input_ids": padded(sources, self.model.config.pad_token_id, device),
            "attention_mask": padded([[1] * len(source) for source in sources], 0, device),
            "decoder_input_ids": self.model.prepare_decoder_input_ids_from_labels(labels),
        }
        with eager_attention(self.model) if self.alignments else nullcontext():
            outputs = self.model(**inputs, output_attentions=self.alignments, use_cache=False)
        log_probs = F.log_softmax(outputs.logits.float(), dim=-1)
        log_probs = log_probs.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return log_probs.cpu(), self._looked(outputs.cross_attentions) if self.alignments else None

    def _looked(self, weights: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """The mean of a layer's heads (pairs, target, source)."""
        layer = max(0, len(weights) - 2) if self.layer is None else self.layer
        return weights[layer].float().mean(1).cpu()

    def _words(self, spans: list[Span], text: str) -> list[list[int]]:
        """The tokens of each word, or each token where they are whole symbols, which no white space need part."""
        model = getattr(getattr(self.tokenizer, "backend_tokenizer", None), "model", None)
        if type(model).__name__ == "WordLevel":
            return [[i] for i, (start, end) in enumerate(spans) if start < end]
        return words_of(spans, text)

    def _judge(
        self, log_probs: torch.Tensor, attention: torch.Tensor | None, spans: list[list[Span]], texts: tuple[str, str]
    ) -> Review:
        """The review of one pair from its tokens (target_len,), and (target_len, source_len)."""
        source_words, target_words = (self._words(s, text) for s, text in zip(spans, texts, strict=True))
        words = [float(log_probs[tokens].mean()) for tokens in target_words if tokens]
        alignment = None
        if attention is not None and source_words:
            looks = torch.stack([attention[:, tokens].sum(1) for tokens in source_words], dim=1)  # (target, words)
            alignment = tuple(
                (int(looks[tokens].sum(0).argmax()), word) for word, tokens in enumerate(target_words) if tokens
            )
        return Review(float(log_probs.sum()), float(log_probs.mean()), tuple(words), alignment)


def words_of(spans: list[Span], text: str) -> list[list[int]]:
    """The tokens of each word of a text, by the characters that they cover; words are what white space parts.

    A token belongs to the word that its last character lies in, since many begin with the space before a word.
    """
    words: list[list[int]] = []
    bounds = [match.span() for match in re.finditer(r"\S+", text)]
    for start, end in bounds:
        words.append([i for i, span in enumerate(spans) if span[0] < span[1] and start <= span[1] - 1 < end])
    return words


@contextmanager
def eager_attention(model: nn.Module) -> Iterator[None]:
    """Has the model compute attention as the formula, which gives the weights; for one thread after the other."""
    with _lock:
        before = model.config._attn_implementation
        model.set_attn_implementation("eager")
        try:
            yield
        finally:
            model.set_attn_implementation(before)
