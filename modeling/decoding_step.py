"""The step: what the model computes for one more position of every hypothesis at once.

The decoder is that of `decoder.py`, on weights fused once: q, k and v in one product, keys and values of the source
projected once for each sentence and shared by its beams.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from .decoder import DecoderLayer
from .decoding_cache import DecodingCache
from .decoding_linear import Linear, linear_form
from .embeddings import sinusoidal_encoding
from .encoder import EncoderLayer


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d_k)) V (§3.2.1, eq. 1), written out: faster here than the fused kernel.

    Args:
        query: (sentences * queries, heads * d_k).
        keys: (sentences * heads, length, d_k).
        values: (sentences * heads, length, d_v).
        mask: Added to the scores; broadcast to (sentences * heads, queries, length).
        scaling: 1 / sqrt(d_k).

    Returns:
        (sentences * queries, heads * d_v).
    """
    heads = query.shape[1] // keys.shape[2]
    sentences = len(keys) // heads
    query = split_heads(query, sentences, heads)
    if mask is None:
        scores = torch.bmm(query, keys.transpose(1, 2)).mul_(scaling)
    else:
        scores = torch.baddbmm(mask, query, keys.transpose(1, 2), alpha=scaling)
    attended = torch.bmm(scores.softmax(-1), values)  # (sentences * heads, queries, d_v)
    return attended.unflatten(0, (sentences, heads)).transpose(1, 2).flatten(2).flatten(0, 1)


def split_heads(x: torch.Tensor, sentences: int, heads: int) -> torch.Tensor:
    """(sentences * length, heads * d) to (sentences * heads, length, d)."""
    return x.unflatten(0, (sentences, -1)).unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)


def fused(form: Callable[..., Linear], *maps: nn.Linear, relu: bool = False) -> Linear:
    """Several maps of the same input as one, perhaps with the ReLU that follows."""
    weight = torch.cat([m.weight for m in maps]) if len(maps) > 1 else maps[0].weight
    has_bias = any(m.bias is not None for m in maps)
    biases = [m.weight.new_zeros(m.out_features) if m.bias is None else m.bias for m in maps if has_bias]
    bias = torch.cat(biases) if len(biases) > 1 else next(iter(biases), None)
    return form(weight.detach(), None if bias is None else bias.detach(), relu)


class Norm:
    """LayerNorm(x + sublayer(x)), in the precision of x."""

    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype) -> None:
        self.shape = norm.normalized_shape
        self.weight, self.bias = (
            None if each is None else each.detach().to(dtype) for each in (norm.weight, norm.bias)
        )
        self.eps = norm.eps

    def __call__(self, x: torch.Tensor, sublayer: torch.Tensor) -> torch.Tensor:
        """Both (rows, d_model); the second is written over."""
        return F.layer_norm(sublayer.add_(x), self.shape, self.weight, self.bias, self.eps)


class FeedForwardStep:
    """The feed-forward sub-layer and the norm behind it (§3.3)."""

    def __init__(self, layer: EncoderLayer | DecoderLayer, form: Callable[..., Linear], dtype: torch.dtype) -> None:
        relu = isinstance(layer.feed_forward.activation, nn.ReLU)
        self.w_1 = fused(form, layer.feed_forward.w_1, relu=relu)
        self.w_2 = fused(form, layer.feed_forward.w_2)
        self.activation = None if relu else layer.feed_forward.activation
        self.norm = Norm(layer.feed_forward_norm, dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, d_model) to the same shape."""
        inner = self.w_1(x)
        inner = inner if self.activation is None else self.activation(inner)
        return self.norm(x, self.w_2(inner))


class EncoderLayerPass:
    """One layer of the encoder, without dropout, on fused weights."""

    def __init__(self, layer: EncoderLayer, form: Callable[..., Linear], dtype: torch.dtype) -> None:
        attention = layer.self_attention
        self.qkv = fused(form, attention.w_q, attention.w_k, attention.w_v)
        self.o = fused(form, attention.w_o)
        self.widths = [m.out_features for m in (attention.w_q, attention.w_k, attention.w_v)]
        self.heads, self.scaling = attention.config.num_heads, attention.scaling
        self.norm = Norm(layer.self_attention_norm, dtype)
        self.feed_forward = FeedForwardStep(layer, form, dtype)

    def __call__(self, x: torch.Tensor, sentences: int, mask: torch.Tensor | None) -> torch.Tensor:
        """(sentences * length, d_model) to the same shape; the mask is for each head."""
        query, keys, values = self.qkv(x).split(self.widths, dim=-1)
        keys, values = (split_heads(y, sentences, self.heads) for y in (keys, values))
        return self.feed_forward(self.norm(x, self.o(attend(query, keys, values, mask, self.scaling))))


class DecoderLayerStep:
    """One layer of the decoder for one position of each hypothesis (§3.1)."""

    def __init__(self, layer: DecoderLayer, form: Callable[..., Linear], dtype: torch.dtype) -> None:
        own, source = layer.self_attention, layer.encoder_decoder_attention
        self.own_qkv = fused(form, own.w_q, own.w_k, own.w_v)
        self.own_o = fused(form, own.w_o)
        self.own_norm = Norm(layer.self_attention_norm, dtype)
        self.source_q = fused(form, source.w_q)
        self.source_kv = fused(form, source.w_k, source.w_v)
        self.source_o = fused(form, source.w_o)
        self.source_norm = Norm(layer.encoder_decoder_attention_norm, dtype)
        self.feed_forward = FeedForwardStep(layer, form, dtype)
        self.widths = [m.out_features for m in (own.w_q, own.w_k, own.w_v)]
        self.heads, self.own_scaling, self.source_scaling = own.config.num_heads, own.scaling, source.scaling

    def __call__(self, x: torch.Tensor, cache: DecodingCache, index: int) -> torch.Tensor:
        """(sentences * beams, d_model) to the same shape; its keys and values join the cache."""
        query, *new = self.own_qkv(x).split(self.widths, dim=-1)
        attended = attend(query, *cache.append(index, *new), cache.own_mask, self.own_scaling)
        x = self.own_norm(x, self.own_o(attended))
        attended = attend(self.source_q(x), *cache.source[index], cache.shown_source_mask, self.source_scaling)
        x = self.source_norm(x, self.source_o(attended))
        return self.feed_forward(x)

    def project_source(self, rows: torch.Tensor, sentences: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The memory (sentences * source_len, d_model) to keys and values (sentences * heads, source_len, d)."""
        keys, values = self.source_kv(rows).split(self.widths[1:], dim=-1)
        return split_heads(keys, sentences, self.heads), split_heads(values, sentences, self.heads)


