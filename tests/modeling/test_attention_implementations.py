"""Flash attention, as far as a machine without an accelerator can show it."""

import pytest
import torch
from transformer2017 import Transformer2017Config, Transformer2017ForConditionalGeneration
from transformers import modeling_flash_attention_utils as flash

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def kernel(query, key, value, *, softmax_scale, causal):
    """What `flash_attn_func` computes, all (batch, length, heads, d); causal aligns the last positions."""
    assert query.shape[-1] == key.shape[-1] == value.shape[-1], "flash attention takes one width"
    scores = torch.einsum("bihd,bjhd->bhij", query, key) * softmax_scale
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1 + scores.shape[-1] - scores.shape[-2])
        scores = scores.masked_fill(later, -torch.inf)
    return torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), value)


def kernel_of_unlike_lengths(query, key, value, *, cu_seqlens_q, cu_seqlens_k, **kwargs):
    """What `flash_attn_varlen_func` computes: the sentences lie one behind the other (tokens, heads, d)."""
    pieces = [
        kernel(query[None, a:b], key[None, c:d], value[None, c:d], **kwargs)[0]
        for a, b, c, d in zip(cu_seqlens_q, cu_seqlens_q[1:], cu_seqlens_k, cu_seqlens_k[1:], strict=False)
    ]
    return torch.cat(pieces)


@pytest.fixture
def use_flash(monkeypatch):
    """Lets transformers' own code for flash attention run on a CPU, the kernels of the absent package written out."""

    def flags(*, query_length, is_causal, softmax_scale, **_):
        return {"softmax_scale": softmax_scale, "causal": is_causal and query_length > 1}  # as transformers does

    functions = (kernel, kernel_of_unlike_lengths, None, flash._pad_input, flash._unpad_input)
    monkeypatch.setattr(flash, "lazy_import_flash_attention", lambda *_, **__: (functions, (flags, None)))

    def use(model):
        for module in model.modules():
            if hasattr(module, "config"):
                module.config._attn_implementation = "flash_attention_2"

    return use


@pytest.fixture(params=[(6, 6), (6, 10), (10, 6)], ids=lambda d: f"d_k={d[0]}, d_v={d[1]}")
def model(request, scramble):
    """Also with values wider than keys, as in rows B of Table 3."""
    d_k, d_v = request.param
    sizes = {"vocab_size": 97, "d_model": 32, "d_ff": 48, "num_heads": 4, "encoder_layers": 2, "decoder_layers": 2}
    model = Transformer2017ForConditionalGeneration(Transformer2017Config(**sizes, d_k=d_k, d_v=d_v))
    return scramble(model).double().eval().requires_grad_(False)


@pytest.mark.parametrize("target_length", [1, 4, 7, 9], ids="target of {}".format)
@pytest.mark.parametrize("side", ["right", "left"])
def test_flash_attention_gives_the_logits_of_sdpa(model, use_flash, batch, side, target_length):
    """With a padded source, and targets shorter than it, as long and longer."""
    source = batch["input_ids"]
    if side == "left":
        source = torch.stack([row.roll(int((row == 0).sum())) for row in source])
    target = torch.randint(3, 97, (3, target_length))
    expected = model(source, decoder_input_ids=target).logits
    use_flash(model)
    torch.testing.assert_close(model(source, decoder_input_ids=target).logits, expected, **CLOSE)


def test_flash_attention_with_a_target_padded_on_the_left(model, use_flash, batch):
    target = torch.randint(3, 97, (3, 5))
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
    expected = model(batch["input_ids"], decoder_input_ids=target, decoder_attention_mask=mask).logits
    use_flash(model)
    logits = model(batch["input_ids"], decoder_input_ids=target, decoder_attention_mask=mask).logits
    torch.testing.assert_close(logits[mask == 1], expected[mask == 1], **CLOSE)


@pytest.mark.parametrize("flags", [{}, {"num_beams": 3}], ids=["greedy", "beam"])
def test_flash_attention_generates_what_sdpa_generates(model, use_flash, batch, flags):
    flags = {**flags, "max_new_tokens": 9, "eos_token_id": None, "fast": False}
    expected = model.generate(batch["input_ids"], **flags)
    use_flash(model)
    assert model.generate(batch["input_ids"], **flags).tolist() == expected.tolist()
