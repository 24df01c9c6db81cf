"""What `generate()` takes from a cache and leaves in one, on either of its paths."""

import copy

import pytest
import torch
from transformer2017.modeling.cache_name import CACHE
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

LENGTH = 8
MODES = {"greedy": {}, "beam": {"num_beams": 3}}


@pytest.fixture
def model(unending):
    return unending


def generate(model, source, **flags):
    return model.generate(source, **{"max_new_tokens": LENGTH, **flags})


def contents(cache):
    """Keys and values of every layer, of the target and of the memory."""
    assert isinstance(cache, EncoderDecoderCache)
    layers = cache.self_attention_cache.layers + cache.cross_attention_cache.layers
    return [(layer.keys, layer.values) for layer in layers]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cache", ["dynamic", "static", "offloaded", "offloaded_static"])
def test_every_cache_gives_the_same_output(model, source, mode, cache):
    if cache.startswith("offloaded"):
        if not torch.cuda.is_available():
            pytest.skip("offloading moves keys and values between an accelerator and the CPU")
        model, source = model.to("cuda"), source.to("cuda")
    given = generate(model, source, cache_implementation=cache, disable_compile=True, **MODES[mode])
    assert given.tolist() == generate(model, source, **MODES[mode]).tolist()


@pytest.mark.parametrize("ends", [None, list(range(2, 30))], ids=["no end", "many ends"])
def test_the_fast_path_leaves_the_cache_that_transformers_leaves(model, source, ends):
    """After greedy search; also of sentences that ended before the others."""
    flags = {"eos_token_id": ends, "return_dict_in_generate": True}
    fast, own = (generate(model, source, fast=fast, **flags) for fast in (True, False))
    assert own.past_key_values.get_seq_length() == own.sequences.shape[1] - 1
    torch.testing.assert_close(contents(fast.past_key_values), contents(own.past_key_values))


PREFIX = {
    "decoder_input_ids": torch.tensor([[0, 1, 9], [1, 30, 31], [0, 1, 12]]),
    "decoder_attention_mask": torch.tensor([[0, 1, 1], [1, 1, 1], [0, 1, 1]]),
}


@pytest.mark.parametrize("begin", [{"fast": True}, {"fast": False}, PREFIX], ids=["fast", "transformers", "prefix"])
def test_generation_continues_from_its_own_cache(model, source, begin):
    """It reads what the cache lacks and nothing twice: the caches of one call and of two are the same."""
    flags = {"pad_token_id": -1, "eos_token_id": -1, "return_dict_in_generate": True}
    whole = generate(model, source, **flags, **begin)
    begun = generate(model, source, **flags, **begin, max_new_tokens=3)
    given = {"decoder_input_ids": begun.sequences, CACHE: begun.past_key_values}
    if begin is PREFIX:
        given["decoder_attention_mask"] = torch.nn.functional.pad(PREFIX["decoder_attention_mask"], (0, 3), value=1)
    assert begun.past_key_values.get_seq_length() == begun.sequences.shape[1] - 1
    rest = generate(model, source, **flags, **given, max_new_tokens=LENGTH - 3)
    assert rest.sequences.tolist() == whole.sequences.tolist()
    torch.testing.assert_close(contents(rest.past_key_values), contents(whole.past_key_values))


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_cache_that_is_given_is_filled(model, source, kind):
    decoder = model.config.get_text_config(decoder=True)
    if kind == "static":
        caches = (StaticCache(config=decoder, max_cache_len=size) for size in (LENGTH, source.shape[1]))
    else:
        caches = (DynamicCache(config=decoder) for _ in range(2))
    given = EncoderDecoderCache(*caches)
    assert generate(model, source, **{CACHE: given}).tolist() == generate(model, source).tolist()
    expected = generate(model, source, return_dict_in_generate=True).past_key_values
    torch.testing.assert_close(contents(given), contents(expected))


@pytest.mark.parametrize("threshold", [0.0, 1e-6], ids=["fast", "transformers"])
def test_an_assistant_goes_on_from_its_own_cache(model, source, threshold):
    """One that guesses as the model does is always right: three guesses and one token more in each pass."""
    assistant = copy.deepcopy(model)
    constant = {"num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": threshold}
    assistant.generation_config.update(num_assistant_tokens=3, **constant)
    passes, read = [], []
    model.register_forward_hook(lambda *_: passes.append(1))
    assistant.register_forward_pre_hook(
        lambda _, args, inputs: read.append(inputs["decoder_input_ids"].shape[1]), with_kwargs=True
    )
    assisted = generate(model, source[:1], assistant_model=assistant)
    assert len(passes) == LENGTH // 4
    assert max(read) == 2  # its last guess, and the token that the model put behind it
    assert assisted.tolist() == generate(assistant, source[:1]).tolist()


@pytest.mark.parametrize("mode", MODES)
def test_generation_from_embeddings_with_a_static_cache(model, source, mode):
    rows, mask = model.get_input_embeddings()(source), (source != 0).long()
    flags = {"cache_implementation": "static", "disable_compile": True, "return_dict_in_generate": True}
    output = generate(model, None, inputs_embeds=rows, attention_mask=mask, **flags, **MODES[mode])
    assert output.sequences.tolist() == generate(model, source, **MODES[mode]).tolist()
    beams = MODES[mode].get("num_beams", 1)
    keys = output.past_key_values.self_attention_cache.layers[0].keys
    assert keys.shape == (3 * beams, 4, LENGTH, 6)  # (batch, heads, all but the last token, d_k)
