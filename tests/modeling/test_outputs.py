"""What a forward pass returns, as transformers' common tests look at it."""

import pytest
import torch
from transformer2017.modeling.cache_name import CACHE
from transformers import EncoderDecoderCache
from transformers.modeling_outputs import Seq2SeqLMOutput, Seq2SeqModelOutput

ATTENTIONS = {"encoder_attentions": (3, 4, 7, 7), "decoder_attentions": (3, 4, 5, 5), "cross_attentions": (3, 4, 5, 7)}


@pytest.fixture
def model(model):
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("asked", ["argument", "configuration"])
def test_attentions_and_hidden_states(model, batch, asked):
    flags = {"output_attentions": True, "output_hidden_states": True}
    if asked == "configuration":
        model.config.output_attentions = model.config.output_hidden_states = True
        flags = {}
    output = model(**batch, **flags)
    for name, shape in ATTENTIONS.items():
        weights = output[name]
        assert [w.shape for w in weights] == [shape] * (3 if name.startswith("encoder") else 2)
        for layer in weights:  # each query's weights sum to 1, and none falls on padding of the source
            torch.testing.assert_close(layer.sum(-1), torch.ones(layer.shape[:-1]))
            if name != "decoder_attentions":
                assert layer[2, :, :, 2:].abs().max() == 0
    assert torch.stack(output.decoder_attentions).triu(1).abs().max() == 0  # nor on a later position
    assert [state.shape for state in output.encoder_hidden_states] == [(3, 7, 32)] * 4
    assert [state.shape for state in output.decoder_hidden_states] == [(3, 5, 32)] * 3
    assert torch.equal(output.encoder_hidden_states[-1], output.encoder_last_hidden_state)
    assert torch.equal(model.lm_head(output.decoder_hidden_states[-1]), output.logits)


def test_hidden_states_can_be_chosen(model, batch):
    """transformers 5 takes indices: the last layer of each stack, whose depths differ."""
    output = model(**batch, output_hidden_states=[-1])
    assert [state is not None for state in output.encoder_hidden_states] == [False, False, False, True]
    assert [state is not None for state in output.decoder_hidden_states] == [False, False, True]


def test_gradients_reach_hidden_states_and_attentions(model, batch):
    output = model(**batch, output_attentions=True, output_hidden_states=True)
    kept = [output[name][0] for name in (*ATTENTIONS, "encoder_hidden_states", "decoder_hidden_states")]
    for tensor in kept:
        tensor.retain_grad()
    output.logits.flatten()[0].backward()
    assert all(tensor.grad is not None for tensor in kept)


def test_tuples_hold_what_the_outputs_hold(model, batch):
    flags = {"output_attentions": True, "output_hidden_states": True, "use_cache": False}
    named, plain = model(**batch, **flags), model(**batch, **flags, return_dict=False)
    assert isinstance(named, Seq2SeqLMOutput)
    assert isinstance(plain, tuple)
    assert len(plain) == len(named.to_tuple()) == 8
    assert torch.equal(plain[0], named.loss)
    assert torch.equal(plain[1], named.logits)
    base = model.model(batch["input_ids"], decoder_input_ids=batch["input_ids"])
    assert isinstance(base, Seq2SeqModelOutput)
    assert base.last_hidden_state.shape == (3, 7, 32)


def test_what_is_not_asked_for_is_not_returned(model, batch):
    output = model(batch["input_ids"], decoder_input_ids=batch["input_ids"])
    assert list(output) == ["logits", CACHE, "encoder_last_hidden_state"]
    assert isinstance(output.past_key_values, EncoderDecoderCache)
    assert "past_key_values" not in model(**batch)  # no cache beside a loss
    assert "past_key_values" not in model(batch["input_ids"], decoder_input_ids=batch["input_ids"], use_cache=False)


def test_two_runs_give_the_same(model, batch):
    assert torch.equal(model(**batch).logits, model(**batch).logits)


def test_labels_shift_right_behind_the_start_token(model, batch):
    shifted = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    assert shifted.tolist() == [[1, 7, 7, 31, 18], [1, 40, 3, 2, 0], [1, 25, 19, 6, 23]]
    by_hand = model(batch["input_ids"], decoder_input_ids=shifted, labels=batch["labels"])
    assert torch.equal(by_hand.loss, model(**batch).loss)
