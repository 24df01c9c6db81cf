"""The shared matrix stays one through resizing, saving and loading; weights load on any device, in any type."""

import pytest
import torch
from safetensors.torch import load_file
from transformer2017 import Transformer2017Config, Transformer2017ForConditionalGeneration, Transformer2017Model
from transformers import AutoModel, AutoModelForSeq2SeqLM


def assert_tied(model):
    shared = model.model.shared.weight
    uses = (model.lm_head, model.get_encoder().get_input_embeddings(), model.get_decoder().get_input_embeddings())
    assert all(use.weight is shared for use in (*uses, model.get_input_embeddings()))
    assert model.config.vocab_size == len(shared) == model.lm_head.out_features


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("size", "multiple", "expected"), [(130, None, 130), (60, None, 60), (None, 64, 128)])
def test_resizing_takes_all_tied_weights_along(config, batch, tmp_path, bias, size, multiple, expected):
    config.logits_bias = bias
    model = Transformer2017ForConditionalGeneration(config).eval()
    before = model(**batch).logits
    model.resize_token_embeddings(size, pad_to_multiple_of=multiple)
    assert_tied(model)
    kept = min(97, expected)
    logits = model(**batch).logits
    assert logits.shape[-1] == expected
    torch.testing.assert_close(logits[..., :kept], before[..., :kept])
    if bias:
        assert model.lm_head.bias.shape == (expected,)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert_tied(loaded)
    torch.testing.assert_close(loaded(**batch).logits, logits)


def test_another_embedding_can_be_set(model):
    model.set_input_embeddings(torch.nn.Embedding(97, 32))
    model.tie_weights()
    assert_tied(model)


def test_the_matrix_is_saved_once(model, tmp_path):
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert len(saved) == len(list(model.parameters()))
    assert "model.shared.weight" in saved
    assert sum(tensor.shape == (97, 32) for tensor in saved.values()) == 1
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert_tied(loaded)
    for name, parameter in model.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter), name


def test_untying_is_refused(model, config, tmp_path):
    """However it is asked for: the config is checked again when a model is made of it."""
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="another model"):
        type(model).from_pretrained(tmp_path, tie_word_embeddings=False)
    config.tie_word_embeddings = False
    with pytest.raises(ValueError, match="another model"):
        Transformer2017ForConditionalGeneration(config)


def test_base_and_whole_load_from_each_others_folders(model, tmp_path, batch):
    model.save_pretrained(tmp_path / "whole")
    base = AutoModel.from_pretrained(tmp_path / "whole")
    assert type(base) is Transformer2017Model
    assert torch.equal(base.shared.weight, model.model.shared.weight)
    base.save_pretrained(tmp_path / "base")
    whole = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base")
    assert_tied(whole)
    torch.testing.assert_close(whole(**batch).logits, model(**batch).logits)


def test_halves_save_and_load_by_themselves(model, tmp_path, batch):
    encoder = model.get_encoder()
    encoder.save_pretrained(tmp_path)
    loaded = type(encoder).from_pretrained(tmp_path)
    assert torch.equal(loaded(batch["input_ids"])[0], encoder(batch["input_ids"])[0])


def test_weights_that_a_folder_lacks_begin_as_in_a_new_model(config):
    """With nothing to load, all of them: transformers moves them from the meta device and initialises them."""
    new = Transformer2017ForConditionalGeneration(config)
    loaded = Transformer2017ForConditionalGeneration.from_pretrained(None, config=config, state_dict={})
    assert_tied(loaded)
    for name, expected in new.named_parameters():
        begun = loaded.get_parameter(name)
        if expected.dim() == 1:
            assert torch.equal(begun, expected), name
        else:
            assert begun.std().item() == pytest.approx(expected.std().item(), rel=0.15), name


def test_a_folder_of_another_vocabulary_is_refused_or_in_part_loaded(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        type(model).from_pretrained(tmp_path, vocab_size=55)
    other = type(model).from_pretrained(tmp_path, vocab_size=55, ignore_mismatched_sizes=True)
    assert_tied(other)
    assert other.model.shared.weight.std().item() == pytest.approx(32**-0.5 / 2, rel=0.1)  # begun anew
    kept = "model.decoder.layers.1.feed_forward.w_1.weight"
    assert torch.equal(other.get_parameter(kept), model.get_parameter(kept))


def test_a_model_is_made_without_memory_and_then_loaded(model, config, tmp_path, batch):
    with torch.device("meta"):
        empty = Transformer2017ForConditionalGeneration(config)
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert not list(model.buffers())  # nothing to lose on the meta device: sinusoids are computed
    empty.to_empty(device="cpu").load_state_dict(model.state_dict())
    empty.tie_weights()
    torch.testing.assert_close(empty.eval()(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("devices", ["cpu", "auto", {"": "cpu"}, {"model": "cpu", "lm_head": "cpu"}], ids=str)
def test_device_map(model, tmp_path, batch, devices):
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, device_map=devices)
    assert_tied(loaded)
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)
    flags = {"num_beams": 2, "max_new_tokens": 4}
    assert (
        loaded.generate(batch["input_ids"], **flags).tolist() == model.generate(batch["input_ids"], **flags).tolist()
    )


def test_weights_can_wait_on_the_disk(model, tmp_path, batch):
    """One layer of the decoder offloaded: it is read for each pass."""
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    places = {"model.shared": "cpu", "model.encoder": "cpu", "model.decoder.embeddings": "cpu", "lm_head": "cpu"}
    places |= {"model.decoder.layers.0": "cpu", "model.decoder.layers.1": "disk"}
    loaded = type(model).from_pretrained(tmp_path, device_map=places, offload_folder=tmp_path / "disk")
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, "bfloat16"])
def test_type_at_load(model, tmp_path, name, dtype):
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, **{name: dtype})
    expected = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert {parameter.dtype for parameter in loaded.parameters()} == {expected}
    assert loaded(torch.tensor([[5, 2]]), decoder_input_ids=torch.tensor([[1]])).logits.dtype == expected


def test_type_is_remembered(model, tmp_path):
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    assert type(model).from_pretrained(tmp_path).dtype == torch.bfloat16  # "auto" is the default of transformers 5


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
def test_attention_at_load(model, tmp_path, attention):
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, attn_implementation=attention)
    inner = {module.config._attn_implementation for module in loaded.modules() if hasattr(module, "config")}
    assert inner == {attention}
    assert Transformer2017Config.from_pretrained(tmp_path)._attn_implementation is None  # not written to the folder


def test_flash_attention_is_offered_and_needs_its_package(model, tmp_path):
    """It has no CPU kernel: here it can be seen only that the model does not refuse it."""
    model.save_pretrained(tmp_path)
    with pytest.raises((ImportError, ValueError), match=r"(?i)flash"):
        type(model).from_pretrained(tmp_path, attn_implementation="flash_attention_2")
    assert model._supports_flash_attn
