"""Embeddings (§3.4) and positional encoding (§3.5)."""

import torch
from torch import Tensor, nn

from .configuration_transformer2017 import Transformer2017Config
from .precision import widest_float
from .training_speed import Dropout


def sinusoidal_encoding(positions: Tensor, d_model: int) -> Tensor:
    """PE(pos, 2i) = sin(pos / 10000^(2i / d_model)), PE(pos, 2i + 1) = cos(the same) (§3.5).

    Sine and cosine interleave, as the formula says; the authors' code puts all sines first: the same model, with the
    axis d_model in another order. Whole numbers of any shape become (*shape, d_model), in the widest floats there are.
    """
    exact = widest_float(positions.device)
    even_dimensions = torch.arange(0, d_model, 2, device=positions.device, dtype=exact)  # 2i
    angles = positions.to(exact).unsqueeze(-1) / 10000 ** (even_dimensions / d_model)  # (*shape, d_model / 2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


class LearnedPositions(nn.Embedding):
    """A learned vector for each position (§3.5; row E of Table 3)."""

    def forward(self, positions: Tensor) -> Tensor:
        """Whole numbers (..., length) to vectors (..., length, d_model); ValueError where one was never learned."""
        if not torch.compiler.is_compiling() and (length := int(positions.max()) + 1) > self.num_embeddings:
            raise ValueError(
                f"A sequence of {length} tokens is longer than the {self.num_embeddings} positions that this model "
                "has learned (learned_positions in its config): shorten it, or split it."
            )
        return super().forward(positions)


class InputEmbedding(nn.Module):
    """What enters a stack: Dropout(embedding * sqrt(d_model) + positional encoding) (§3.4, §3.5, §5.4)."""

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__()
        self.d_model = config.d_model
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)  # the matrix that all share (§3.4)
        learned = config.learned_positions  # how many; None: sinusoids, which need no weights
        self.positions = LearnedPositions(learned, config.d_model) if learned else None
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        ids: Tensor | None,  # (batch, length)
        embedded: Tensor | None = None,  # rows of the matrix, in place of ids (batch, length, d_model)
        attention_mask: Tensor | None = None,  # 0 for padding (batch, past_length + length); other forms do not tell
        past_length: int | Tensor = 0,  # tokens before these, in a cache
    ) -> Tensor:
        """Returns (batch, length, d_model)."""
        if (ids is None) == (embedded is None):
            raise ValueError("Give either ids or embeddings: (decoder_)input_ids or (decoder_)inputs_embeds.")
        embedded = self.embed_tokens(ids) if embedded is None else embedded
        positions = torch.arange(embedded.shape[1], device=embedded.device) + past_length  # (length,)
        if attention_mask is not None and len(attention_mask.shape) == 2:
            left_padding = (attention_mask.cumsum(-1) == 0).sum(-1, keepdim=True)  # (batch, 1)
            positions = (positions - left_padding).clamp(min=0)  # counted from the first token (batch, length)
        encoded = sinusoidal_encoding(positions, self.d_model) if self.positions is None else self.positions(positions)
        return self.dropout(embedded * self.d_model**0.5 + encoded.to(embedded.dtype))
