"""The decoder: the right half of Figure 1 (§3.1)."""

from typing import Any

import torch
from torch import nn
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import MultiHeadAttention
from .configuration_transformer2017 import Transformer2017Config
from .feed_forward import FeedForward


class DecoderLayer(GradientCheckpointingLayer):
    """Masked self-attention, attention over the encoder's output, then feed-forward (§3.1).

    Each is LayerNorm(x + Dropout(Sublayer(x))), as in the encoder (§5.4).
    """

    def __init__(self, config: Transformer2017Config, layer_idx: int) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(config, is_causal=True, layer_idx=layer_idx)
        self.self_attention_norm = nn.LayerNorm(config.d_model)
        self.encoder_decoder_attention = MultiHeadAttention(config, layer_idx=layer_idx)
        self.encoder_decoder_attention_norm = nn.LayerNorm(config.d_model)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        memory_mask: torch.Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """(batch, target_len, d_model), reading the memory (batch, source_len, d_model), to the shape of `x`."""
        attended, _ = self.self_attention(x, attention_mask, cache=past_key_values, **kwargs)
        x = self.self_attention_norm(x + self.dropout(attended))
        attended, _ = self.encoder_decoder_attention(x, memory_mask, memory=memory, cache=past_key_values, **kwargs)
        x = self.encoder_decoder_attention_norm(x + self.dropout(attended))
        x = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return x


class Decoder(nn.ModuleList):
    """A stack of N identical layers, with no normalisation after the last (§3.1)."""

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__(DecoderLayer(config, layer_idx) for layer_idx in range(config.decoder_layers))

    def forward(self, x: torch.Tensor, memory: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """(batch, target_len, d_model), reading the memory (batch, source_len, d_model), to the shape of `x`."""
        for layer in self:
            x = layer(x, memory, **kwargs)
        return x
