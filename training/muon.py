"""Muon for the matrices of the layers and Adam for all else, as one optimizer: more learned of an update.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) adds up gradients as momentum does, and steps by
the orthogonal matrix nearest to the sum. Its steps are scaled to the size of Adam's, so that both have one rate
(Liu et al., 2025, arXiv 2502.16982).
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformer2017.configuration import UsageError
from transformers import PreTrainedModel

from .device import bfloat16_is_quick
from .training_arguments import TrainingArguments


def muon_and_adam(model: PreTrainedModel, args: TrainingArguments, decayed: set[str]) -> "MuonAndAdam":
    """For the parameters of a model that are trained.

    Args:
        model: Its `nn.Linear` maps, but for the one to the vocabulary, are Muon's.
        args: Has the rate, Adam's numbers and the decay of weights.
        decayed: Names of the parameters that decay.

    Raises:
        UsageError: If no matrix is trained.
    """
    to_vocabulary = model.get_output_embeddings()
    maps = [each for each in model.modules() if isinstance(each, nn.Linear) and each is not to_vocabulary]
    matrices = [each.weight for each in maps if each.weight.requires_grad]
    if not matrices:
        raise UsageError("--muon has no matrix to train: all maps of the layers are frozen. Leave it out.")
    of_muon = set(map(id, matrices))
    others = {n: each for n, each in model.named_parameters() if each.requires_grad and id(each) not in of_muon}
    groups = [
        {"params": [each for name, each in others.items() if name in decayed], "weight_decay": args.weight_decay},
        {"params": [each for name, each in others.items() if name not in decayed], "weight_decay": 0.0},
    ]
    betas = (args.adam_beta1, args.adam_beta2)
    return MuonAndAdam(
        Muon(matrices, lr=args.learning_rate, weight_decay=args.weight_decay),
        torch.optim.AdamW(groups, lr=args.learning_rate, betas=betas, eps=args.adam_epsilon, fused=True),
    )


class MuonAndAdam(torch.optim.Optimizer):
    """Both of torch's, which share their state and groups with this one."""

    def __init__(self, muon: torch.optim.Optimizer, adam: torch.optim.Optimizer) -> None:
        self.parts = (muon, adam)
        super().__init__([*muon.param_groups, *adam.param_groups], {})
        self._share()

    def step(self, closure: Callable | None = None) -> Any:
        """Steps with each; the loss of `closure`, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimizer's."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state


class Muon(torch.optim.Muon):
    """torch's with steps of Adam's size, except that matrices of one shape are made orthogonal together.

    Small ones take half the time or less so.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of all matrices that have a gradient."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.shape, matrix.device].append(matrix)
            for (shape, _), matrices in alike.items():
                steps = _orthogonal(torch.stack([self._gradient(each, group) for each in matrices]), group)
                size = 0.2 * max(shape) ** 0.5  # as large as Adam's, on the average
                for matrix, step in zip(matrices, steps, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-group["lr"] * size)

    def _gradient(self, matrix: Tensor, group: dict[str, Any]) -> Tensor:
        """With its momentum, by Nesterov's rule."""
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix.grad)
        momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
        return matrix.grad.lerp(momentum, group["momentum"])


def _orthogonal(matrices: Tensor, group: dict[str, Any]) -> Tensor:
    """About the nearest orthogonal ones to (matrices, out, in), by the iteration of Newton and Schulz."""
    a, b, c = group["ns_coefficients"]
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    # bfloat16 is precise enough; where it is emulated, it takes some 20 times as long as float32.
    dtype = torch.bfloat16 if bfloat16_is_quick(matrices.device.type == "cpu") else torch.float32
    x = (matrices.mT if is_tall else matrices).to(dtype)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x
