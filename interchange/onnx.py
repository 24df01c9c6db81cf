"""ONNX out: an encoder and a decoder with its cache, for onnxruntime, in float32 or int8.

Two graphs, so that decoding is a loop around one of them:

- `encoder.onnx`: `input_ids`, `attention_mask` (batch, source_len) to `memory_key_I`, `memory_value_I`: the memory as
  each layer of the decoder reads it, projected once (batch, heads, source_len, d).
- `decoder.onnx`: `decoder_input_ids` (batch, target_len), `attention_mask`, these, and `past_key_I`, `past_value_I`
  (batch, heads, past_len, d; past_len 0 at first) to `logits` (batch, target_len, vocabulary), `present_key_I` and
  `present_value_I`.

transformers' own `export_for_generation` (5.23) was tried: it fixed the length of the decoder's cache at 1.
"""

import contextlib
import io
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformer2017.configuration import UsageError
from transformer2017.modeling import Transformer2017ForConditionalGeneration
from transformers import PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from .report import (
    Report,
    Sources,
    Specials,
    batches,
    logits_of,
    longest_translation,
    padded,
    shifted,
    sources_or_samples,
    without_frame,
)

QUANTIZATIONS = ("float32", "int8")
TOLERANCE = 1e-4
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


def load_libraries() -> tuple[Any, Any]:
    """Imports onnx and onnxruntime, and sees that onnxscript is there.

    Raises:
        UsageError: If one is not installed.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'transformer2017[interchange]'") from error
    return onnx, onnxruntime


def export_onnx(
    model: Transformer2017ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase | None,
    output_dir: str | Path,
    quantization: str = "float32",
    sources: Sources | None = None,
) -> Report:
    """Writes `encoder.onnx` and `decoder.onnx`, config and tokenizer, and compares what onnxruntime makes of them.

    Raises:
        UsageError: If a library is missing.
        RunError: If logits in float32 differ.
    """
    load_libraries()
    if quantization not in QUANTIZATIONS:
        raise UsageError(f"--quantization must be float32 or int8 for ONNX, not {quantization!r}.")
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with eager_attention(model):
        _write(EncoderGraph(model), folder / "encoder.onnx", *_encoder_example(model))
        _write(DecoderGraph(model), folder / "decoder.onnx", *_decoder_example(model))
    if quantization == "int8":
        for half in ("encoder", "decoder"):
            _quantize(folder / f"{half}.onnx")
    model.config.to_json_file(folder / "config.json")
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    report = Report(f"onnx export ({quantization})")
    _compare(report, model, OnnxModel(folder), quantization, sources)
    return report


@contextlib.contextmanager
def eager_attention(model: Transformer2017ForConditionalGeneration) -> Iterator[None]:
    """Writes attention out as the formula while it is exported, for graphs without a fused operator."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


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


def _quantize(path: Path) -> None:
    """Replaces a graph by one whose matrices are int8, and whose activations are quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = path.with_suffix(".int8.onnx")
    quantize_dynamic(str(path), str(small), weight_type=QuantType.QInt8)
    shutil.move(small, path)


class OnnxModel:
    """Runs an exported folder by onnxruntime: the loop that whoever serves it writes."""

    def __init__(self, folder: str | Path) -> None:
        _, runtime = load_libraries()
        self.config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        self.encoder, self.decoder = (
            runtime.InferenceSession(str(Path(folder) / f"{half}.onnx"), providers=["CPUExecutionProvider"])
            for half in ("encoder", "decoder")
        )

    def encode(self, source: dict[str, torch.Tensor]) -> dict[str, Any]:
        """The inputs of the decoder that stay the same: the mask, and keys and values of the memory."""
        mask = source["attention_mask"].numpy()
        names = [output.name for output in self.encoder.get_outputs()]
        values = self.encoder.run(None, {"input_ids": source["input_ids"].numpy(), "attention_mask": mask})
        return {"attention_mask": mask, **dict(zip(names, values, strict=True))}

    def empty_cache(self, batch: int) -> dict[str, Any]:
        """A cache of no tokens."""
        shapes = {entry.name: entry.shape for entry in self.decoder.get_inputs() if entry.name.startswith("past_")}
        return {name: torch.zeros(batch, shape[1], 0, shape[3]).numpy() for name, shape in shapes.items()}

    def step(self, ids: torch.Tensor, memory: dict[str, Any], cache: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        """Logits of new ids (batch, new, vocabulary), and the cache with them."""
        names = [output.name for output in self.decoder.get_outputs()]
        values = self.decoder.run(None, {"decoder_input_ids": ids.numpy(), **memory, **cache})
        outputs = dict(zip(names, values, strict=True))
        logits = torch.from_numpy(outputs.pop("logits"))
        return logits, {name.replace("present", "past"): value for name, value in outputs.items()}

    def greedy(self, source: dict[str, torch.Tensor], max_new_tokens: int) -> list[list[int]]:
        """Greedy translations, one token a step, with start and end."""
        memory = self.encode(source)
        batch = len(source["input_ids"])
        cache = self.empty_cache(batch)
        ids = torch.full((batch, 1), self.config["decoder_start_token_id"])
        sequences = ids
        for _ in range(max_new_tokens):
            logits, cache = self.step(ids, memory, cache)
            ids = logits[:, -1].argmax(-1, keepdim=True)
            sequences = torch.cat([sequences, ids], dim=-1)
            if (sequences == self.config["eos_token_id"]).any(-1).all():
                break
        return sequences.tolist()


def _compare(
    report: Report,
    model: Transformer2017ForConditionalGeneration,
    exported: OnnxModel,
    quantization: str,
    sources: Sources | None,
) -> None:
    """Compares logits, one token a step through the cache, and greedy translations.

    Raises:
        RunError: If logits in float32 differ.
    """
    specials = Specials.of(model.config)
    sources = sources_or_samples(report, model.config, sources)
    targets = shifted(sources, specials.start)
    ours = logits_of(model, sources, targets, specials.pad)
    theirs = stepwise_logits(exported, sources, targets, specials.pad)
    report.compare_logits(zip(ours, theirs, strict=True), TOLERANCE if quantization == "float32" else None)
    longest = longest_translation(model)
    sequences = [row for some in batches(sources) for row in exported.greedy(padded(some, specials.pad), longest)]
    report.compare_translations(model, sources, [without_frame(row, specials) for row in sequences], longest)


def stepwise_logits(exported: OnnxModel, sources: Sources, targets: Sources, pad: int) -> Iterator[torch.Tensor]:
    """Logits of each sentence's target: its first two tokens at once, then one a step (target_len, vocabulary)."""
    for some, wanted in zip(batches(sources), batches(targets), strict=True):
        memory = exported.encode(padded(some, pad))
        ids = padded(wanted, pad)["input_ids"]
        cache, steps = exported.empty_cache(len(some)), []
        for new in (ids[:, :2], *ids[:, 2:].split(1, dim=1)):
            if new.shape[1]:
                logits, cache = exported.step(new, memory, cache)
                steps.append(logits)
        whole = torch.cat(steps, dim=1).double()
        yield from (row[: len(target)] for row, target in zip(whole, wanted, strict=True))
