"""ONNX out: an encoder and a decoder with its cache, for onnxruntime, in float32 or int8.

Two graphs, so that decoding is a loop around one of them; `OnnxModel` is that loop, and what the export is checked by.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformer2017.configuration import UsageError
from transformer2017.modeling import Transformer2017ForConditionalGeneration
from transformers import PreTrainedTokenizerBase

from .layout import save_tokenizer, with_forbidden_tokens
from .onnx_graphs import write_graphs
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
    without_settings,
)

QUANTIZATIONS = ("float32", "int8")
TOLERANCE = 1e-4


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
    model = with_forbidden_tokens(model)
    write_graphs(model, folder)
    if quantization == "int8":
        for half in ("encoder", "decoder"):
            _quantize(folder / f"{half}.onnx")
    model.config.to_json_file(folder / "config.json")
    model.generation_config.save_pretrained(folder)
    if tokenizer is not None:
        save_tokenizer(tokenizer, folder)
    report = Report(f"onnx export ({quantization})")
    report.note("the search is the caller's: what the model's own does is in generation_config.json")
    _compare(report, model, OnnxModel(folder), quantization, sources)
    return report


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
            if (sequences[:, 1:] == self.config["eos_token_id"]).any(-1).all():
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
    is_exact = quantization == "float32"
    report.compare_logits(zip(ours, theirs, strict=True), TOLERANCE if is_exact else None)
    longest = longest_translation(model)
    sequences = [row for some in batches(sources) for row in exported.greedy(padded(some, specials.pad), longest)]
    translations = [without_frame(row, specials) for row in sequences]
    report.compare_translations(without_settings(model), sources, translations, longest, must_agree=is_exact)


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
