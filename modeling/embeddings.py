"""Embeddings (§3.4) and positional encoding (§3.5)."""

import torch
from torch import nn

from .configuration_transformer2017 import Transformer2017Config


def positions_of(
    length: int | torch.Tensor,
    past_length: int | torch.Tensor,
    attention_mask: torch.Tensor | None,
    device: torch.device,
) -> torch.Tensor:
    """Numbers the tokens of each sequence from 0, starting after any padding on its left.

    Args:
        length: Tokens to number.
        past_length: Tokens before them that a cache holds.
        attention_mask: 1 for a token, 0 for padding (batch, past_length + length); None if there is no padding.

    Returns:
        Positions, (length,) without a mask and (batch, length) with one.
    """
    positions = torch.arange(length, device=device) + past_length
    if attention_mask is None or attention_mask.dim() != 2:
        return positions
    left_padding = (attention_mask.cumsum(-1) == 0).sum(-1, keepdim=True)  # (batch, 1)
    return (positions - left_padding).clamp(min=0)


def sinusoidal_encoding(positions: torch.Tensor, d_model: int) -> torch.Tensor:
    """PE(pos, 2i) = sin(pos / 10000^(2i / d_model)), PE(pos, 2i + 1) = cos(the same) (§3.5).

    Sine and cosine interleave, as the formula says; the code that the authors released put all sines first, which
    is the same model with the d_model axis in another order.

    Computed in float64, so that positions stay exact at any length whatever the model's own precision.

    Args:
        positions: Whole numbers of any shape.

    Returns:
        (*positions.shape, d_model), float64 (float32 on devices without float64).
    """
    exact = torch.float32 if positions.device.type == "mps" else torch.float64
    even_dimensions = torch.arange(0, d_model, 2, device=positions.device, dtype=exact)  # 2i
    angles = positions.to(exact).unsqueeze(-1) / 10000 ** (even_dimensions / d_model)  # (..., d_model / 2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


class PositionalEncoding(nn.Module):
    """Sinusoids, computed where they are needed and for any length (§3.5). It has no weights."""

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__()
        self.d_model = config.d_model

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        """Whole numbers (..., length) to encodings (..., length, d_model)."""
        return sinusoidal_encoding(positions, self.d_model)


class LearnedPositions(nn.Embedding):
    """A learned vector for each position (§3.5; row E of Table 3)."""

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__(config.learned_positions, config.d_model)

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        """Whole numbers (..., length) to vectors (..., length, d_model).

        Raises:
            ValueError: If a position was never learned.
        """
        if not torch.compiler.is_compiling() and positions.numel() and int(positions.max()) >= self.num_embeddings:
            raise ValueError(
                f"A sequence of {int(positions.max()) + 1} tokens is longer than the {self.num_embeddings} positions "
                "that this model has learned (learned_positions in its config): shorten it, or split it."
            )
        return super().forward(positions)


class InputEmbedding(nn.Module):
    """What enters a stack: Dropout(embedding * sqrt(d_model) + positional encoding) (§3.4, §3.5, §5.4)."""

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__()
        self.scale = config.d_model**0.5
        self.positions = PositionalEncoding(config) if config.learned_positions is None else LearnedPositions(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, embedded: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Rows of the shared matrix (batch, length, d_model), and their positions, to the same shape."""
        return self.dropout(embedded * self.scale + self.positions(positions).to(embedded.dtype))
