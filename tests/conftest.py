"""What every test may use. No test reaches the network."""

import os
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: more threads wait for one another

import pytest
import torch
import transformer2017
from transformers import PreTrainedModel

MULTI30K = Path(__file__).parents[1].parent / "shared" / "data" / "multi30k"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(2017)


@pytest.fixture
def multi30k() -> Path:
    """The folder of the real corpus, which is beside a checkout and never in it."""
    if not MULTI30K.is_dir():
        pytest.skip(f"the Multi30k corpus is not at {MULTI30K}")
    return MULTI30K


@pytest.fixture
def config() -> transformer2017.Transformer2017Config:
    """A small model whose sizes all differ, so that a mixed-up axis shows."""
    return transformer2017.Transformer2017Config(
        vocab_size=97, d_model=32, d_ff=48, num_heads=4, d_k=6, d_v=10, encoder_layers=3, decoder_layers=2
    )


@pytest.fixture(scope="session")
def widened() -> Callable[[PreTrainedModel, float], PreTrainedModel]:
    """Makes all matrices of an untrained model so many times as wide, in place, so that its outputs vary.

    As it begins, a model has small sub-layers and says the token that it was given last, again and again: two
    decoders would agree on that whatever they did.
    """

    def widen(model: PreTrainedModel, times: float) -> PreTrainedModel:
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() == 2:
                    weight *= times
        return model

    return widen


@pytest.fixture
def model(config, widened) -> transformer2017.Transformer2017ForConditionalGeneration:
    """A model of that configuration with random weights, in evaluation mode, whose outputs vary with its input."""
    return widened(transformer2017.Transformer2017ForConditionalGeneration(config).eval(), 3)
