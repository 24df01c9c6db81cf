"""The training objective: cross-entropy with label smoothing (§5.4)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

IGNORED_LABEL = -100
CHUNK = 2**22  # logits that exist at a time where they are not kept: 16 MiB in float32


def label_smoothed_cross_entropy(
    logits: Tensor,  # (batch, target_len, vocab_size)
    labels: Tensor,  # (batch, target_len); -100 marks padding
    smoothing: float,  # weight of the uniform distribution over the vocabulary, the right token included
    num_items_in_batch: Tensor | int | None = None,  # real tokens in the whole update; those of this batch if None
) -> Tensor:
    """Averages the cross-entropy against (1 - smoothing) * one-hot + smoothing * uniform over real tokens (§5.4).

    The tokens of an update are those of all its accumulated batches and processes, as `Trainer` counts them.
    Returns nats per token, a scalar in float32 or wider.
    """
    logits = logits.flatten(0, -2)  # (batch * target_len, vocab_size)
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    labels = labels.flatten().to(logits.device)
    loss = nn.functional.cross_entropy(
        logits, labels, ignore_index=IGNORED_LABEL, label_smoothing=smoothing, reduction="sum"
    )
    tokens = (labels != IGNORED_LABEL).sum() if num_items_in_batch is None else num_items_in_batch
    return loss / torch.as_tensor(tokens, device=loss.device)


def projected_cross_entropy(
    states: Tensor,  # what the output projection reads (batch, target_len, d_model)
    projection: nn.Linear,
    labels: Tensor,
    smoothing: float,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """`label_smoothed_cross_entropy` of the projected states, for training: the logits never exist all at once."""
    labels = labels.to(states.device)
    real = labels != IGNORED_LABEL
    weights = [states[real], projection.weight, projection.bias]
    if torch.is_autocast_enabled(states.device.type):
        dtype = torch.get_autocast_dtype(states.device.type)
        weights = [None if tensor is None else tensor.to(dtype) for tensor in weights]
    loss = _ProjectedCrossEntropy.apply(*weights, labels[real], smoothing)
    tokens = real.sum() if num_items_in_batch is None else num_items_in_batch
    return loss / torch.as_tensor(tokens, device=loss.device)


class _ProjectedCrossEntropy(torch.autograd.Function):
    """The summed loss of (tokens, d_model), with its gradient made on the way forward from a chunk's logits in place.

    The gradient of the loss with respect to the logits is softmax(logits) - target.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, smoothing: float
    ) -> Tensor:
        vocab_size = weight.shape[0]
        wide = torch.promote_types(weight.dtype, torch.float32)
        loss = torch.zeros((), dtype=wide, device=weight.device)
        d_states = torch.empty_like(states)
        d_weight = torch.zeros_like(weight, dtype=wide)
        d_bias = None if bias is None else torch.zeros_like(bias, dtype=wide)
        chunk = max(1, CHUNK // vocab_size)
        for x, y, d_x in zip(states.split(chunk), labels.split(chunk), d_states.split(chunk), strict=True):
            right = y.unsqueeze(-1)  # (chunk, 1)
            log_p = torch.log_softmax(nn.functional.linear(x, weight, bias).to(wide), dim=-1)  # (chunk, vocab_size)
            loss -= (1 - smoothing) * log_p.gather(-1, right).sum() + smoothing / vocab_size * log_p.sum()
            gradient = log_p.exp_().sub_(smoothing / vocab_size)
            gradient.scatter_add_(-1, right, gradient.new_full(right.shape, smoothing - 1))
            gradient_of_weights = gradient.to(weight.dtype)
            torch.mm(gradient_of_weights, weight, out=d_x)
            d_weight += gradient_of_weights.T @ x
            if d_bias is not None:
                d_bias += gradient.sum(0)
        ctx.save_for_backward(d_states, d_weight.to(weight.dtype), d_bias)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        d_states, d_weight, d_bias = ctx.saved_tensors
        d_bias = None if d_bias is None else d_bias * d_loss
        return d_states * d_loss, d_weight * d_loss, d_bias, None, None
