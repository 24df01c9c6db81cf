"""The learning rate over the updates of a run (§5.3)."""

import torch
from torch.optim.lr_scheduler import LambdaLR


def peak_learning_rate(d_model: int, warmup_steps: float) -> float:
    """The rate of the paper's formula at the end of warm-up: d_model^-0.5 * warmup_steps^-0.5 (§5.3, eq. 3)."""
    return d_model**-0.5 * max(warmup_steps, 1) ** -0.5


def inverse_square_root(step: int, warmup_steps: float) -> float:
    """min(step^-0.5, step * warmup_steps^-1.5), as a part of its own peak warmup_steps^-0.5 (§5.3, eq. 3).

    transformers' own `get_inverse_sqrt_schedule` begins at a rate of 0, one step behind the formula.

    Args:
        step: The update, counted from 1.
        warmup_steps: Updates over which the rate rises.
    """
    warmup_steps = max(warmup_steps, 1)
    return min(step / warmup_steps, (warmup_steps / step) ** 0.5)


def inverse_square_root_schedule(optimizer: torch.optim.Optimizer, warmup_steps: float) -> LambdaLR:
    """Makes the optimizer's rate follow the paper's formula; its own rate is the peak."""
    return LambdaLR(optimizer, lambda done: inverse_square_root(done + 1, warmup_steps))
