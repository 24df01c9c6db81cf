"""The weights of a model in the form that decodes fastest, made once and again when they change."""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from .decoding_step import DecodingStep


class FusedWeights(NamedTuple):
    """What is remembered of a model: its weights, fused, and by what it shows that they have changed.

    Attributes:
        places: Where the weights lie, and how often torch saw them change; what stands around them.
        views: Some values of each, for changes that torch does not see, such as those through `.data`.
        values: What these were.
        step: The weights, fused.
    """

    places: list[tuple]
    views: list[torch.Tensor]
    values: torch.Tensor
    step: DecodingStep


_fused: WeakKeyDictionary[nn.Module, FusedWeights] = WeakKeyDictionary()


def decoding_step(model: nn.Module) -> DecodingStep:
    """The fused weights of a model for `generate()`, kept as long as the model is, and made anew when they changed."""
    known = _fused[model] = fused_weights(model, _fused.get(model), encoder=model.device.type == "cpu")
    return known.step


def fused_weights(
    model: nn.Module, known: FusedWeights | None = None, *, int8: bool = False, encoder: bool = True
) -> FusedWeights:
    """What is known of a model's weights if they have not changed since, or what they are now.

    Args:
        model: A `Transformer2017ForConditionalGeneration`.
        known: What the same call gave before.
        int8: Quantises the weights of the linear maps.
        encoder: Whether to take the encoder as well.
    """
    read = [model.model.decoder, model.lm_head, *([model.model.encoder] if encoder else [])]
    weights = list(dict.fromkeys(weight for part in read for weight in part.parameters()))  # the shared matrix once
    places = [(weight.data_ptr(), _version(weight), weight.dtype) for weight in weights]
    modules = [module for part in read for module in part.modules()]
    places += [(type(module), vars(module).get("scaling"), vars(module).get("eps")) for module in modules]
    if known is not None and known.places == places and torch.equal(torch.cat(known.views), known.values):
        return known
    shared = model.model.shared.weight
    views = [_sample(weight.detach(), of_each_row=weight is shared) for weight in weights]
    return FusedWeights(places, views, torch.cat(views), DecodingStep(model, int8=int8, encoder=encoder))


def _version(weight: torch.Tensor) -> int | None:
    """How often torch saw it change; None where torch does not count."""
    return None if weight.is_inference() else weight._version


def _sample(weight: torch.Tensor, of_each_row: bool) -> torch.Tensor:
    """A view of some of its numbers: all of a vector; of a matrix one of each row, or some 64 from all over it.

    Those of each row tell of a word that alone was changed. All would cost more than they are worth: each number lies
    in another line of the processor's cache.
    """
    if weight.dim() == 1:
        return weight
    rows, columns = weight.shape
    stride = max(min(rows, columns) - 1, 1)
    if not of_each_row and rows >= 128:
        stride = (rows // 64 * columns + columns * 5 // 8) | 1  # by turns in all columns
    return weight.flatten()[::stride]
