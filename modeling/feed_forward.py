"""The position-wise feed-forward network (§3.3)."""

from torch import Tensor, nn
from transformers.activations import ACT2FN

from .configuration_transformer2017 import Transformer2017Config
from .training_speed import Dropout, project


class FeedForward(nn.Module):
    """FFN(x) = max(0, x W_1 + b_1) W_2 + b_2 (§3.3, eq. 2), at each position by itself."""

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__()
        self.w_1 = nn.Linear(config.d_model, config.d_ff)
        self.activation = ACT2FN[config.activation_function]
        self.dropout = Dropout(config.activation_dropout)
        self.w_2 = nn.Linear(config.d_ff, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) to the same shape."""
        inner = self.dropout(self.activation(project(x, self.w_1)))  # (batch, length, d_ff)
        return project(inner, self.w_2)
