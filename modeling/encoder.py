"""The encoder: the left half of Figure 1 (§3.1)."""

from typing import Any

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import MultiHeadAttention
from .configuration_transformer2017 import Transformer2017Config
from .feed_forward import FeedForward
from .training_speed import Dropout


class EncoderLayer(GradientCheckpointingLayer):
    """Self-attention, then feed-forward, each as LayerNorm(x + Dropout(Sublayer(x))) (§3.1, §5.4)."""

    def __init__(self, config: Transformer2017Config, layer_idx: int) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(config, layer_idx)
        self.self_attention_norm = nn.LayerNorm(config.d_model)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.d_model)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """(batch, source_len, d_model) to the same shape; the mask hides padding."""
        attended, _ = self.self_attention(x, attention_mask, **kwargs)
        x = self.self_attention_norm(x + self.dropout(attended))
        x = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return x
