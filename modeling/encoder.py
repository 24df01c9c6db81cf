"""The encoder: the left half of Figure 1 (§3.1)."""

from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import MultiHeadAttention
from .configuration_transformer2017 import Transformer2017Config
from .feed_forward import FeedForward


class EncoderLayer(GradientCheckpointingLayer):
    """Self-attention, then feed-forward, each as LayerNorm(x + Dropout(Sublayer(x))) (§3.1, §5.4)."""

    def __init__(self, config: Transformer2017Config, layer_idx: int) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(config, layer_idx=layer_idx)
        self.self_attention_norm = nn.LayerNorm(config.d_model)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        """(batch, source_len, d_model) to the same shape."""
        attended, _ = self.self_attention(x, attention_mask, **kwargs)
        x = self.self_attention_norm(x + self.dropout(attended))
        x = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return x


class Encoder(nn.ModuleList):
    """A stack of N identical layers, with no normalisation after the last (§3.1)."""

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__(EncoderLayer(config, layer_idx) for layer_idx in range(config.encoder_layers))

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        """(batch, source_len, d_model) to the same shape; the mask hides padding."""
        for layer in self:
            x = layer(x, attention_mask, **kwargs)
        return x
