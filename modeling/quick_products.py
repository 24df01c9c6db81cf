"""Products with matrices of weights in float32 on a CPU, quicker than torch's own, for training."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# torch has MKL multiply float32, which takes a processor that is not Intel's for one without AVX-512: 110 GFLOP/s a
# core of a Zen 5, where oneDNN makes 250. On a Zen 4 they are level; on Intel's own, and where there is no AVX-512,
# oneDNN is the slower (docs/training-speed.md).
PROCESSOR = str(getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name", ""))  # torch 2.10 does not tell
IS_INTEL = PROCESSOR.startswith("Intel")
HAS_AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
HAS_QUICK_PRODUCTS = torch.backends.mkldnn.is_available() and HAS_AVX512 and not IS_INTEL


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Computes x W^T + b as `nn.functional.linear` does: (..., in) to (..., out)."""
    is_quick = HAS_QUICK_PRODUCTS and x.numel() > 0 and _is_plain_float32(x) and _is_plain_float32(weight)
    if not is_quick:
        return nn.functional.linear(x, weight, bias)
    return _Product.apply(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], len(weight))


def _is_plain_float32(x: Tensor) -> bool:
    """Whether these are numbers on the CPU that autocast leaves as they are, not a shard or another stand-in."""
    is_plain = x.device.type == "cpu" and type(x) in (Tensor, nn.Parameter)
    return is_plain and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


class _Product(torch.autograd.Function):
    """(rows, in) to (rows, out). Its gradients are products of the same kind, which can be differentiated in turn."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _multiply(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        # Through autograd only where this is to be differentiated in turn: that takes 30 µs more, each time.
        multiply = _Product.apply if torch.is_grad_enabled() else _multiply
        d_x = multiply(d_y, weight.T, None) if of_x else None
        d_weight = _gradient_of_weight(x, d_y, multiply) if of_weight else None
        return d_x, d_weight, d_y.sum(0) if of_bias else None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *operands: Tensor | None) -> tuple[Tensor, int]:
        # oneDNN's would be called for one after another.
        return torch.vmap(nn.functional.linear, in_dims)(*operands), 0


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _gradient_of_weight(x: Tensor, d_y: Tensor, multiply: Callable[..., Tensor]) -> Tensor:
    """(rows, in) and (rows, out) to (out, in). oneDNN copies what comes first, as it lies transposed: the narrower."""
    is_wider = d_y.shape[1] > x.shape[1]
    return multiply(x.T, d_y.T, None).T if is_wider else multiply(d_y.T, x.T, None)
