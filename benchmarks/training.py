"""Training speed and memory beside MarianMT, on the user's own lines.

    python benchmarks/training.py --source train.en --target train.de --shape s

Real target tokens (no padding) per second of forward, backward and fused Adam, dropout 0.1, one shared BPE
vocabulary of 8,000. Contestants take turns batch by batch, each repetition on batches that none has seen. Numbers
are medians over repetitions, ratios medians of the ratios of one repetition. Peak memory is that of a process of its
own for each contestant. Both sides run in one process under the same settings of glibc's allocator.
"""

import argparse
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformer2017 import Transformer2017Config, Transformer2017ForConditionalGeneration
from transformer2017.modeling.freed_memory import keep_freed_memory
from transformer2017.training.batching import Collator, TokenBatchSampler
from transformer2017.training.device import bfloat16_is_quick
from transformers import MarianConfig, MarianMTModel

VOCABULARY = 8000
PAD, START, END = 0, 1, 2
SHAPES = {  # d_model, d_ff, heads, layers on each side
    "s": (256, 1024, 4, 3),
    "b": (512, 2048, 8, 6),
}
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Contestant:
    """A model in one way of training it."""

    model: Callable[[str], torch.nn.Module]  # from the name of a shape
    bfloat16: bool  # autocast
    like_lengths: bool  # or random batches of 64, as `Seq2SeqTrainer` draws them


def marian(shape: str, dropout: float = 0.1) -> MarianMTModel:
    """MarianMT, with dropout where the paper has it."""
    d_model, d_ff, heads, layers = SHAPES[shape]
    sides = {
        f"{side}_{name}": size
        for side in ("encoder", "decoder")
        for name, size in {"ffn_dim": d_ff, "attention_heads": heads, "layers": layers}.items()
    }
    return MarianMTModel(
        MarianConfig(
            vocab_size=VOCABULARY,
            d_model=d_model,
            **sides,
            activation_function="relu",
            dropout=dropout,
            attention_dropout=0.0,
            activation_dropout=0.0,
            scale_embedding=True,
            max_position_embeddings=512,
            pad_token_id=PAD,
            decoder_start_token_id=START,
            eos_token_id=END,
            forced_eos_token_id=END,
        )
    )


def ours(shape: str, dropout: float = 0.1) -> Transformer2017ForConditionalGeneration:
    """The model of this package."""
    d_model, d_ff, heads, layers = SHAPES[shape]
    sizes = {"d_model": d_model, "d_ff": d_ff, "num_heads": heads, "encoder_layers": layers, "decoder_layers": layers}
    config = Transformer2017Config(vocab_size=VOCABULARY, dropout=dropout, **sizes)
    return Transformer2017ForConditionalGeneration(config)


CONTESTANTS = {
    "MarianMT, Seq2SeqTrainer's defaults": Contestant(marian, bfloat16=False, like_lengths=False),
    "MarianMT, like lengths, float32": Contestant(marian, bfloat16=False, like_lengths=True),
    "MarianMT, like lengths, bfloat16": Contestant(marian, bfloat16=True, like_lengths=True),
    "transformer2017, Seq2SeqTrainer's defaults": Contestant(ours, bfloat16=False, like_lengths=False),
    "transformer2017, like lengths, float32": Contestant(ours, bfloat16=False, like_lengths=True),
    "transformer2017, like lengths, bfloat16": Contestant(ours, bfloat16=True, like_lengths=True),
}
COMPARISONS = [  # each with what the first is compared to
    ("transformer2017, like lengths, bfloat16", "MarianMT, Seq2SeqTrainer's defaults"),
    ("transformer2017, like lengths, bfloat16", "MarianMT, like lengths, bfloat16"),
    ("transformer2017, like lengths, float32", "MarianMT, Seq2SeqTrainer's defaults"),
    ("transformer2017, like lengths, float32", "MarianMT, like lengths, float32"),
    ("transformer2017, Seq2SeqTrainer's defaults", "MarianMT, Seq2SeqTrainer's defaults"),
]


