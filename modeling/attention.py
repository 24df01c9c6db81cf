"""Attention (§3.2)."""

from typing import Any

import torch
from torch import nn
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_transformer2017 import Transformer2017Config


def scaled_dot_product_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes softmax(Q K^T / sqrt(d_k)) V (§3.2.1, eq. 1). transformers knows it as the "eager" implementation.

    Args:
        module: The layer that calls; only its training mode is read.
        query: (batch, heads, target_len, d_k).
        key: (batch, heads, source_len, d_k).
        value: (batch, heads, source_len, d_v).
        attention_mask: Added to the scores: 0 where a query may see a key, very negative where it may not;
            (batch, 1, target_len, source_len).
        scaling: 1 / sqrt(d_k).
        dropout: Rate on the attention weights.

    Returns:
        The weighted values (batch, target_len, heads, d_v) and the weights (batch, heads, target_len, source_len).
    """
    scores = torch.matmul(query, key.transpose(-2, -1)) * scaling  # (batch, heads, target_len, source_len)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.softmax(scores, dim=-1)
    attended = torch.matmul(nn.functional.dropout(weights, dropout, module.training), value)
    return attended.transpose(1, 2).contiguous(), weights


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O (§3.2.2), for all three of its uses (§3.2.3).

    Encoder self-attention, masked decoder self-attention, and encoder-decoder attention differ in where keys and
    values come from and in what the mask hides.

    Departure: the four linear maps have biases, which the paper's formula does not show and its parameter counts
    do not settle.
    """

    def __init__(
        self, config: Transformer2017Config, *, is_causal: bool = False, layer_idx: int | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.is_causal = is_causal
        self.layer_idx = layer_idx
        self.scaling = config.d_k**-0.5
        self.w_q = nn.Linear(config.d_model, config.num_heads * config.d_k)
        self.w_k = nn.Linear(config.d_model, config.num_heads * config.d_k)
        self.w_v = nn.Linear(config.d_model, config.num_heads * config.d_v)
        self.w_o = nn.Linear(config.num_heads * config.d_v, config.d_model)

    def forward(
        self,
        x: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        memory: torch.Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Lets each position of `x` gather from `memory`.

        Args:
            x: Where queries come from (batch, target_len, d_model).
            attention_mask: In the form that the attention implementation takes.
            memory: Where keys and values come from (batch, source_len, d_model); `x` itself if None.
            cache: Keys and values of earlier positions (self-attention) or of the memory (encoder-decoder).

        Returns:
            (batch, target_len, d_model), and the attention weights where the implementation gives them.
        """
        query = self._split_heads(self.w_q(x))  # (batch, heads, target_len, d_k)
        if memory is None:
            key, value = self._own_keys_and_values(x, cache)
        else:
            key, value = self._memory_keys_and_values(memory, cache)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, scaled_dot_product_attention)
        dropout = self.config.attention_dropout if self.training else 0.0
        heads, weights = attend(
            self, query, key, value, attention_mask, scaling=self.scaling, dropout=dropout, **kwargs
        )  # (batch, target_len, heads, d_v)
        return self.w_o(heads.flatten(-2)), weights

    def _split_heads(self, projected: torch.Tensor) -> torch.Tensor:
        """(batch, length, heads * d) to (batch, heads, length, d)."""
        return projected.unflatten(-1, (self.config.num_heads, -1)).transpose(1, 2)

    def _keys_and_values(self, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, source_len, d_model) to (batch, heads, source_len, d_k) and (..., d_v)."""
        return self._split_heads(self.w_k(memory)), self._split_heads(self.w_v(memory))

    def _own_keys_and_values(
        self, x: torch.Tensor, cache: EncoderDecoderCache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of `x`, behind those of the earlier positions that the cache holds."""
        key, value = self._keys_and_values(x)
        return (key, value) if cache is None else cache.self_attention_cache.update(key, value, self.layer_idx)

    def _memory_keys_and_values(
        self, memory: torch.Tensor, cache: EncoderDecoderCache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of the encoder's output: projected once, and found in the cache at every later step of decoding."""
        if cache is None:
            return self._keys_and_values(memory)
        if cache.is_updated.get(self.layer_idx):
            cached = cache.cross_attention_cache.layers[self.layer_idx]
            return cached.keys, cached.values
        cache.is_updated[self.layer_idx] = True
        return cache.cross_attention_cache.update(*self._keys_and_values(memory), self.layer_idx)
