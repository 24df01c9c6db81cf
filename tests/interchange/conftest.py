"""Models to carry in and out: small, with nothing at its initial value."""

from collections.abc import Callable

import pytest
import torch
import transformer2017
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


def _shaken(model: torch.nn.Module) -> torch.nn.Module:
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
    return _shaken(transformer2017.Transformer2017ForConditionalGeneration(config))


@pytest.fixture
def shaken() -> Callable[[torch.nn.Module], torch.nn.Module]:
    """Moves a model's weights off their initial values."""
    return _shaken


@pytest.fixture
def words() -> PreTrainedTokenizerFast:
    """A tokenizer of 96 words between spaces, framed as the project's own are."""
    tokens = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{index}" for index in range(92))]
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
