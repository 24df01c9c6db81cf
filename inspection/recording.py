"""What passes through the real modules in one forward pass: inputs, outputs, and attention's inner values."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

RECORDED = "transformer2017_recorded"


@dataclass(frozen=True)
class AttentionValues:
    """One use of attention (§3.2.1), of one sentence: every tensor is without its batch axis, in float32."""

    query: torch.Tensor  # (heads, target_len, d_k)
    key: torch.Tensor  # (heads, source_len, d_k)
    value: torch.Tensor  # (heads, source_len, d_v)
    mask: torch.Tensor | None  # (1, target_len, source_len): 0, or very negative where the key is hidden
    scaling: float  # 1 / sqrt(d_k)
    heads: torch.Tensor  # (target_len, heads, d_v)
    weights: torch.Tensor  # (heads, target_len, source_len)


@dataclass
class Recording:
    """Values by the module's name in the model, such as `model.encoder.layers.0.self_attention`."""

    attention: dict[str, AttentionValues] = field(default_factory=dict)
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)


@contextmanager
def recording(model: PreTrainedModel) -> Iterator[Recording]:
    """Records every module of the model while the block runs; the model computes exactly what it does otherwise.

    Attention is recorded where transformers lets others take its place (`AttentionInterface`): the function that
    stands in notes what it is given and calls the model's own `scaled_dot_product_attention`. All else is read by
    forward hooks. The model is not to be used by another thread meanwhile.
    """
    record = Recording()
    names = {module: name for name, module in model.named_modules()}
    usual = model.config._attn_implementation
    AttentionInterface.register(RECORDED, _noting_attention(record, names))
    AttentionMaskInterface.register(RECORDED, eager_mask)
    hooks = [module.register_forward_hook(_noting_hook(record, name)) for module, name in names.items()]
    model.set_attn_implementation(RECORDED)
    try:
        yield record
    finally:
        model.set_attn_implementation(usual)
        for hook in hooks:
            hook.remove()


def _noting_attention(record: Recording, names: dict[nn.Module, str]) -> Any:
    def attend(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        own = sys.modules[type(module).__module__].scaled_dot_product_attention
        heads, weights = own(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)
        q, k, v, h, w = (_first(x) for x in (query, key, value, heads, weights))
        mask = None if attention_mask is None else _first(attention_mask)
        record.attention[names[module]] = AttentionValues(q, k, v, mask, scaling, h, w)
        return heads, weights

    return attend


def _noting_hook(record: Recording, name: str) -> Any:
    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if args and torch.is_tensor(args[0]):
            record.inputs[name] = _first(args[0])
        result = output[0] if isinstance(output, tuple) else output
        if torch.is_tensor(result):
            record.outputs[name] = _first(result)

    return note


def _first(x: torch.Tensor) -> torch.Tensor:
    """The first sentence of the batch, apart from the model's own memory."""
    x = x.detach()[0] if x.dim() else x.detach()
    return (x.float() if x.is_floating_point() else x).cpu().clone()
