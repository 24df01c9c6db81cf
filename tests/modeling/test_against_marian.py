"""The model against MarianMT with the same weights, its positions being a permutation of the d_model axis."""

import numpy as np
import pytest
import torch
from transformer2017 import Transformer2017Config, Transformer2017ForConditionalGeneration
from transformers import MarianConfig, MarianMTModel

SIZES = {"vocab_size": 61, "d_model": 16, "encoder_layers": 3, "decoder_layers": 2, "dropout": 0.0}
TOKENS = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 1, "bos_token_id": 1}
# Dimension i of Marian is dimension ORDER[i] of the paper: sines (the even ones) first, then cosines.
ORDER = torch.cat([torch.arange(0, 16, 2), torch.arange(1, 16, 2)])
NAMES = {
    "embeddings.embed_tokens": "embed_tokens",
    "self_attention_norm": "self_attn_layer_norm",
    "encoder_decoder_attention_norm": "encoder_attn_layer_norm",
    "feed_forward_norm": "final_layer_norm",
    "self_attention": "self_attn",
    "encoder_decoder_attention": "encoder_attn",
    "w_q": "q_proj",
    "w_k": "k_proj",
    "w_v": "v_proj",
    "w_o": "out_proj",
    "feed_forward.w_1": "fc1",
    "feed_forward.w_2": "fc2",
}
READS_D_MODEL = ("w_q.weight", "w_k.weight", "w_v.weight", "w_1.weight", "shared.weight")
WRITES_D_MODEL = ("w_o.weight", "w_o.bias", "w_2.weight", "w_2.bias", "norm.weight", "norm.bias")


def in_marian_order(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if name.endswith(READS_D_MODEL):
        return tensor[:, ORDER]
    return tensor[ORDER] if name.endswith(WRITES_D_MODEL) else tensor


def marian_name(name: str) -> str:
    for ours, theirs in NAMES.items():
        name = name.replace(f".{ours}.", f".{theirs}.")
    return name


@pytest.fixture
def models(scramble, request):
    """Ours and MarianMT with the same weights."""
    activation, bias = getattr(request, "param", ("relu", False))
    ours = Transformer2017ForConditionalGeneration(
        Transformer2017Config(
            **SIZES,
            **TOKENS,
            d_ff=28,
            num_heads=2,
            activation_function=activation,
            logits_bias=bias,
            label_smoothing=0,
        )
    )
    marian = MarianMTModel(
        MarianConfig(
            **SIZES,
            **TOKENS,
            encoder_ffn_dim=28,
            decoder_ffn_dim=28,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            activation_function=activation,
            scale_embedding=True,
            forced_eos_token_id=None,
        )
    )
    scramble(ours)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if name == "lm_head.bias":
                marian.final_logits_bias.copy_(parameter)
            else:
                marian.get_parameter(marian_name(name)).copy_(in_marian_order(name, parameter))
    return ours.eval(), marian.eval()


def use_exact_positions(marian: MarianMTModel) -> None:
    """Marian rounds its table of positions to float32."""
    angles = np.arange(1024)[:, None] / 10000 ** (np.arange(0, 16, 2) / 16)
    table = torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=1))
    for half in (marian.model.encoder, marian.model.decoder):
        half.embed_positions.weight.data = table


@pytest.mark.parametrize(
    "models", [("relu", False), ("gelu", False), ("silu", False), ("silu", True)], indirect=True, ids=str
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_logits_loss_and_gradients_are_those_of_marian(models, dtype, tolerance, batch):
    ours, marian = (model.to(dtype).train() for model in models)
    if dtype == torch.float64:
        use_exact_positions(marian)
    mask = (batch["input_ids"] != 0).long()
    mine, theirs = (model(**batch, attention_mask=mask) for model in (ours, marian))
    assert mine.logits is None  # they would be most of the memory of a training step
    logits = ours.eval()(**batch, attention_mask=mask).logits
    torch.testing.assert_close(logits, theirs.logits, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(mine.loss, theirs.loss, rtol=tolerance, atol=tolerance)

    mine.loss.backward()
    theirs.loss.backward()
    for name, parameter in ours.named_parameters():
        if name != "lm_head.bias":  # a constant in Marian
            gradient = marian.get_parameter(marian_name(name)).grad
            torch.testing.assert_close(in_marian_order(name, parameter.grad), gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("flags", [{}, {"num_beams": 4}, {"num_beams": 3, "num_return_sequences": 2}], ids=str)
def test_generate_gives_what_marian_gives(models, flags, batch):
    source = batch["input_ids"]
    mask = (source != 0).long()
    mine, theirs = (model.generate(source, attention_mask=mask, max_new_tokens=12, **flags) for model in models)
    assert mine.tolist() == theirs.tolist()
