"""Everything that one sentence shows of a model: attention, alignment, next words, beams, and the walk through it."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from transformer2017.configuration import UsageError
from transformer2017.modeling.documents import without_surrogates
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .beams import Search, search
from .recording import Recording, recording
from .tokens import positions_of_words, token_label, token_labels
from .walk import Sentence, Stop, walk_through

MOST_WEIGHTS = 4_000_000  # of attention, over all layers and heads
Kind = Literal["encoder", "decoder", "cross"]
KINDS: dict[Kind, str] = {
    "encoder": "Encoder self-attention",
    "decoder": "Masked decoder self-attention",
    "cross": "Encoder-decoder attention",
}
_MODULES = {
    "encoder": "model.encoder.layers.{}.self_attention",
    "decoder": "model.decoder.layers.{}.self_attention",
    "cross": "model.decoder.layers.{}.encoder_decoder_attention",
}


@dataclass(frozen=True)
class Explanation:
    """What `explain` found. Every tensor is in float32 on the CPU, of one sentence, without a batch axis."""

    text: str
    translation: str
    source: tuple[str, ...]  # tokens of the source
    target_input: tuple[str, ...]  # what the decoder read: the start token, then the translation
    target_output: tuple[str, ...]  # what it wrote from there: the translation, then the end token
    source_words: tuple[tuple[int, ...], ...]  # positions in `source` of each word
    target_words: tuple[tuple[int, ...], ...]  # positions in `target_output` of each word
    encoder_attention: torch.Tensor  # (layers, heads, source_len, source_len)
    decoder_attention: torch.Tensor  # (layers, heads, target_len, target_len)
    cross_attention: torch.Tensor  # (layers, heads, target_len, source_len)
    next_word: torch.Tensor  # (target_len, vocab_size): probability of each next token
    search: Search
    walk: tuple[Stop, ...]
    model_facts: dict[str, int | float | str]
    vocabulary: dict[int, str]  # how the tokens that appear in `search` are shown

    def attention(self, kind: Kind) -> torch.Tensor:
        """The attention weights (layers, heads, queries, keys) of one of the three uses (§3.2.3).

        Raises:
            UsageError: If there is no such use.
        """
        if kind not in KINDS:
            raise UsageError(f"there is no attention of kind {kind!r}: choose one of {', '.join(KINDS)}")
        return {"encoder": self.encoder_attention, "decoder": self.decoder_attention, "cross": self.cross_attention}[
            kind
        ]

    def axes(self, kind: Kind) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The tokens that ask (queries) and those that answer (keys).

        In encoder-decoder attention the query at a position is named by the token that is written from it.
        """
        return {
            "encoder": (self.source, self.source),
            "decoder": (self.target_input, self.target_input),
            "cross": (self.target_output, self.source),
        }[kind]

    def alignment(self, layer: int | None = None) -> torch.Tensor:
        """The mean of a layer's heads of encoder-decoder attention (target_len, source_len).

        Args:
            layer: Counted from 1; the last but one if None, which aligns best by Garg et al. (2019),
                https://arxiv.org/abs/1909.02074.

        Raises:
            UsageError: If the decoder has no such layer.
        """
        layers = len(self.cross_attention)
        layer = max(1, layers - 1) if layer is None else layer
        if not 1 <= layer <= layers:
            raise UsageError(f"the decoder has layers 1 to {layers}, and no layer {layer}")
        return self.cross_attention[layer - 1].mean(0)

    def word_alignment(self, layer: int | None = None) -> list[tuple[int, int]]:
        """The source word that each target word attends to most, as pairs (source word, target word) from 0.

        A word's weight on another is the mean over its tokens of the sum over the other's tokens.
        """
        weights = self.alignment(layer)
        if not self.source_words:
            return []
        pairs = []
        for target, positions in enumerate(self.target_words):
            rows = weights[list(positions)].mean(0)
            sums = [float(rows[list(word)].sum()) for word in self.source_words]
            pairs.append((max(range(len(sums)), key=sums.__getitem__), target))
        return pairs


