"""Libraries that take a transformers model and change it: adapters and quantisation."""

import pytest
import torch
from torch import nn


def assert_greedy(model, source):
    """What `generate()` gives is what the changed model's own logits say is most likely."""
    output = model.generate(input_ids=source, max_new_tokens=5, eos_token_id=96)
    logits = model(input_ids=source, decoder_input_ids=output).logits[:, :-1]
    ended = (output[:, 1:] == 96).cumsum(-1).roll(1, -1) > 0
    ended[:, 0] = False
    assert torch.equal(logits.argmax(-1)[~ended], output[:, 1:][~ended])


def test_lora_on_the_attention_projections(model, batch, tmp_path):
    peft = pytest.importorskip("peft")
    plain = model(**batch).logits
    lora = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["w_q", "w_k", "w_v", "w_o"])
    adapted = peft.get_peft_model(model, lora)
    torch.testing.assert_close(adapted(**batch).logits, plain)  # an adapter begins as nothing

    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    layers = model.config.encoder_layers + 2 * model.config.decoder_layers
    assert len(trained) == layers * 4 * 2
    optimizer = torch.optim.Adam([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(20):
        loss = adapted(**batch).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]

    adapted.eval()
    assert_greedy(adapted, batch["input_ids"])
    logits = adapted(**batch).logits
    adapted.save_pretrained(tmp_path)
    base = adapted.unload()
    torch.testing.assert_close(base(**batch).logits, plain)
    loaded = peft.PeftModel.from_pretrained(base, tmp_path)
    torch.testing.assert_close(loaded(**batch).logits, logits)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(merged(**batch).logits, logits, rtol=1e-4, atol=1e-5)
    assert_greedy(merged, batch["input_ids"])


def test_lora_trains_with_gradient_checkpointing(model, batch):
    """The base is frozen, and still the gradients of the adapters are those without checkpointing."""
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["w_q", "w_v"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, lora).train()

    def gradients():
        adapted.zero_grad()
        torch.manual_seed(3)
        adapted(**batch).loss.backward()
        return [parameter.grad.clone() for parameter in adapted.parameters() if parameter.requires_grad]

    expected = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert model.is_gradient_checkpointing
    torch.testing.assert_close(gradients(), expected)
    assert all(gradient.any() for gradient in expected)


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_dynamic_int8_quantisation(model, scramble, batch):
    model = scramble(model)
    logits = model(**batch).logits
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    linears = [module for module in quantised.modules() if isinstance(module, torch.ao.nn.quantized.dynamic.Linear)]
    assert len(linears) == 3 * (4 + 2) + 2 * (8 + 2) + 1
    close = quantised(**batch).logits
    similarity = nn.functional.cosine_similarity(close.flatten(), logits.flatten(), dim=0)
    assert similarity > 0.99
    assert_greedy(quantised, batch["input_ids"])
