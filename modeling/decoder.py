"""The decoder: the right half of Figure 1 (§3.1)."""

from typing import Any

from torch import Tensor, nn
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import MultiHeadAttention
from .configuration_transformer2017 import Transformer2017Config
from .feed_forward import FeedForward
from .training_speed import Dropout


class DecoderLayer(GradientCheckpointingLayer):
    """Masked self-attention, attention over the memory, then feed-forward, each as in the encoder (§3.1, §5.4)."""

    def __init__(self, config: Transformer2017Config, layer_idx: int) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(config, layer_idx, is_causal=True)
        self.self_attention_norm = nn.LayerNorm(config.d_model)
        self.encoder_decoder_attention = MultiHeadAttention(config, layer_idx)
        self.encoder_decoder_attention_norm = nn.LayerNorm(config.d_model)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.d_model)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,  # (batch, target_len, d_model)
        memory: Tensor,  # the encoder's output (batch, source_len, d_model)
        attention_mask: Tensor | None = None,  # hides padding and later positions
        memory_mask: Tensor | None = None,  # hides the source's padding
        past_key_values: EncoderDecoderCache | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Returns (batch, target_len, d_model)."""
        attended, _ = self.self_attention(x, attention_mask, cache=past_key_values, **kwargs)
        x = self.self_attention_norm(x + self.dropout(attended))
        attended, _ = self.encoder_decoder_attention(x, memory_mask, memory, cache=past_key_values, **kwargs)
        x = self.encoder_decoder_attention_norm(x + self.dropout(attended))
        x = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return x
