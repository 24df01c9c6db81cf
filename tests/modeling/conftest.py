"""Weights and batches on which a mistake shows."""

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def scramble() -> Callable[[nn.Module], nn.Module]:
    """Gives every weight a value of its own: fresh biases (0) and norms (1) would hide that they are not used."""

    def fill(module: nn.Module) -> nn.Module:
        with torch.no_grad():
            for parameter in module.parameters():
                spread = 0.3 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5
                centre = 1.0 if parameter.dim() == 1 and parameter.mean() == 1 else 0.0
                parameter.normal_(centre, spread)
        return module

    return fill


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Three pairs of unlike lengths, padded on the right with 0."""
    source = torch.tensor([[5, 17, 9, 33, 8, 11, 2], [21, 6, 44, 2, 0, 0, 0], [12, 2, 0, 0, 0, 0, 0]])
    labels = torch.tensor([[7, 7, 31, 18, 2], [40, 3, 2, -100, -100], [25, 19, 6, 23, 2]])
    return {"input_ids": source, "labels": labels}


@pytest.fixture
def source(batch) -> torch.Tensor:
    """The sources of those pairs."""
    return batch["input_ids"]


@pytest.fixture
def unending(model, scramble) -> nn.Module:
    """A model whose outputs never end by themselves, so that lengths are known."""
    model = scramble(model).double().requires_grad_(False)
    model.generation_config.eos_token_id = None
    return model
