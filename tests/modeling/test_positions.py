"""Positional encoding (§3.5): exact at any length and in any precision."""

import numpy as np
import pytest
import torch
from transformer2017 import Transformer2017Config, Transformer2017ForConditionalGeneration
from transformer2017.modeling.embeddings import InputEmbedding, sinusoidal_encoding

FAR = torch.tensor([0, 1, 2047, 2048, 2049, 2051, 65537, 1_000_003])


def papers_encoding(positions, d_model):
    return np.array(
        [
            [
                (np.sin if j % 2 == 0 else np.cos)(float(pos) / 10000 ** (2 * (j // 2) / d_model))
                for j in range(d_model)
            ]
            for pos in positions
        ]
    )


def test_sinusoids_are_the_papers_at_any_position():
    np.testing.assert_allclose(sinusoidal_encoding(FAR, 64).numpy(), papers_encoding(FAR, 64), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float16, 5e-4), (torch.bfloat16, 4e-3)])
def test_half_precision_keeps_positions_past_2048_apart(dtype, rounding, config):
    """float16 has no 2049, and bfloat16 no 257: positions computed in them would fall together."""
    embedding = InputEmbedding(config).to(dtype).eval()
    nothing = torch.zeros(1, 3000, config.d_model, dtype=dtype)
    encoded = embedding(None, nothing)[0].double().numpy()
    np.testing.assert_allclose(encoded, papers_encoding(range(3000), config.d_model), rtol=0, atol=rounding)


def test_no_length_fails_or_truncates(model):
    """Nothing in the model knows of a longest sequence: the last token of 2,500 still changes the output."""
    source = torch.randint(3, 97, (1, 2500))
    changed = source.clone()
    changed[0, -1] = (changed[0, -1] + 1).clamp(max=96)
    start = torch.tensor([[1]])
    with torch.no_grad():
        first, second = (model(ids, decoder_input_ids=start) for ids in (source, changed))
    assert first.encoder_last_hidden_state.shape == (1, 2500, 32)
    assert not torch.equal(first.logits, second.logits)


def test_learned_positions_say_what_is_too_long():
    config = Transformer2017Config(
        vocab_size=20, d_model=8, d_ff=8, num_heads=2, encoder_layers=1, decoder_layers=1, learned_positions=5
    )
    model = Transformer2017ForConditionalGeneration(config).eval()
    ids = torch.full((1, 5), 7)
    past = model(ids, decoder_input_ids=ids, use_cache=True).past_key_values  # as long as may be
    sentence = "6 tokens is longer than the 5 positions"
    with pytest.raises(ValueError, match=sentence):
        model(torch.full((1, 6), 7), decoder_input_ids=ids)
    with pytest.raises(ValueError, match=sentence):
        model(ids, decoder_input_ids=ids[:, :1], past_key_values=past)


@pytest.mark.parametrize("past_length", [0, 3, torch.tensor(3)])
def test_positions_begin_after_padding_on_the_left(past_length, config):
    embedding = InputEmbedding(config).eval()
    nothing = torch.zeros(2, 2, config.d_model)
    mask = torch.tensor([[0, 0, 1, 1, 1][: 2 + int(past_length)], [1, 1, 1, 1, 1][: 2 + int(past_length)]])
    encoded = embedding(None, nothing, mask, past_length)
    wanted = [[0, 0], [0, 1]] if int(past_length) == 0 else [[1, 2], [3, 4]]
    for row, positions in zip(encoded, wanted, strict=True):
        np.testing.assert_allclose(row.numpy(), papers_encoding(positions, config.d_model), atol=1e-6)
