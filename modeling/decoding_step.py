"""The step: what the model computes for one more position of every hypothesis at once.

The decoder is that of `decoder.py`, on weights fused once: q, k and v in one product, keys and values of the source
projected once for each sentence and shared by its beams.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .attention import MultiHeadAttention
from .decoder import DecoderLayer
from .decoding_cache import DecodingCache
from .decoding_linear import linear_form
from .embeddings import sinusoidal_encoding
from .encoder import EncoderLayer


def attend(
    module: MultiHeadAttention,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d_k)) V over all heads (§3.2.1, eq. 1).

    Args:
        module: Where the number of heads and the scaling are from.
        query: (sentences * queries, heads * d_k).
        keys: (sentences, length, heads * d_k).
        values: (sentences, length, heads * d_v).
        mask: Added to the scores; broadcast to (sentences, heads, queries, length).

    Returns:
        (sentences * queries, heads * d_v).
    """
    heads = module.config.num_heads
    query = query.unflatten(0, (keys.shape[0], -1))  # (sentences, queries, heads * d_k)
    query, keys, values = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, keys, values))
    attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=module.scaling)
    return attended.transpose(1, 2).flatten(2).flatten(0, 1)


def fused(linear: type, *maps: nn.Linear) -> object:
    """Several maps of the same input as one."""
    weight = torch.cat([m.weight for m in maps]) if len(maps) > 1 else maps[0].weight
    bias = torch.cat([m.bias for m in maps]) if len(maps) > 1 else maps[0].bias
    return linear(weight.detach(), None if bias is None else bias.detach())


class Norm:
    """LayerNorm(x + sublayer(x)), in the precision of x."""

    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype) -> None:
        self.shape = norm.normalized_shape
        self.weight = norm.weight.detach().to(dtype)
        self.bias = norm.bias.detach().to(dtype)
        self.eps = norm.eps

    def __call__(self, x: torch.Tensor, sublayer: torch.Tensor) -> torch.Tensor:
        """Both (rows, d_model)."""
        return F.layer_norm(x + sublayer, self.shape, self.weight, self.bias, self.eps)


class EncoderLayerPass:
    """One layer of the encoder, without dropout, on fused weights."""

    def __init__(self, layer: EncoderLayer, linear: type, dtype: torch.dtype) -> None:
        self.attention = layer.self_attention
        self.qkv = fused(linear, self.attention.w_q, self.attention.w_k, self.attention.w_v)
        self.o = fused(linear, self.attention.w_o)
        self.w_1 = fused(linear, layer.feed_forward.w_1)
        self.w_2 = fused(linear, layer.feed_forward.w_2)
        self.activation = layer.feed_forward.activation
        self.attention_norm = Norm(layer.self_attention_norm, dtype)
        self.feed_forward_norm = Norm(layer.feed_forward_norm, dtype)
        self.widths = [m.out_features for m in (self.attention.w_q, self.attention.w_k, self.attention.w_v)]

    def __call__(self, x: torch.Tensor, sentences: int, mask: torch.Tensor | None) -> torch.Tensor:
        """(sentences * length, d_model) to the same shape."""
        query, keys, values = self.qkv(x).split(self.widths, dim=-1)
        keys, values = (y.unflatten(0, (sentences, -1)) for y in (keys, values))
        x = self.attention_norm(x, self.o(attend(self.attention, query, keys, values, mask)))
        return self.feed_forward_norm(x, self.w_2(self.activation(self.w_1(x))))


