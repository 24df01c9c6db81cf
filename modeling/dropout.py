"""Dropout (§5.4)."""

import torch
from torch import Tensor, nn

BITS = 16  # random bits to a number: rates are met to 2^-17, and the scale is that of the rate met


class Dropout(nn.Dropout):
    """Zeroes each number with probability p, and divides the others by 1 - p.

    `nn.Dropout`, but that on a CPU the random numbers are made four at a time.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        if not self.training or self.p == 0.0 or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        dropped = round(self.p * 2**BITS)  # of the 2^BITS values of a random number
        numbers = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = numbers[: x.numel()].view(x.shape) >= dropped - 2 ** (BITS - 1)
        return x * (kept * (2**BITS / (2**BITS - dropped))).to(x.dtype)
