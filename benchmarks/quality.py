r"""Time to quality: BLEU on a test set against the time of training, beside MarianMT under `Seq2SeqTrainer`.

    python benchmarks/quality.py --train_source train.en --train_target train.de --test_source test.en \
        --test_target test.de --minutes 60 --picture docs/pictures/quality.png

MarianMT of shape s (3+3 x 256) is trained as `Seq2SeqTrainer` does by default (random batches of 64, float32) for
`--minutes`; this package's model, of the same shape, with the same tokens, for a quarter of them and then for the
rest. Each has a core of its own and the same rate, which rises over the first tenth of its time and falls to 0 at its
end. Both have dropout 0.3 and label smoothing 0.1. BLEU is that of greedy search. Time is that of the processor,
one core for each, and does not count while a contestant translates, starts or reads.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from matplotlib.figure import Figure
from sacrebleu import corpus_bleu
from torch.optim.lr_scheduler import LambdaLR
from transformer2017.modeling.freed_memory import keep_freed_memory
from transformer2017.training.arguments import TokenizerArguments
from transformer2017.training.data import TEXT, read_pairs, sentences, tokenize
from transformer2017.training.stored_rows import in_batches, store
from transformer2017.training.tokenization import load_tokenizer, train_tokenizer
from transformer2017.training.trainer import Transformer2017Trainer
from transformer2017.training.training_arguments import TrainingArguments
from transformers import (
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from training import VOCABULARY, marian, ours

DROPOUT, SMOOTHING = 0.3, 0.1
WARM_UP = 0.1  # of the time
POINTS = 12  # of a curve
ENDLESS = 10**7  # updates: the clock ends a run


def bleu(model: Any, tokenizer: Any, sources: list[str], references: list[str], num_beams: int = 1) -> float:
    """Of a model's translations, those of like lengths made together, by the same few lines for all contestants."""
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    outputs = [""] * len(sources)
    model.eval()
    for start in range(0, len(order), 64):
        places = order[start : start + 64]
        batch = tokenizer([sources[i] for i in places], return_tensors="pt", padding=True)
        given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        tokens = model.generate(**given, num_beams=num_beams, max_new_tokens=64)
        texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        for place, text in zip(places, texts, strict=True):
            outputs[place] = text
    model.train()
    return corpus_bleu(outputs, [references]).score


