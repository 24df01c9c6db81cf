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
from sacrebleu import corpus_bleu
from torch.nn.functional import cross_entropy
from transformer2017.training.arguments import TokenizerArguments
from transformer2017.training.batching import Collator, TokenBatchSampler
from transformer2017.training.memory import keep_freed_memory
from transformer2017.training.tokenization import train_tokenizer
from transformers import MarianMTModel, PreTrainedTokenizerBase, get_linear_schedule_with_warmup

from training import PAD, VOCABULARY, Batch, lines_of, marian

POINTS = 12  # of the curve


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


def loss_of(model: MarianMTModel, batch: Batch) -> torch.Tensor:
    """With the paper's label smoothing, which MarianMT's own loss lacks."""
    labels = batch.pop("labels")
    with torch.autocast("cpu", torch.bfloat16):
        batch["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels)
        logits = model(**batch).logits
    return cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), label_smoothing=0.1)


@torch.no_grad()
def bleu(model: MarianMTModel, tokenizer: PreTrainedTokenizerBase, files: tuple[Path, Path], num_beams: int) -> float:
    """Of a model's translations of the first file, by those of the second."""
    sources, references = map(lines_of, files)
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    outputs = [""] * len(sources)
    model.eval()
    for start in range(0, len(order), 64):
        places = order[start : start + 64]
        batch = tokenizer([sources[i] for i in places], return_tensors="pt", padding=True)
        given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        tokens = model.generate(**given, num_beams=num_beams, max_new_tokens=64)
        for place, text in zip(places, tokenizer.batch_decode(tokens, skip_special_tokens=True), strict=True):
            outputs[place] = text
    model.train()
    return corpus_bleu(outputs, [references]).score


def train(
    options: argparse.Namespace, tokenizer: PreTrainedTokenizerBase, validation: tuple[Path, Path]
) -> MarianMTModel:
    """A model, trained; prints its curve."""
    sides = (lines_of(path) for path in (options.train_source, options.train_target))
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
        loss_of(model, batch).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if update in points:
            seconds += time.perf_counter() - last
            score = bleu(model, tokenizer, validation, num_beams=1)
            print(f"{seconds / 60:5.1f} minutes, {update:,} of {updates:,} updates: greedy {score:.1f}", flush=True)
            last = time.perf_counter()
    return model


def main() -> None:
    """Prints a curve of greedy BLEU on the validation set, then BLEU of beam 4 on both sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for part in ("train", "validation", "test"):
        parser.add_argument(f"--{part}_source", type=Path, required=True)
        parser.add_argument(f"--{part}_target", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch_tokens", type=int, default=2048)
    parser.add_argument("--rate", type=float, default=1e-3, help="the highest (%(default)s)")
    parser.add_argument("--warmup_steps", type=int, default=1000)
    parser.add_argument("--dropout", type=float, default=0.3)
    options = parser.parse_args()
    keep_freed_memory()
    sides = (lines_of(path) for path in (options.train_source, options.train_target))
    lines = (line for pair in zip(*sides, strict=True) for line in pair)
    tokenizer = train_tokenizer(lines, TokenizerArguments(), VOCABULARY)
    validation = options.validation_source, options.validation_target
    model = train(options, tokenizer, validation)
    for part, files in (("validation", validation), ("test", (options.test_source, options.test_target))):
        print(f"{part} set: BLEU {bleu(model, tokenizer, files, num_beams=4):.1f} with beam 4", flush=True)


if __name__ == "__main__":
    main()