@torch.no_grad()
def explain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    num_beams: int = 4,
    length_penalty: float | None = None,
    walk_layer: int = 1,
) -> Explanation:
    """Translates a sentence and looks inside while it is done.

    Beam search runs as it always does; then the winner is read once more, with every module's values recorded.

    Args:
        model: A `Transformer2017ForConditionalGeneration`.
        text: One sentence.
        num_beams: Beam size.
        length_penalty: As in `generate()`; the model's own if None.
        walk_layer: The layer that the walk goes through, counted from 1, in each stack that has it.

    Raises:
        UsageError: If the text is empty, or an argument is out of its range.
    """
    text = without_surrogates(text).strip()
    if not text:
        raise UsageError("there is no sentence to explain: give some text")
    if num_beams < 1:
        raise UsageError(f"num_beams must be at least 1, not {num_beams}")
    if length_penalty is not None and not math.isfinite(length_penalty):
        raise UsageError(f"length_penalty must be a finite number, not {length_penalty}")
    deepest = max(model.config.encoder_layers, model.config.decoder_layers)
    if not 1 <= walk_layer <= deepest:
        raise UsageError(f"the model has layers 1 to {deepest}, and no layer {walk_layer} to walk through")
    was_training = model.training
    model.eval()
    try:
        encoded = tokenizer(text, return_tensors="pt", return_attention_mask=True)
        positions = getattr(model.config, "learned_positions", None)
        if positions is not None and encoded["input_ids"].shape[1] > positions:
            raise UsageError(f"the sentence is longer than the {positions} tokens that the model has positions for")
        _refuse_too_many(model.config.encoder_layers * model.config.num_heads * encoded["input_ids"].shape[1] ** 2)
        inputs = {name: encoded[name].to(model.device) for name in ("input_ids", "attention_mask")}
        found = search(model, tokenizer, inputs, num_beams=num_beams, length_penalty=length_penalty)
        target = found.hypotheses[0].tokens
        read = torch.tensor([[model.config.decoder_start_token_id, *target[:-1]]], device=model.device)
        with recording(model) as record:
            logits = model(**inputs, decoder_input_ids=read, use_cache=False).logits[0].float().cpu()
    finally:
        model.train(was_training)
    return _assemble(
        model, tokenizer, text, inputs["input_ids"][0].tolist(), target, found, record, logits, walk_layer
    )


def _refuse_too_many(weights: int) -> None:
    """Refuses a sentence by the attention weights of the encoder alone, before they take time and memory."""
    if weights > MOST_WEIGHTS:
        raise UsageError(
            f"the sentence is too long to look into: the encoder alone would have {weights:,} attention weights, and "
            f"{MOST_WEIGHTS:,} can be shown. Give a shorter one"
        )


def _assemble(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    source_ids: list[int],
    target: tuple[int, ...],
    found: Search,
    record: Recording,
    logits: torch.Tensor,
    walk_layer: int,
) -> Explanation:
    source, output = token_labels(tokenizer, source_ids), token_labels(tokenizer, target)
    start = str(tokenizer.convert_ids_to_tokens(int(model.config.decoder_start_token_id)))
    sentence = Sentence(text, source_ids, source, [start, *output[:-1]], output)
    attention = {
        kind: torch.stack([record.attention[name.format(i)].weights for i in range(_depth(model, kind))])
        for kind, name in _MODULES.items()
    }
    special = tokenizer.all_special_tokens
    return Explanation(
        text=text,
        translation=found.hypotheses[0].text,
        source=tuple(source),
        target_input=tuple(sentence.target_input),
        target_output=tuple(output),
        source_words=tuple(positions_of_words(source, special)),
        target_words=tuple(positions_of_words(output, special)),
        encoder_attention=attention["encoder"],
        decoder_attention=attention["decoder"],
        cross_attention=attention["cross"],
        next_word=logits.softmax(-1),
        search=found,
        walk=walk_through(model, record, sentence, logits, walk_layer, _shown(tokenizer, logits)),
        model_facts=_facts(model),
        vocabulary=_vocabulary(tokenizer, found),
    )


def _depth(model: PreTrainedModel, kind: str) -> int:
    return int(model.config.encoder_layers if kind == "encoder" else model.config.decoder_layers)


def _facts(model: PreTrainedModel) -> dict[str, int | float | str]:
    names = ("encoder_layers", "decoder_layers", "d_model", "d_ff", "num_heads", "d_k", "d_v", "vocab_size")
    return {**{name: getattr(model.config, name) for name in names}, "parameters": model.num_parameters()}


def _vocabulary(tokenizer: PreTrainedTokenizerBase, found: Search) -> dict[int, str]:
    ids = {choice.token for step in found.steps for beam in step for choice in beam.choices}
    ids |= {token for step in found.steps for beam in step for token in beam.prefix}
    ids |= {token for hypothesis in found.hypotheses for token in hypothesis.tokens}
    return {token: token_label(tokenizer, token) for token in sorted(ids)}


def _shown(tokenizer: PreTrainedTokenizerBase, logits: torch.Tensor) -> dict[int, str]:
    """The likeliest tokens of the last stops of the walk."""
    best = logits[0].topk(min(12, logits.shape[-1])).indices.tolist()
    return {token: token_label(tokenizer, token) for token in best}
