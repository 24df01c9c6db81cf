"""torch.compile without graph breaks, and torch.export."""

import pytest
import torch
from transformers import CompileConfig, DynamicCache, StaticCache


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def inputs(batch, model):
    target = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    mask = (batch["input_ids"] != 0).long()
    return {"input_ids": batch["input_ids"], "attention_mask": mask, "decoder_input_ids": target, "use_cache": False}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_forward_compiles_as_one_graph(model, inputs, attention):
    """Traced and run by dynamo; `aot_eager` leaves out the C++ compiler, which the slow test below calls."""
    model.set_attn_implementation(attention)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits, rtol=1e-4, atol=1e-5)


def test_a_training_step_compiles_as_one_graph(model, batch):
    model.double().train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    loss = model(**batch).loss
    loss.backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    again = torch.compile(model, backend="aot_eager", fullgraph=True)(**batch).loss
    again.backward()
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close([parameter.grad for parameter in model.parameters()], expected)


def test_decoding_with_a_static_cache_compiles_as_one_graph(model, batch):
    expected = model.generate(batch["input_ids"], max_new_tokens=6, use_cache=True)
    model.forward = torch.compile(model.forward, backend="aot_eager", fullgraph=True)
    flags = {"cache_implementation": "static", "disable_compile": True}
    assert model.generate(batch["input_ids"], max_new_tokens=6, **flags).tolist() == expected.tolist()


@pytest.fixture
def compiling():
    """The flags with which `generate()` compiles by itself, on a CPU too: one graph, of fixed sizes."""
    compilation = CompileConfig(fullgraph=True, dynamic=False, backend="aot_eager", mode=None)
    compilation._compile_all_devices = True
    return {"cache_implementation": "static", "compile_config": compilation, "return_dict_in_generate": True}


def test_other_inputs_and_shorter_outputs_are_not_compiled_anew(model, batch, compiling):
    sources = [batch["input_ids"], batch["input_ids"].flip(0)]
    expected = [model.generate(source, max_new_tokens=6, return_dict_in_generate=True) for source in sources]
    assert isinstance(expected[0].past_key_values.self_attention_cache, DynamicCache)
    found = [model.generate(sources[0], max_new_tokens=6, **compiling)]
    assert hasattr(model, "_compiled_call")
    with torch.compiler.set_stance("fail_on_recompile"):
        found.append(model.generate(sources[1], max_new_tokens=6, **compiling))
        shorter = model.generate(sources[1], max_new_tokens=4, **compiling)
    assert [output.sequences.tolist() for output in found] == [output.sequences.tolist() for output in expected]
    assert shorter.sequences.tolist() == expected[1].sequences[:, :5].tolist()
    assert all(isinstance(output.past_key_values.self_attention_cache, StaticCache) for output in (*found, shorter))


def test_compiled_generation_returns_every_output(model, batch, compiling):
    model.set_attn_implementation("eager")
    asked = dict.fromkeys(("output_scores", "output_logits", "output_attentions", "output_hidden_states"), True)
    found = model.generate(batch["input_ids"], max_new_tokens=4, **asked, **compiling)
    assert hasattr(model, "_compiled_call")
    asked |= {"return_dict_in_generate": True}
    expected = model.generate(batch["input_ids"], max_new_tokens=4, **asked)
    for name in ("sequences", "scores", "logits", "encoder_attentions", "cross_attentions", "decoder_hidden_states"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
    for step, layers in enumerate(found.decoder_attentions):  # as wide as the cache
        seen = [weights[..., : step + 1] for weights in layers]
        torch.testing.assert_close(seen, list(expected.decoder_attentions[step]), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_generate_compiles_by_itself_with_a_static_cache(model, batch):
    """As it does on an accelerator, with the C++ compiler; the flag asks for the same on a CPU."""
    flags = {"max_new_tokens": 6, "cache_implementation": "static"}
    expected = model.generate(batch["input_ids"], **flags)
    assert not hasattr(model, "_compiled_call")
    compilation = CompileConfig(fullgraph=True, mode="default")
    compilation._compile_all_devices = True
    compiled = model.generate(batch["input_ids"], **flags, compile_config=compilation)
    assert hasattr(model, "_compiled_call")
    assert compiled.tolist() == expected.tolist()


def test_export(model, inputs):
    """With batch and lengths left open."""
    batch, source, target = torch.export.Dim("batch"), torch.export.Dim("source"), torch.export.Dim("target")
    arguments = {name: inputs[name] for name in ("input_ids", "attention_mask", "decoder_input_ids")}
    shapes = {
        "input_ids": {0: batch, 1: source},
        "attention_mask": {0: batch, 1: source},
        "decoder_input_ids": {0: batch, 1: target},
    }

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, decoder_input_ids):
            return self.model(input_ids, attention_mask, decoder_input_ids, use_cache=False).logits

    program = torch.export.export(Logits(), (), arguments, dynamic_shapes=shapes, strict=False)
    other = {
        "input_ids": torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 2], [9, 2, 0, 0, 0, 0, 0, 0, 0]]),
        "decoder_input_ids": torch.tensor([[1, 4, 4], [1, 5, 5]]),
    }
    other["attention_mask"] = (other["input_ids"] != 0).long()
    for given in (arguments, other):
        expected = model(**given).logits
        torch.testing.assert_close(program.module()(**given), expected, rtol=1e-4, atol=1e-5)