class BleuByTheClock(TrainerCallback):
    """Notes seconds of training and BLEU at even steps of a run's time, and ends the run with its time."""

    def __init__(self, seconds: float, tokenizer: Any, sources: list[str], references: list[str]) -> None:
        self.seconds, self.tokenizer, self.sources, self.references = seconds, tokenizer, sources, references
        self.spent, self.last = 0.0, 0.0
        self.points: list[dict[str, float]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self.last = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Counts the time; at the next point, stops the clock and translates."""
        self.spent += time.process_time() - self.last
        if self.spent >= self.seconds * (len(self.points) + 1) / POINTS:
            self.points.append(
                {
                    "seconds": self.spent,
                    "updates": state.global_step,
                    "bleu": bleu(model, self.tokenizer, self.sources, self.references),
                }
            )
            print(json.dumps(self.points[-1]), file=sys.stderr, flush=True)
            control.should_training_stop = self.spent >= self.seconds
        self.last = time.process_time()

    def share_of_rate(self, _: int) -> float:
        """Of the highest rate, by the time that is spent."""
        spent = self.spent / self.seconds
        return max(min(spent / WARM_UP, (1 - spent) / (1 - WARM_UP)), 1e-3)


def train(flags: argparse.Namespace) -> None:
    """One contestant, in a process of its own."""
    keep_freed_memory()
    tokenizer = load_tokenizer(str(flags.folder / "tokenizer"))
    pairs = Dataset.from_file(str(flags.folder / "tokens.arrow"))
    sources, references = (Path(path).read_text().splitlines() for path in (flags.test_source, flags.test_target))
    clock = BleuByTheClock(60 * flags.minutes, tokenizer, sources, references)
    torch.manual_seed(2017)
    model = (marian if flags.contestant == "MarianMT" else ours)("s", DROPOUT)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=flags.rate, betas=(0.9, 0.98), eps=1e-9, weight_decay=0, fused=True
    )
    common = {
        "output_dir": str(flags.folder / flags.contestant),
        "max_steps": ENDLESS,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "logging_strategy": "no",
    }
    rest = {
        "train_dataset": pairs,
        "processing_class": tokenizer,
        "callbacks": [clock],
        "optimizers": (optimizer, LambdaLR(optimizer, clock.share_of_rate)),
    }
    if flags.contestant == "MarianMT":
        args = Seq2SeqTrainingArguments(per_device_train_batch_size=64, label_smoothing_factor=SMOOTHING, **common)
        trainer = Seq2SeqTrainer(model, args, data_collator=DataCollatorForSeq2Seq(tokenizer, model=model), **rest)
    else:
        args = TrainingArguments(
            batch_tokens=flags.batch_tokens, bf16=True, sample_outputs=0, load_best_model_at_end=False, **common
        )
        trainer = Transformer2017Trainer(model, args, **rest)
    trainer.train()
    print(json.dumps(clock.points))


def prepare(flags: argparse.Namespace) -> None:
    """The tokens, the same for all."""
    pairs = store(
        flags.folder / "pairs.arrow", TEXT, in_batches(read_pairs(flags.train_source, flags.train_target), TEXT)
    )
    tokenizer = train_tokenizer(sentences(pairs), TokenizerArguments(), VOCABULARY)
    tokenizer.save_pretrained(flags.folder / "tokenizer")
    tokenize(pairs, tokenizer, flags.folder / "tokens.arrow", max_length=None)


def start(flags: argparse.Namespace, contestant: str, minutes: float, core: int) -> subprocess.Popen:
    """A contestant on a core of its own."""
    words = ["--contestant", contestant, "--minutes", str(minutes), "--folder", str(flags.folder)]
    for name in ("test_source", "test_target", "rate", "batch_tokens"):
        words += [f"--{name}", str(getattr(flags, name))]
    return subprocess.Popen(
        [sys.executable, __file__, *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def result(process: subprocess.Popen) -> list[dict[str, float]]:
    """Its curve."""
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a contestant ended with {process.returncode}")
    return json.loads(output.splitlines()[-1])


def draw(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    """BLEU over minutes of training."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot(
            [p["seconds"] / 60 for p in points], [p["bleu"] for p in points], marker="o", markersize=3, label=name
        )
    axes.set(xlabel="minutes of training on one core (processor time)", ylabel="BLEU, greedy", title="Time to quality")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Prints a line for each run, and draws the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_source", type=Path)
    parser.add_argument("--train_target", type=Path)
    parser.add_argument("--test_source", type=Path, required=True)
    parser.add_argument("--test_target", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60, help="of MarianMT's training (%(default)s)")
    parser.add_argument("--rate", type=float, default=1e-3, help="the highest, of all (%(default)s)")
    parser.add_argument("--batch_tokens", type=int, default=1024, help="of our updates: 64 pairs (%(default)s)")
    parser.add_argument("--picture", type=Path, help="where to draw the curves")
    parser.add_argument("--json", type=Path, help="where to write them")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.contestant:
        train(flags)
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("two cores are needed: a contestant must not disturb the other")
    flags.folder = Path(tempfile.mkdtemp(prefix="quality-"))
    prepare(flags)
    peer = start(flags, "MarianMT", flags.minutes, cores[0])
    curves = {}
    for share in (0.25, 0.75):
        curves[f"transformer2017, {share:.0%} of the time"] = result(
            start(flags, "transformer2017", share * flags.minutes, cores[1])
        )
    curves["MarianMT"] = result(peer)
    for name, points in curves.items():
        last = points[-1]
        print(f"{name}: BLEU {last['bleu']:.2f} after {last['seconds']:.0f} s and {last['updates']:,} updates")
    if flags.json:
        flags.json.write_text(json.dumps(curves, indent=2), encoding="utf-8")
    if flags.picture:
        draw(curves, flags.picture)


if __name__ == "__main__":
    main()