class DecodingStep:
    """The model's weights, fused once, and what decoding computes with them.

    Args:
        model: A `Transformer2017ForConditionalGeneration`.
        int8: Quantises the weights of the linear maps.
        encoder: Whether to take the encoder as well.
    """

    def __init__(self, model: nn.Module, *, int8: bool = False, encoder: bool = False) -> None:
        stacks = model.model
        self.weight = stacks.shared.weight.detach()
        self.device = self.weight.device
        # On the CPU, bfloat16 pays in products only: what is between them is float32, as it is between those of int8.
        on_cpu_in_bfloat16 = self.device.type == "cpu" and self.weight.dtype == torch.bfloat16
        self.dtype = torch.float32 if on_cpu_in_bfloat16 or int8 else self.weight.dtype
        form = linear_form(self.weight, int8=int8)
        self.layers = [DecoderLayerStep(layer, form, self.dtype) for layer in stacks.decoder.layers]
        self.project = fused(form, model.lm_head)
        self.encoder_layers = (
            [EncoderLayerPass(layer, form, self.dtype) for layer in stacks.encoder.layers] if encoder else []
        )
        self.source_positions = stacks.encoder.embeddings.positions
        self.target_positions = stacks.decoder.embeddings.positions
        self.encodings = torch.empty(0, self.weight.shape[1], dtype=self.dtype, device=self.device)
        self.heads = model.config.num_heads
        self.vocab_size = model.lm_head.out_features

    def __call__(
        self, tokens: torch.Tensor, positions: torch.Tensor, longest: int, cache: DecodingCache
    ) -> torch.Tensor:
        """Computes the logits of each hypothesis's next token.

        Args:
            tokens: The last token of each hypothesis (sentences * beams,).
            positions: Its position (sentences * beams,).
            longest: The largest of the positions.
            cache: Keys and values of earlier positions and of the source.

        Returns:
            (sentences * beams, vocab_size).
        """
        encodings = self.encodings  # of this moment: several workers may extend the table
        if longest >= len(encodings):
            encodings = self._learn_encodings(longest)
        x = self._embed(tokens, encodings[positions])
        cache.open_position()
        for index, layer in enumerate(self.layers):
            x = layer(x, cache, index)
        return self.project(x)

    def encode(self, input_ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Reads the source: ids padded on the right (sentences, length), and what is added to the scores of its keys.

        Returns:
            The memory (sentences, length, d_model).
        """
        encodings = self._encode_positions(self.source_positions, input_ids.shape[1])
        x = self._embed(input_ids, encodings).flatten(0, 1)
        mask = None if mask is None else mask.repeat_interleave(self.heads, dim=0)
        for layer in self.encoder_layers:
            x = layer(x, len(input_ids), mask)
        return x.unflatten(0, input_ids.shape)

    def project_source(self, memory: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of the source (sentences, source_len, d_model) for each layer, by head."""
        rows = memory.to(self.dtype).flatten(0, 1)
        return [layer.project_source(rows, len(memory)) for layer in self.layers]

    def _embed(self, tokens: torch.Tensor, encodings: torch.Tensor) -> torch.Tensor:
        scale = self.weight.shape[1] ** 0.5
        return torch.add(encodings, F.embedding(tokens, self.weight).to(self.dtype), alpha=scale)

    def _encode_positions(self, learned: nn.Module | None, length: int) -> torch.Tensor:
        """The vectors of the first positions (length, d_model); learned ones raise where they end."""
        positions = torch.arange(length, device=self.device)
        vectors = sinusoidal_encoding(positions, self.weight.shape[1]) if learned is None else learned(positions)
        return vectors.detach().to(self.dtype)

    def _learn_encodings(self, position: int) -> torch.Tensor:
        """Extends the table of position vectors of the target (positions, d_model)."""
        known = getattr(self.target_positions, "num_embeddings", None)
        end = max(64, 2 * position) if known is None else max(known, position + 1)
        self.encodings = encodings = self._encode_positions(self.target_positions, end)
        return encodings


def additive_mask(attention_mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
    """1 for a token and 0 for padding (sentences, length) to what is added to scores; None without padding."""
    if bool(attention_mask.all()):
        return None
    mask = torch.zeros(attention_mask.shape, dtype=dtype, device=attention_mask.device)
    return mask.masked_fill_(attention_mask == 0, torch.finfo(dtype).min).unsqueeze(1)  # (sentences, 1, length)
