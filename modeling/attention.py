"""Attention (§3.2)."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_transformer2017 import Transformer2017Config
from .flash_attention import fit_flash_attention
from .training_speed import project, project_together, quick_on_cpu


def scaled_dot_product_attention(
    module: nn.Module,  # the layer that calls; only its training mode is read
    query: Tensor,  # (batch, heads, target_len, d_k)
    key: Tensor,  # (batch, heads, source_len, d_k)
    value: Tensor,  # (batch, heads, source_len, d_v)
    attention_mask: Tensor | None,  # (batch, 1, target_len, source_len), added to the scores: 0, or very negative
    scaling: float,  # 1 / sqrt(d_k)
    dropout: float = 0.0,  # rate on the attention weights
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Computes softmax(Q K^T / sqrt(d_k)) V (§3.2.1, eq. 1). transformers knows it as the "eager" implementation.

    Returns the attended values (batch, target_len, heads, d_v) and the weights (batch, heads, target_len, source_len).
    """
    scores = query @ key.transpose(-2, -1) * scaling  # (batch, heads, target_len, source_len)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.softmax(scores, dim=-1)
    attended = nn.functional.dropout(weights, dropout, module.training) @ value  # (batch, heads, target_len, d_v)
    return attended.transpose(1, 2), weights


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O (§3.2.2), for all three of its uses (§3.2.3).

    Encoder self-attention, masked decoder self-attention and encoder-decoder attention differ in where keys and
    values come from, and in what the mask hides.

    Departure: the four linear maps have biases, which the paper's formula does not show and its parameter counts
    do not settle.
    """

    def __init__(self, config: Transformer2017Config, layer_idx: int, *, is_causal: bool = False) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.is_causal = is_causal
        self.scaling = config.d_k**-0.5
        self.w_q = nn.Linear(config.d_model, config.num_heads * config.d_k)
        self.w_k = nn.Linear(config.d_model, config.num_heads * config.d_k)
        self.w_v = nn.Linear(config.d_model, config.num_heads * config.d_v)
        self.w_o = nn.Linear(config.num_heads * config.d_v, config.d_model)

    def forward(
        self,
        x: Tensor,  # queries (batch, target_len, d_model)
        attention_mask: Tensor | None = None,  # in the form that the attention implementation takes
        memory: Tensor | None = None,  # keys and values (batch, source_len, d_model); those of `x` if None
        cache: EncoderDecoderCache | None = None,  # keys and values of earlier positions, and of the memory
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Returns (batch, target_len, d_model), and the attention weights where the implementation gives them."""
        if memory is None:
            query, key, value = self._project(x, self.w_q, self.w_k, self.w_v)  # (batch, heads, target_len, d_k)
            if cache is not None:
                key, value = cache.self_attention_cache.update(key, value, self.layer_idx)
        else:
            (query,) = self._project(x, self.w_q)
            key, value = self._recall(memory, cache)  # (batch, heads, source_len, d_k)
        given = (self.config._attn_implementation, query, key, value, attention_mask, memory is not None)
        implementation, query, key, attention_mask = fit_flash_attention(*given)  # which leaves the others as they are
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, scaled_dot_product_attention)
        attend = quick_on_cpu(attend) if self.training else attend
        rate = self.config.attention_dropout if self.training else 0.0
        heads, weights = attend(self, query, key, value, attention_mask, scaling=self.scaling, dropout=rate, **kwargs)
        return project(heads.flatten(-2), self.w_o), weights  # heads: (batch, target_len, heads, d_v)

    def _project(self, x: Tensor, *maps: nn.Linear) -> list[Tensor]:
        """(batch, length, d_model) to (batch, heads, length, d) by each map."""
        return [each.unflatten(-1, (self.config.num_heads, -1)).transpose(1, 2) for each in project_together(x, maps)]

    def _recall(self, memory: Tensor, cache: EncoderDecoderCache | None) -> tuple[Tensor, Tensor]:
        """Keys and values of the memory, which only the first step of decoding projects."""
        if cache is None:
            return self._project(memory, self.w_k, self.w_v)
        if not cache.is_updated.get(self.layer_idx):
            cache.is_updated[self.layer_idx] = True
            return cache.cross_attention_cache.update(*self._project(memory, self.w_k, self.w_v), self.layer_idx)
        layer = cache.cross_attention_cache.layers[self.layer_idx]
        return layer.keys.to(memory.device), layer.values.to(memory.device)  # an offloaded cache keeps them elsewhere
