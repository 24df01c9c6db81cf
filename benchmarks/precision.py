"""Whether bfloat16 autocast learns as well as float32: the same batches and seeds in both.

    python benchmarks/precision.py --source train.en --target train.de --seeds 3 --steps 300

Prints, for each seed and precision, the loss of the last tenth of the steps with dropout and label smoothing, and the
unsmoothed loss of batches that were held out, in float32.
"""

import argparse
import statistics
from pathlib import Path

import torch
from transformer2017.modeling.freed_memory import keep_freed_memory

from training import batches_of, ours, read_pairs

HELD_OUT = 10  # batches


def train(seed: int, bfloat16: bool, batches: list, steps: int, shape: str) -> tuple[list[float], float]:
    """The loss of each step, and of the batches held out."""
    torch.manual_seed(seed)
    model = ours(shape).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-9, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 100))
    losses = []
    for batch in batches[HELD_OUT : HELD_OUT + steps]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        held_out = statistics.mean(model(**batch).loss.item() for batch in batches[:HELD_OUT])
    return losses, held_out


def main() -> None:
    """Prints a line for each seed and precision, and the mean difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--shape", default="s")
    parser.add_argument("--batch_tokens", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    keep_freed_memory()
    batches = batches_of(read_pairs(options.source, options.target), options.batch_tokens)
    differences = []
    for seed in range(options.seeds):
        held_out = {}
        for bfloat16 in (False, True):
            losses, held_out[bfloat16] = train(seed, bfloat16, batches, options.steps, options.shape)
            last = statistics.mean(losses[-max(1, options.steps // 10) :])
            name = "bfloat16" if bfloat16 else "float32 "
            print(f"seed {seed} {name} training loss {last:.4f}, held out {held_out[bfloat16]:.4f}", flush=True)
        differences.append(held_out[True] - held_out[False])
    print(f"bfloat16 - float32, held out: {statistics.mean(differences):+.4f} nats, {differences}")


if __name__ == "__main__":
    main()
