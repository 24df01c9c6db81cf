"""Linear maps in the forms that decode fastest. The weights that are saved keep their form; these are copies."""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

from .quick_products import IS_INTEL

Linear = Callable[[torch.Tensor], torch.Tensor]


class PlainLinear:
    """x W^T + b with the weights as they are, and the ReLU that may follow."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, relu: bool = False) -> None:
        self.weight = weight
        self.bias = bias
        self.relu = relu

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, in) to (rows, out)."""
        y = F.linear(x, self.weight, self.bias)
        return F.relu_(y) if self.relu else y


class FewRowsLinear:
    """The same on the CPU for few rows in float32, with the longer side of the weights contiguous in memory.

    In a single row each weight is used once, and reading them is what takes the time: 0.18 ms for 1536 x 512, and
    0.31 ms with the shorter side contiguous. Several rows on an Intel processor have the outputs contiguous
    (docs/decoding.md).
    """

    ROWS = 64 if IS_INTEL else 1  # up to here MKL is quicker than oneDNN, on Intel's own by up to three times

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, relu: bool = False) -> None:
        outputs, inputs = weight.shape
        self.weight = weight.t().contiguous() if outputs >= inputs or self.ROWS > 1 else weight.t()
        self.bias = bias
        self.relu = relu

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, in) to (rows, out)."""
        y = torch.mm(x, self.weight) if self.bias is None else torch.addmm(self.bias, x, self.weight)
        return F.relu_(y) if self.relu else y


class PackedLinear:
    """The same on the CPU, with weights laid out once for oneDNN: float32, or bfloat16 between float32 activations.

    At 4 rows against 8,000 words the packed product takes a fifth of the plain one's time; at one row, and on an
    Intel processor at several, the plain one is the quicker, unless the matrix is large (docs/decoding.md).
    """

    LARGE = 1 << 18  # weights

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, relu: bool = False) -> None:
        self.dtype = weight.dtype
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self.bias = bias
        self.after = "relu" if relu else "none"
        small = weight.dtype == torch.float32 and weight.numel() <= self.LARGE
        self.few_rows = FewRowsLinear(weight, bias, relu) if small else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, in) to (rows, out), in the type of x."""
        if self.few_rows is not None and len(x) <= FewRowsLinear.ROWS:
            return self.few_rows(x)
        y = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.packed, self.bias, self.after, [], "")
        return y.to(x.dtype)


class Int8Linear:
    """The same on the CPU with 8-bit weights, a scale for each output, and inputs quantised as they come."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, relu: bool = False) -> None:
        weight = weight.float()
        scales = weight.abs().amax(1).clamp(min=1e-8) / 127.0
        zero_points = torch.zeros(weight.shape[0], dtype=torch.long)
        self.reduce_range = not torch.cpu._is_vnni_supported()  # else 16-bit sums would overflow
        with warnings.catch_warnings():  # torch 2.13 means to replace its quantised tensors, and has no successor yet
            warnings.simplefilter("ignore")
            quantised = torch.quantize_per_channel(weight, scales, zero_points, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(quantised, None if bias is None else bias.float())
        self.multiply = torch.ops.quantized.linear_relu_dynamic if relu else torch.ops.quantized.linear_dynamic

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, in) to (rows, out), float32."""
        return self.multiply(x, self.packed, self.reduce_range)


def linear_form(weight: torch.Tensor, *, int8: bool = False) -> Callable[..., Linear]:
    """The form for weights of this type on their device.

    Raises:
        ValueError: If int8 is asked for anywhere but on the CPU.
    """
    on_cpu = weight.device.type == "cpu"
    if int8 and not on_cpu:
        raise ValueError(f"int8 decoding runs on the CPU only, and the model is on {weight.device}.")
    if int8:
        return Int8Linear
    packs = on_cpu and torch.backends.mkldnn.is_available() and weight.dtype in (torch.float32, torch.bfloat16)
    form = PackedLinear if packs else PlainLinear
    if not on_cpu or weight.dtype != torch.bfloat16 or (packs and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return form
    return partial(_widened, form)


def _widened(
    form: Callable[..., Linear], weight: torch.Tensor, bias: torch.Tensor | None, relu: bool = False
) -> Linear:
    """bfloat16 weights in float32, for a CPU that cannot multiply them, or only slowly."""
    return form(weight.float(), None if bias is None else bias.float(), relu)