def learned_tokenizer(source: Path, target: Path) -> Tokenizer:
    """One BPE vocabulary of both sides."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special_tokens = ["<pad>", "<s>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special_tokens, show_progress=False)
    tokenizer.train_from_iterator(lines_of(source) + lines_of(target), trainer)
    return tokenizer


def read_pairs(source: Path, target: Path, tokenizer: Tokenizer | None = None) -> list[dict[str, list[int]]]:
    """Lines to token ids, by a vocabulary learned from them if none is given."""
    tokenizer = tokenizer or learned_tokenizer(source, target)
    sides = [
        [[*encoding.ids, END] for encoding in tokenizer.encode_batch(lines_of(side))] for side in (source, target)
    ]
    return [{"input_ids": x, "labels": y} for x, y in zip(*sides, strict=True)]


def lines_of(path: Path) -> list[str]:
    """Of a text file."""
    return path.read_text(encoding="utf-8").splitlines()


def batches_of(pairs: list[dict[str, list[int]]], batch_tokens: int | None) -> list[Batch]:
    """Padded batches: of like lengths within a budget of tokens, or of 64 random pairs if there is none."""
    collate = Collator(PAD)
    if batch_tokens is None:
        order = random.Random(2017).sample(range(len(pairs)), len(pairs))
        rows = [order[i : i + 64] for i in range(0, len(order), 64)]
    else:
        lengths = (np.array([len(pair[side]) for pair in pairs]) for side in ("input_ids", "labels"))
        rows = list(TokenBatchSampler(*lengths, batch_tokens))
    return [collate([pairs[i] for i in row]) for row in rows]


def stepper(contestant: Contestant, shape: str) -> Callable[[Batch], None]:
    """One step of training: forward, backward, fused Adam."""
    torch.manual_seed(2017)
    model = contestant.model(shape).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9, fused=True)

    def step(batch: Batch) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=contestant.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def race(names: list[str], batches: dict[bool, list[Batch]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Tokens per second of each contestant in each repetition."""
    steps = {name: stepper(CONTESTANTS[name], options.shape) for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    for repetition in range(options.repetitions + 1):  # the first warms up
        tokens, seconds = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
        for turn in range(options.batches):
            for name in names:
                row = batches[CONTESTANTS[name].like_lengths]
                batch = row[(repetition * options.batches + turn) % len(row)]
                start = time.perf_counter()
                steps[name](batch)
                seconds[name] += time.perf_counter() - start
                tokens[name] += int((batch["labels"] >= 0).sum())
        if repetition:
            for name in names:
                rates[name].append(tokens[name] / seconds[name])
    return rates


def peak_memory(name: str, batches: list[Batch], shape: str) -> float:
    """MiB of a process of its own, at most, while it trains on these batches."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "batches.pt"
        torch.save(batches, file)
        command = [sys.executable, __file__, "--memory_of", name, "--shape", shape, "--source", file, "--target", file]
        return float(subprocess.check_output(command))


def own_peak_memory(name: str, batches: list[Batch], shape: str) -> float:
    """MiB of this process, at most, from now on."""
    step = stepper(CONTESTANTS[name], shape)
    for batch in batches:
        step(batch)
    status = Path("/proc/self/status").read_text()  # getrusage would tell of the parent's as well
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, default="s")
    parser.add_argument("--batch_tokens", type=int, default=2048, help="of a batch of like lengths")
    parser.add_argument("--batches", type=int, default=5, help="in a repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--contestants",
        nargs="+",
        choices=CONTESTANTS,
        default=[name for name in CONTESTANTS if bfloat16_is_quick(use_cpu=True) or not CONTESTANTS[name].bfloat16],
        help="all, but bfloat16 only where the processor multiplies it, if not given",
    )
    parser.add_argument("--memory_of", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_freed_memory()
    if options.memory_of:
        print(own_peak_memory(options.memory_of, torch.load(options.source), options.shape))
        return
    pairs = read_pairs(options.source, options.target)
    batches = {False: batches_of(pairs, None), True: batches_of(pairs, options.batch_tokens)}
    rates = race(options.contestants, batches, options)
    print(f"shape {options.shape}, {options.batch_tokens} tokens a batch, {torch.get_num_threads()} threads")
    for name, values in rates.items():
        low, high = min(values), max(values)
        print(f"{name:44} {statistics.median(values):8.0f} tokens/s ({low:.0f} to {high:.0f})", flush=True)
    compared = [pair for pair in COMPARISONS if set(pair) <= set(rates)]
    for one, other in compared:
        ratios = [a / b for a, b in zip(rates[one], rates[other], strict=True)]
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{one} / {other}: speed {statistics.median(ratios):.2f} {spread}", flush=True)
    for one, other in compared:
        mine, theirs = (
            peak_memory(name, batches[CONTESTANTS[name].like_lengths][:5], options.shape) for name in (one, other)
        )
        print(f"{one} / {other}: peak memory {mine / theirs:.2f} ({mine:.0f} and {theirs:.0f} MiB)", flush=True)


if __name__ == "__main__":
    main()
