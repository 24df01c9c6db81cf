r"""What a plain loop around MarianMT reaches, and when: the peer of the times in docs/results.

    python benchmarks/plain_loop.py --train_source train.en --train_target train.de --validation_source val.en \
        --validation_target val.de --test_source test.en --test_target test.de --epochs 24

Shape s (3+3 x 256), the 8,000 subwords that `train` makes of the same files, batches of like lengths, bfloat16
autocast and fused Adam, in one process on as many threads as torch takes. The rate rises over `--warmup_steps` and
falls to 0 with the last update. The clock is that of the wall, and stands still while BLEU is found.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from initialisation import smoothed_loss
from quality import bleu
from transformer2017.modeling.freed_memory import keep_freed_memory
from transformer2017.training.arguments import TokenizerArguments
from transformer2017.training.batching import Collator, TokenBatchSampler
from transformer2017.training.tokenization import train_tokenizer
from transformers import MarianMTModel, PreTrainedTokenizerBase, get_linear_schedule_with_warmup

from training import PAD, VOCABULARY, Batch, lines_of, marian

POINTS = 12  # of the curve
PARTS = ("train", "validation", "test")


class Epochs:
    """Batches of like lengths, anew in each epoch."""

    def __init__(self, sources: list[list[int]], targets: list[list[int]], batch_tokens: int) -> None:
        self.pairs = [{"input_ids": x, "labels": y} for x, y in zip(sources, targets, strict=True)]
        lengths = (np.array([*map(len, side)]) for side in (sources, targets))
        self.sampler = TokenBatchSampler(*lengths, batch_tokens)

    def batches(self, epochs: int) -> Iterator[Batch]:
        """All of them, one after the other."""
        collate = Collator(PAD)
        for epoch in range(epochs):
            self.sampler.set_epoch(epoch)
            for rows in self.sampler:
                yield collate([self.pairs[row] for row in rows])


def train(
    options: argparse.Namespace,
    tokenizer: PreTrainedTokenizerBase,
    sides: tuple[list[str], list[str]],
    validation: tuple[list[str], list[str]],
) -> MarianMTModel:
    """A model, trained on sources and targets; prints its curve."""
    epochs = Epochs(*(tokenizer(side)["input_ids"] for side in sides), options.batch_tokens)
    updates = len(epochs.sampler) * options.epochs
    torch.manual_seed(2017)
    model = marian("s", options.dropout).train()
    model.generation_config.length_penalty = 0.6
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.rate, betas=(0.9, 0.98), eps=1e-9, weight_decay=0, fused=True
    )
    schedule = get_linear_schedule_with_warmup(optimizer, options.warmup_steps, updates)
    points = {updates * point // POINTS for point in range(1, POINTS + 1)}
    seconds, last = 0.0, time.perf_counter()
    for update, batch in enumerate(epochs.batches(options.epochs), start=1):
        with torch.autocast("cpu", torch.bfloat16):
            loss = smoothed_loss(model, batch)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if update in points:
            seconds += time.perf_counter() - last
            score = bleu(model, tokenizer, *validation)
            print(f"{seconds / 60:5.1f} minutes, {update:,} of {updates:,} updates: greedy {score:.1f}", flush=True)
            last = time.perf_counter()
    return model


def main() -> None:
    """Prints a curve of greedy BLEU on the validation set, then BLEU of beam 4 on both sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for part in PARTS:
        parser.add_argument(f"--{part}_source", type=Path, required=True)
        parser.add_argument(f"--{part}_target", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch_tokens", type=int, default=2048)
    parser.add_argument("--rate", type=float, default=1e-3, help="the highest (%(default)s)")
    parser.add_argument("--warmup_steps", type=int, default=1000)
    parser.add_argument("--dropout", type=float, default=0.3)
    options = parser.parse_args()
    keep_freed_memory()
    sides, *held_out = (
        (lines_of(getattr(options, f"{part}_source")), lines_of(getattr(options, f"{part}_target"))) for part in PARTS
    )
    lines = (line for pair in zip(*sides, strict=True) for line in pair)
    tokenizer = train_tokenizer(lines, TokenizerArguments(), VOCABULARY)
    model = train(options, tokenizer, sides, held_out[0])
    for part, files in zip(PARTS[1:], held_out, strict=True):
        print(f"{part} set: BLEU {bleu(model, tokenizer, *files, num_beams=4):.1f} with beam 4", flush=True)


if __name__ == "__main__":
    main()
