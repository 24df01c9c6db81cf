"""Batches without their padding. Only attention (§3.2) needs to know which tokens make a sentence."""

from typing import Any

import torch
from torch import Tensor

WORTHWHILE = 0.1  # share of padding from which leaving it out gains more than the moves to and fro cost
MULTIPLE = 64  # rows are rounded up to this: kernels are chosen, and on a CPU made, for each new shape


class Packing:
    """The real tokens of a padded batch as the rows of a matrix, for all that treats each position by itself.

    Args:
        mask: 1 for a token, 0 for padding (batch, length).
    """

    def __init__(self, mask: Tensor) -> None:
        self.shape = mask.shape
        self.ends_with_padding = bool((mask[:, 1:] <= mask[:, :-1]).all())  # and has none elsewhere
        places = mask.flatten().nonzero().squeeze(-1)  # of each token in the padded batch (tokens,)
        self.tokens = len(places)
        self.pays = self.tokens <= (1 - WORTHWHILE) * mask.numel()
        rows = (self.tokens // MULTIPLE + 1) * MULTIPLE  # the last one or more belong to no token
        self.places = torch.nn.functional.pad(places, (0, rows - self.tokens))  # (rows,)
        self.rows = places.new_full((mask.numel(),), rows - 1)  # of each place in the matrix (batch * length,)
        self.rows[places] = torch.arange(self.tokens, device=mask.device)

    def pack(self, x: Tensor) -> Tensor:
        """(batch, length, d) to (rows, d)."""
        return _Pack.apply(x.flatten(0, 1), self)

    def unpack(self, x: Tensor) -> Tensor:
        """(rows, d) to (batch, length, d), with the last row of `x`, which belongs to no token, as padding."""
        return _Unpack.apply(x, self).unflatten(0, self.shape)


class _Pack(torch.autograd.Function):
    """Rows that belong to no token are copies of the first place; they give no gradient back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return x.index_select(0, packing.places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.index_select(0, ctx.packing.rows)
        return gradient, None


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return x.index_select(0, packing.rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.index_select(0, ctx.packing.places)
        gradient[ctx.packing.tokens :] = 0
        return gradient, None
