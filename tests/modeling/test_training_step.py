"""Initialisation, gradients, accumulation and checkpointing; a proof that six layers of post-norm train."""

import math

import pytest
import torch
from transformer2017 import Transformer2017Config, Transformer2017ForConditionalGeneration
from transformer2017.modeling.loss import label_smoothed_cross_entropy


def test_initialisation_is_half_as_wide_as_that_of_the_authors_code():
    """Half of Glorot's uniform distribution, zero biases, and a shared embedding of half of deviation d_model^-0.5."""
    config = Transformer2017Config(
        vocab_size=4000, d_model=128, d_ff=512, num_heads=4, d_k=16, d_v=48, encoder_layers=3, decoder_layers=2
    )
    model = Transformer2017ForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        elif parameter.dim() == 1:
            assert torch.equal(parameter, torch.zeros_like(parameter)), name
        elif name == "model.shared.weight":
            assert parameter.std().item() == pytest.approx(128**-0.5 / 2, rel=0.01)
        else:
            bound = math.sqrt(6 / sum(parameter.shape)) / 2
            assert parameter.abs().max().item() == pytest.approx(bound, rel=0.01), name
            assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03), name


def test_every_weight_gets_a_finite_gradient_and_the_loss_falls(config, batch):
    """A batch learnt by heart; at the start the loss is near that of a guess among the vocabulary."""
    model = Transformer2017ForConditionalGeneration(config).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.98), eps=1e-9)
    losses = []
    for _ in range(60):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(97), abs=1.5)
    assert losses[-1] < 0.5 * losses[0]
    assert (model.eval()(**batch).logits.argmax(-1) == batch["labels"])[batch["labels"] != -100].float().mean() > 0.9


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_neither_loss_nor_gradients(model, batch, reentrant):
    """With dropout: the second forward pass of a layer draws the same mask."""
    model.double().train()

    def step():
        model.zero_grad()
        torch.manual_seed(3)
        loss = model(**batch).loss
        loss.backward()
        return loss, [parameter.grad.clone() for parameter in model.parameters()]

    loss, gradients = step()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert model.is_gradient_checkpointing
    if reentrant:
        model.enable_input_require_grads()
    again, same = step()
    torch.testing.assert_close(again, loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(same, gradients, rtol=1e-10, atol=1e-12)
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


def test_accumulated_batches_make_the_gradient_of_one(model, batch):
    """`Trainer` passes the tokens of the whole update: unequal halves weigh by their tokens (hf#46731)."""
    model.double().train()
    model.config.dropout = 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model(**batch).loss.backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    tokens = (batch["labels"] != -100).sum()
    for rows in (slice(0, 1), slice(1, 3)):
        part = {name: tensor[rows] for name, tensor in batch.items()}
        model(**part, num_items_in_batch=tokens).loss.backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("tokens", [None, 20, torch.tensor(20)])
def test_loss_is_the_formula(smoothing, tokens):
    logits, labels = torch.randn(2, 3, 11, dtype=torch.float64), torch.tensor([[4, 0, -100], [10, -100, -100]])
    total = 0.0
    for row, label in zip(logits.reshape(-1, 11), labels.flatten(), strict=True):
        if label >= 0:
            wanted = torch.full((11,), smoothing / 11, dtype=torch.float64)
            wanted[label] += 1 - smoothing
            total -= (wanted * row.log_softmax(-1)).sum()
    loss = label_smoothed_cross_entropy(logits, labels, smoothing, tokens)
    torch.testing.assert_close(loss, total / (3 if tokens is None else 20))
    half = label_smoothed_cross_entropy(logits.bfloat16(), labels, smoothing, tokens)
    assert half.dtype == torch.float32


@pytest.mark.slow
def test_six_layers_of_post_norm_train_with_warm_up():
    """The paper's depth and schedule, at an eighth of its width, learn to reverse a sentence."""
    config = Transformer2017Config(vocab_size=32, d_model=64, d_ff=256, num_heads=4)
    model = Transformer2017ForConditionalGeneration(config).train()
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9)
    for step in range(1, 1501):
        for group in optimizer.param_groups:  # §5.3
            group["lr"] = 64**-0.5 * min(step**-0.5, step * 400**-1.5)
        source = torch.randint(3, 32, (64, 8))
        loss = model(source, labels=source.flip(1)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    source = torch.randint(3, 32, (200, 8))
    model.generation_config.eos_token_id = None
    right = (model.eval().generate(source, max_new_tokens=8)[:, 1:] == source.flip(1)).float().mean()
    assert right > 0.95
