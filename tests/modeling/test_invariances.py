"""What must not change the output: padding, neighbours in the batch, a cache, the attention implementation."""

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformer2017 import Transformer2017ForConditionalGeneration
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture
def model(model, scramble):
    return scramble(model).double().requires_grad_(False)


@pytest.fixture
def target(batch, model):
    return model.prepare_decoder_input_ids_from_labels(batch["labels"])


def alone(model, batch, target, n):
    """The logits of one pair without padding and without neighbours."""
    source = batch["input_ids"][n][batch["input_ids"][n] != 0]
    return model(source[None], decoder_input_ids=target[n][None]).logits[0]


@pytest.fixture
def uncompiled():
    """Runs flex attention, which transformers compiles for minutes, as it is written: the same function."""
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_and_neighbours_change_nothing(model, batch, target, attention, side):
    """Also: eager, SDPA and flex attention agree, since all are compared with SDPA on single sentences."""
    source = batch["input_ids"]
    if side == "left":
        source = torch.stack([row.roll(int((row == 0).sum())) for row in source])
    expected = [alone(model, batch, target, n) for n in range(3)]
    model.set_attn_implementation(attention)
    logits = model(source, decoder_input_ids=target).logits
    for n in range(3):
        torch.testing.assert_close(logits[n], expected[n], **CLOSE)


