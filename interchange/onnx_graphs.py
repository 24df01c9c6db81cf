"""The two graphs of an ONNX model: what each computes, and how it is written.

- `encoder.onnx`: `input_ids`, `attention_mask` (batch, source_len) to `memory_key_I`, `memory_value_I`: the memory as
  each layer of the decoder reads it, projected once (batch, heads, source_len, d).
- `decoder.onnx`: `decoder_input_ids` (batch, target_len), `attention_mask`, these, and `past_key_I`, `past_value_I`
  (batch, heads, past_len, d; past_len 0 at first) to `logits` (batch, target_len, vocabulary), `present_key_I` and
  `present_value_I`.

transformers' own `export_for_generation` (5.23) was tried: it fixed the length of the decoder's cache at 1.
"""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformer2017.modeling import Transformer2017ForConditionalGeneration
from transformer2017.modeling.translation_review import eager_attention
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

OPSET = 18


class EncoderGraph(nn.Module):
    """Source ids to the keys and values of the memory that each layer of the decoder reads."""

    def __init__(self, model: Transformer2017ForConditionalGeneration) -> None:
        super().__init__()
        self.encoder, self.layers = model.model.encoder, model.model.decoder.layers
        self.num_heads = model.config.num_heads

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Key and value of each layer in turn (batch, heads, source_len, d)."""
        memory = self.encoder(input_ids, attention_mask).last_hidden_state  # (batch, source_len, d_model)
        attentions = [layer.encoder_decoder_attention for layer in self.layers]
        projected = [w(memory) for attention in attentions for w in (attention.w_k, attention.w_v)]
        return tuple(states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for states in projected)


class DecoderGraph(nn.Module):
    """New target ids, and keys and values of the memory and of earlier ids, to logits and the longer cache."""

    def __init__(self, model: Transformer2017ForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, decoder_input_ids: torch.Tensor, attention_mask: torch.Tensor, caches: list[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        """`caches`: key and value of the memory for each layer, then of the earlier ids for each layer."""
        pairs = list(zip(caches[::2], caches[1::2], strict=True))
        layers = len(pairs) // 2
        past = EncoderDecoderCache(DynamicCache(pairs[layers:]), DynamicCache(pairs[:layers]))
        past.is_updated = dict.fromkeys(range(layers), True)
        # Its values are not read, as keys and values of the memory are in the cache; its length is.
        memory = caches[0].transpose(1, 2)[..., 0, :1] * torch.zeros(self.model.config.d_model)
        outputs = self.model(
            decoder_input_ids=decoder_input_ids,
            attention_mask=attention_mask,
            encoder_outputs=BaseModelOutput(last_hidden_state=memory),
            past_key_values=past,
            use_cache=True,
        )
        present = [states for layer in past.self_attention_cache.layers for states in (layer.keys, layer.values)]
        return outputs.logits, *present


def write_graphs(model: Transformer2017ForConditionalGeneration, folder: Path) -> None:
    """Writes `encoder.onnx` and `decoder.onnx` into a folder, in float32, for any batch and any lengths."""
    with eager_attention(model):  # for graphs without a fused operator
        _write(EncoderGraph(model), folder / "encoder.onnx", *_encoder_example(model))
        _write(DecoderGraph(model), folder / "decoder.onnx", *_decoder_example(model))


def _encoder_example(model: Transformer2017ForConditionalGeneration) -> tuple[Any, ...]:
    """Example inputs, their names, the outputs' names, and which axes may have any length."""
    names = [f"memory_{kind}_{layer}" for layer in range(model.config.decoder_layers) for kind in ("key", "value")]
    batch, source = torch.export.Dim("batch"), torch.export.Dim("source_len")
    ids = torch.full((2, 5), 3)
    axes = {"input_ids": {0: batch, 1: source}, "attention_mask": {0: batch, 1: source}}
    return (ids, torch.ones_like(ids)), ["input_ids", "attention_mask"], names, axes


def _decoder_example(model: Transformer2017ForConditionalGeneration) -> tuple[Any, ...]:
    config = model.config
    batch, source = torch.export.Dim("batch"), torch.export.Dim("source_len")
    target, past = torch.export.Dim("target_len"), torch.export.Dim("past_len")
    layers = range(config.decoder_layers)
    widths = {"key": config.d_k, "value": config.d_v}
    caches, cache_names, cache_axes = [], [], []
    for kind, length, axis in (("memory", 5, source), ("past", 4, past)):
        for layer in layers:
            for part, width in widths.items():
                caches.append(torch.zeros(2, config.num_heads, length, width))
                cache_names.append(f"{kind}_{part}_{layer}")
                cache_axes.append({0: batch, 2: axis})
    axes = {
        "decoder_input_ids": {0: batch, 1: target},
        "attention_mask": {0: batch, 1: source},
        "caches": cache_axes,
    }
    outputs = ["logits", *(f"present_{part}_{layer}" for layer in layers for part in widths)]
    example = (torch.full((2, 3), 3), torch.ones(2, 5, dtype=torch.long), caches)
    return example, ["decoder_input_ids", "attention_mask", *cache_names], outputs, axes


def _write(graph: nn.Module, path: Path, example: Any, inputs: list[str], outputs: list[str], axes: Any) -> None:
    """Exports one graph, weights inside."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter's own future
        torch.onnx.export(
            graph.eval(),
            example,
            str(path),
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=axes,
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