class DecoderLayerStep:
    """One layer of the decoder for one position of each hypothesis (§3.1)."""

    def __init__(self, layer: DecoderLayer, linear: type, dtype: torch.dtype) -> None:
        self.own, self.source = layer.self_attention, layer.encoder_decoder_attention
        self.qkv = fused(linear, self.own.w_q, self.own.w_k, self.own.w_v)
        self.own_o = fused(linear, self.own.w_o)
        self.source_q = fused(linear, self.source.w_q)
        self.source_kv = fused(linear, self.source.w_k, self.source.w_v)
        self.source_o = fused(linear, self.source.w_o)
        self.w_1 = fused(linear, layer.feed_forward.w_1)
        self.w_2 = fused(linear, layer.feed_forward.w_2)
        self.activation = layer.feed_forward.activation
        self.own_norm = Norm(layer.self_attention_norm, dtype)
        self.source_norm = Norm(layer.encoder_decoder_attention_norm, dtype)
        self.feed_forward_norm = Norm(layer.feed_forward_norm, dtype)
        self.query_width = self.own.w_q.out_features

    def __call__(self, x: torch.Tensor, cache: DecodingCache, index: int) -> torch.Tensor:
        """(sentences * beams, d_model) to the same shape; its keys and values join the cache."""
        qkv = self.qkv(x)
        keys, values = cache.append(index, qkv[:, self.query_width :])
        attended = attend(self.own, qkv[:, : self.query_width], keys, values, cache.own_mask)
        x = self.own_norm(x, self.own_o(attended))
        keys, values = cache.source(index)
        x = self.source_norm(x, self.source_o(attend(self.source, self.source_q(x), keys, values, cache.source_mask)))
        return self.feed_forward_norm(x, self.w_2(self.activation(self.w_1(x))))


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
        # On the CPU, bfloat16 pays in products only: what is between them is float32.
        on_cpu_in_bfloat16 = self.device.type == "cpu" and self.weight.dtype == torch.bfloat16
        self.dtype = torch.float32 if on_cpu_in_bfloat16 else self.weight.dtype
        linear = linear_form(self.weight, int8=int8)
        self.layers = [DecoderLayerStep(layer, linear, self.dtype) for layer in stacks.decoder.layers]
        self.project = fused(linear, model.lm_head)
        self.encoder_layers = (
            [EncoderLayerPass(layer, linear, self.dtype) for layer in stacks.encoder.layers] if encoder else []
        )
        self.source_positions = stacks.encoder.embeddings.positions
        self.target_positions = stacks.decoder.embeddings.positions
        self.encodings = torch.empty(0, self.weight.shape[1], dtype=self.dtype, device=self.device)
        attention = stacks.decoder.layers[0].self_attention
        self.key_width, self.value_width = attention.w_k.out_features, attention.w_v.out_features
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
        if longest >= len(self.encodings):
            self._learn_encodings(longest)
        x = self._embed(tokens, self.encodings[positions])
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
        for layer in self.encoder_layers:
            x = layer(x, len(input_ids), mask)
        return x.unflatten(0, input_ids.shape)

    def project_source(self, memory: torch.Tensor) -> list[torch.Tensor]:
        """Keys and values of the source for each layer, side by side (sentences, length, heads * (d_k + d_v))."""
        rows = memory.to(self.dtype).flatten(0, 1)
        return [layer.source_kv(rows).unflatten(0, memory.shape[:2]) for layer in self.layers]

    def _embed(self, tokens: torch.Tensor, encodings: torch.Tensor) -> torch.Tensor:
        scale = self.weight.shape[1] ** 0.5
        return torch.add(encodings, F.embedding(tokens, self.weight).to(self.dtype), alpha=scale)

    def _encode_positions(self, learned: nn.Module | None, length: int) -> torch.Tensor:
        """The vectors of the first positions (length, d_model); learned ones raise where they end."""
        positions = torch.arange(length, device=self.device)
        vectors = sinusoidal_encoding(positions, self.weight.shape[1]) if learned is None else learned(positions)
        return vectors.detach().to(self.dtype)

    def _learn_encodings(self, position: int) -> None:
        """Extends the table of position vectors of the target."""
        known = getattr(self.target_positions, "num_embeddings", None)
        end = known if known is not None and position < known else max(64, 2 * position)
        self.encodings = self._encode_positions(self.target_positions, end)


def additive_mask(attention_mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
    """1 for a token and 0 for padding (sentences, length) to what is added to scores; None without padding."""
    if bool(attention_mask.all()):
        return None
    mask = torch.zeros(attention_mask.shape, dtype=dtype, device=attention_mask.device)
    return mask.masked_fill_(attention_mask == 0, -torch.inf)[:, None, None, :]  # (sentences, 1, 1, length)
