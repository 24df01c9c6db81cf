"""Models to carry in and out: small, with nothing at its initial value."""

import pytest
import torch
import transformer2017


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Moves every weight off its initial value, norms and biases too, so that a lost or misplaced one shows."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model.eval()


@pytest.fixture
def exportable() -> transformer2017.Transformer2017ForConditionalGeneration:
    """A model that other formats can hold: heads of d_model / h, sinusoids."""
    config = transformer2017.Transformer2017Config(
        vocab_size=97, d_model=32, d_ff=48, num_heads=4, encoder_layers=3, decoder_layers=2
    )
    return shaken(transformer2017.Transformer2017ForConditionalGeneration(config))