@pytest.mark.slow
def test_compiled_flex_attention_changes_nothing(model, batch, target):
    """Compiled, it has no float64 on a CPU."""
    expected = alone(model, batch, target, 0)
    model.float().set_attn_implementation("flex_attention")
    logits = model(batch["input_ids"], decoder_input_ids=target).logits
    torch.testing.assert_close(logits[0].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_target_padded_on_the_left_is_the_same_target(model, batch, target, attention):
    model.set_attn_implementation(attention)
    expected = alone(model, batch, target, 0)
    padded = torch.cat([torch.zeros(3, 2, dtype=torch.long), target], dim=1)
    mask = torch.ones_like(padded)
    mask[:, :2] = 0
    logits = model(batch["input_ids"], decoder_input_ids=padded, decoder_attention_mask=mask).logits
    torch.testing.assert_close(logits[0, 2:], expected, **CLOSE)


def test_the_mask_is_taken_from_the_ids_where_none_is_given(model, batch, target):
    mask = (batch["input_ids"] != 0).long()
    given = model(batch["input_ids"], mask, target).logits
    torch.testing.assert_close(model(batch["input_ids"], decoder_input_ids=target).logits, given, rtol=0, atol=0)


def test_no_position_sees_a_later_one(model, batch, target):
    changed = target.clone()
    changed[:, 3:] = 50
    first, second = (model(batch["input_ids"], decoder_input_ids=ids).logits for ids in (target, changed))
    torch.testing.assert_close(first[:, :3], second[:, :3], **CLOSE)
    assert not torch.allclose(first[:, 3:], second[:, 3:])


def caches(model, kind):
    decoder = model.config.get_text_config(decoder=True)
    if kind == "static":
        own, of_memory = StaticCache(config=decoder, max_cache_len=9), StaticCache(config=decoder, max_cache_len=7)
    else:
        own, of_memory = DynamicCache(), DynamicCache()
    return own if kind == "plain" else EncoderDecoderCache(own, of_memory)


@pytest.mark.parametrize("kind", ["dynamic", "plain", "static", "none given"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("padding", [0, 2])
def test_a_cache_changes_nothing(model, batch, target, kind, attention, padding):
    """Three tokens, then two, then one by one, with padding on the target's left or without."""
    model.set_attn_implementation(attention)
    target = torch.cat([torch.zeros(3, padding, dtype=torch.long), target], dim=1)
    mask = torch.ones_like(target)
    mask[:, :padding] = 0
    expected = model(batch["input_ids"], decoder_input_ids=target, decoder_attention_mask=mask).logits[:, padding:]

    encoded, past, steps = None, None if kind == "none given" else caches(model, kind), []
    for begin, end in [(0, 3), (3, 5), *((n, n + 1) for n in range(5, target.shape[1]))]:
        output = model(
            batch["input_ids"],
            decoder_input_ids=target[:, begin:end],
            decoder_attention_mask=mask[:, :end],
            encoder_outputs=encoded,
            past_key_values=past,
            use_cache=True,
        )
        past, encoded = output.past_key_values, (output.encoder_last_hidden_state,)
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1)[:, padding:], expected, **CLOSE)


def test_a_cache_projects_the_memory_once(model, batch, target):
    """Keys and values of the memory do not grow with the output."""
    encoder_outputs = model.get_encoder()(batch["input_ids"], (batch["input_ids"] != 0).long())
    past = None
    for n in range(3):
        past = model(
            batch["input_ids"],
            decoder_input_ids=target[:, n : n + 1],
            encoder_outputs=encoder_outputs,
            past_key_values=past,
            use_cache=True,
        ).past_key_values
        assert past.get_seq_length() == n + 1
    heads, d_k, d_v = model.config.num_heads, model.config.d_k, model.config.d_v
    assert len(past.self_attention_cache.layers) == len(past.cross_attention_cache.layers) == 2
    for own, of_memory in zip(past.self_attention_cache.layers, past.cross_attention_cache.layers, strict=True):
        assert own.keys.shape == (3, heads, 3, d_k)
        assert own.values.shape == (3, heads, 3, d_v)
        assert of_memory.keys.shape == (3, heads, 7, d_k)
        assert of_memory.values.shape == (3, heads, 7, d_v)


def test_keys_of_the_memory_may_wait_on_another_device(config):
    """As an offloaded cache lets them: seen on tensors without values, whose devices torch checks all the same."""
    with FakeTensorMode():
        model = Transformer2017ForConditionalGeneration(config).eval()
        source, token = torch.ones(2, 5, dtype=torch.long), torch.ones(2, 1, dtype=torch.long)
        inputs = {"input_ids": source, "attention_mask": torch.ones_like(source), "decoder_input_ids": token}
        past = model(**inputs, use_cache=True).past_key_values
        for layer in past.cross_attention_cache.layers:
            layer.keys, layer.values = layer.keys.to("meta"), layer.values.to("meta")
        assert model(**inputs, past_key_values=past).logits.device.type == "cpu"
        assert all(layer.keys.is_meta and layer.values.is_meta for layer in past.cross_attention_cache.layers)


def test_embeddings_in_place_of_ids_change_nothing(model, batch, target):
    shared = model.get_input_embeddings()
    mask = (batch["input_ids"] != 0).long()
    by_ids = model(batch["input_ids"], mask, target).logits
    by_rows = model(
        inputs_embeds=shared(batch["input_ids"]), attention_mask=mask, decoder_inputs_embeds=shared(target)
    ).logits
    torch.testing.assert_close(by_rows, by_ids, rtol=0, atol=0)


def test_encoder_and_decoder_work_by_themselves(model, batch, target):
    whole = model(batch["input_ids"], decoder_input_ids=target)
    mask = (batch["input_ids"] != 0).long()
    encoder, decoder = copy.deepcopy(model.get_encoder()), copy.deepcopy(model.get_decoder())
    memory = encoder(batch["input_ids"], mask).last_hidden_state
    states = decoder(target, encoder_hidden_states=memory, encoder_attention_mask=mask).last_hidden_state
    torch.testing.assert_close(memory, whole.encoder_last_hidden_state, rtol=0, atol=0)
    torch.testing.assert_close(model.lm_head(states), whole.logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"input_ids": torch.tensor([[3]])},
        {"input_ids": torch.tensor([[3]]), "inputs_embeds": torch.zeros(1, 1, 32).double()},
    ],
    ids=["nothing", "no target", "both"],
)
def test_what_is_missing_or_given_twice_is_said(model, arguments):
    with pytest.raises(ValueError, match="either ids or embeddings"):
        model(**arguments)


def test_a_decoder_without_memory_is_refused(model):
    with pytest.raises(ValueError, match="give encoder_hidden_states"):
        model.get_decoder()(torch.tensor([[3]]))
