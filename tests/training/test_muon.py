"""`--muon`: torch's own Muon and AdamW, each for its part of the model, are what it is measured by."""

import copy

import pytest
import torch
from transformer2017.training import muon
from transformer2017.training.muon import Muon, muon_and_adam
from transformer2017.training.training_arguments import TrainingArguments

RATE, DECAY = 0.01, 0.1


def optimizer_of(model, folder) -> torch.optim.Optimizer:
    args = TrainingArguments(
        str(folder), muon=True, learning_rate=RATE, weight_decay=DECAY, use_cpu=True, report_to=[]
    )
    decayed = {name for name, parameter in model.named_parameters() if parameter.ndim == 2}
    return muon_and_adam(model, args, decayed)


def optimizers_of_torch(model) -> list[torch.optim.Optimizer]:
    """The matrices of the layers, the embeddings, and the rest."""
    parts = {"matrices": [], "embeddings": [], "rest": []}
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2
        parts[("matrices" if ".layers." in name else "embeddings") if is_matrix else "rest"].append(parameter)
    adam = {"lr": RATE, "betas": (0.9, 0.98), "eps": 1e-9}
    return [
        torch.optim.Muon(parts["matrices"], lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(parts["embeddings"], weight_decay=DECAY, **adam),
        torch.optim.AdamW(parts["rest"], weight_decay=0.0, **adam),
    ]


def give_gradients(seed: int, *models: torch.nn.Module) -> None:
    """The same to each."""
    for model in models:
        random = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=random)


def assert_same(one, other, **tolerance):
    for (name, weight), same in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(weight, same, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("is_half", "tolerance"), [(True, 1e-4), (False, 2e-4)], ids=["bfloat16", "float32"])
def test_each_part_of_a_model_is_turned_as_torch_turns_it(model, tmp_path, monkeypatch, is_half, tolerance):
    """With a rate that changes, as a schedule changes it. torch iterates in bfloat16 on any processor."""
    monkeypatch.setattr(muon, "bfloat16_is_quick", lambda use_cpu: is_half)
    other = copy.deepcopy(model)
    ours, theirs = optimizer_of(model, tmp_path), optimizers_of_torch(other)
    for update in range(3):
        give_gradients(update, model, other)
        for optimizer in (ours, *theirs):
            for group in optimizer.param_groups:
                group["lr"] = RATE / (1 + update)
            optimizer.step()
    assert_same(model, other, atol=tolerance, rtol=0)  # a hundredth of the rate, or two


@pytest.mark.parametrize("shape", [(16, 16), (32, 16), (16, 48)])
def test_matrices_of_one_shape_do_not_change_one_another(shape):
    matrices = [torch.nn.Parameter(torch.randn(shape)) for _ in range(3)]
    alone = torch.nn.Parameter(matrices[1].detach().clone())
    for matrix in matrices:
        matrix.grad = torch.randn(shape)
    alone.grad = matrices[1].grad.clone()
    Muon(matrices, lr=RATE).step()
    Muon([alone], lr=RATE).step()
    torch.testing.assert_close(matrices[1], alone, atol=1e-4, rtol=0)


def test_its_state_is_saved_and_read(model, tmp_path):
    """What goes on from it makes the very step that the first would have made."""
    first = optimizer_of(model, tmp_path)
    give_gradients(0, model)
    first.step()
    other = copy.deepcopy(model)
    second = optimizer_of(other, tmp_path)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    give_gradients(1, model, other)
    first.step()
    second.step()
    assert_same(model, other, atol=0, rtol=0)


def test_what_is_frozen_stays(model, tmp_path):
    frozen = model.get_encoder().requires_grad_(False)
    before = copy.deepcopy(frozen)
    optimizer = optimizer_of(model, tmp_path)
    give_gradients(0, model)
    optimizer.step()
    assert_same(frozen, before, atol=0, rtol=0)
