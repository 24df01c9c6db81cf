"""Attention (§3.2)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_transformer2017 import Transformer2017Config
from .packing import Packing


def scaled_dot_product_attention(
    module: nn.Module,  # the layer that calls; only its training mode is read
    query: Tensor,  # (batch, heads, target_len, d_k)
    key: Tensor,  # (batch, heads, source_len, d_k)
    value: Tensor,  # (batch, heads, source_len, d_v)
    attention_mask: Tensor | None,  # (batch, 1, target_len, source_len), added to the scores: 0, or minus infinity
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
    return attended.transpose(1, 2).contiguous(), weights


def is_plain(linear: nn.Module) -> bool:
    """Whether it is its weights and no more, and they are here: not an adapter's, not quantised, not sharded."""
    return type(linear) is nn.Linear and linear.weight.numel() > 0


def in_float32(attend: Callable) -> Callable:
    """Makes an attention implementation compute in float32 what comes in less, as training on a CPU does.

    torch's gradient of attention in bfloat16 takes some eight times as long there.
    """

    def attend_in_float32(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        if query.dtype not in (torch.bfloat16, torch.float16):
            return attend(module, query, key, value, mask, **kwargs)
        mask = mask.float() if mask is not None and mask.is_floating_point() else mask
        with torch.autocast(query.device.type, enabled=False):
            heads, weights = attend(module, query.float(), key.float(), value.float(), mask, **kwargs)
        return heads.to(query.dtype), weights

    return attend_in_float32


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
        packing: Packing | None = None,  # how `x` is packed: (rows, d_model)
        memory_packing: Packing | None = None,  # how `memory` is
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the shape of `x`, and the attention weights where the implementation gives them."""
        if memory is None:
            query, key, value = self._project(x, packing, self.w_q, self.w_k, self.w_v)
            if cache is not None:
                key, value = cache.self_attention_cache.update(key, value, self.layer_idx)
        else:
            (query,) = self._project(x, packing, self.w_q)  # (batch, heads, target_len, d_k)
            key, value = self._recall(memory, memory_packing, cache)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, scaled_dot_product_attention)
        attend = in_float32(attend) if self.training and query.device.type == "cpu" else attend
        rate = self.config.attention_dropout if self.training else 0.0
        heads, weights = attend(self, query, key, value, attention_mask, scaling=self.scaling, dropout=rate, **kwargs)
        heads = heads.flatten(-2)  # (batch, target_len, heads * d_v)
        return self.w_o(heads if packing is None else packing.pack(heads)), weights

    def _project(self, x: Tensor, packing: Packing | None, *maps: nn.Linear) -> list[Tensor]:
        """(batch, length, d_model), or packed, to (batch, heads, length, d) by each map: training in one."""
        if self.training and all(is_plain(each) for each in maps):
            weights = (torch.cat([each.weight for each in maps]), torch.cat([each.bias for each in maps]))
            together = nn.functional.linear(x, *weights)
            together = together if packing is None else packing.unpack(together)
            projected = together.split([each.out_features for each in maps], dim=-1)
        else:
            projected = [each(x) if packing is None else packing.unpack(each(x)) for each in maps]
        return [each.unflatten(-1, (self.config.num_heads, -1)).transpose(1, 2) for each in projected]

    def _recall(
        self, memory: Tensor, packing: Packing | None, cache: EncoderDecoderCache | None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of the memory, which only the first step of decoding projects."""
        if cache is None:
            return self._project(memory, packing, self.w_k, self.w_v)
        if not cache.is_updated.get(self.layer_idx):
            cache.is_updated[self.layer_idx] = True
            return cache.cross_attention_cache.update(
                *self._project(memory, packing, self.w_k, self.w_v), self.layer_idx
            )
        layer = cache.cross_attention_cache.layers[self.layer_idx]
        return layer.keys, layer.values
