"""What introductions say of recurrence and attention, measured: an LSTM encoder-decoder beside our Transformer.

Both have the same number of parameters, vocabulary, batches in the same order, number of updates, optimiser, and
label smoothing. Each has the best of the learning rates given by `--rates`, found in a short trial. Measured are
training speed and translation quality against sentence length, and the gradient at the first layer and the loss
against depth. What does not come out as told is reported as it came.

    python benchmarks/recurrence.py --data shared/data/multi30k --report docs/recurrence.md
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import sacrebleu
import torch
from recurrence_models import build, parameters
from recurrence_report import BANDS, draw, report
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn

PAD, END = 0, 2
LENGTHS = (8, 16, 32, 64, 128, 256)
Pair = tuple[list[int], list[int]]


def read(folder: Path, split: str) -> tuple[list[str], list[str]]:
    """English and German lines."""
    return tuple((folder / f"{split}.{side}").read_text(encoding="utf-8").splitlines() for side in ("en", "de"))


def train_tokenizer(lines: list[str], vocab_size: int) -> Tokenizer:
    """One shared BPE vocabulary (§5.1)."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    )
    return tokenizer


def pad(rows: list[list[int]], value: int) -> torch.Tensor:
    """Rows of different lengths as one tensor."""
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def batches(pairs: list[Pair], tokens: int, seed: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of like length under a budget of target tokens, without end, in an order that the seed fixes."""
    order = random.Random(seed)
    while True:
        ranked = sorted(pairs, key=lambda pair: (len(pair[1]), len(pair[0]), order.random()))
        groups, group = [], []
        for pair in ranked:
            if group and (len(group) + 1) * len(pair[1]) > tokens:
                groups.append(group)
                group = []
            group.append(pair)
        order.shuffle(groups)
        for group in groups:
            yield pad([s for s, _ in group], PAD), pad([t for _, t in group], -100)


def train(model: nn.Module, pairs: list[Pair], updates: int, rate: float, tokens: int) -> dict[str, float]:
    """Trains with Adam and a warm-up of a tenth of the updates, then a decay to zero; seconds are the processor's."""
    optimiser = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9)
    model.train()
    losses, norms, started = [], [], time.process_time()
    for update, (source, labels) in zip(range(updates), batches(pairs, tokens), strict=False):
        share = (update + 1) / updates
        optimiser.param_groups[0]["lr"] = rate * min(share / 0.1, (1 - share) / 0.9 + 1 / updates)
        loss = model(source, labels=labels)
        optimiser.zero_grad()
        loss.backward()
        norms.append(float(torch.stack([p.grad.norm() for p in model.first_layer()]).norm()))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    tail = max(1, updates // 10)
    return {
        "loss": statistics.mean(losses[-tail:]),
        "first_gradient": norms[0],
        "usual_gradient": statistics.median(norms),
        "seconds": time.process_time() - started,
    }


def speeds(models: dict[str, nn.Module], length: int, vocab_size: int, tokens: int = 1024) -> dict[str, float]:
    """Target tokens per second of whole updates on sentences of one length: each model's median of 7.

    The models take turns, update by update, so that what else the machine does falls on both alike. `ratio` is the
    median, over the turns, of the Transformer's speed over the recurrent model's.
    """
    rows = max(1, tokens // length)
    source = torch.randint(4, vocab_size, (rows, length))
    optimisers = {kind: torch.optim.Adam(model.parameters()) for kind, model in models.items()}
    times: dict[str, list[float]] = {kind: [] for kind in models}
    for _ in range(8):
        for kind, model in models.items():
            model.train()
            started = time.perf_counter()
            optimisers[kind].zero_grad()
            model(source, labels=source.clone()).backward()
            optimisers[kind].step()
            times[kind].append(time.perf_counter() - started)
    kept = {kind: taken[1:] for kind, taken in times.items()}  # the first update makes the optimiser's state
    turns = zip(kept["recurrent"], kept["transformer"], strict=True)
    medians = {kind: rows * length / statistics.median(taken) for kind, taken in kept.items()}
    return {**medians, "ratio": statistics.median(slow / quick for slow, quick in turns)}


def quality(model: nn.Module, tokenizer: Tokenizer, sources: list[str], references: list[str]) -> dict[str, float]:
    """BLEU of all sentences and of each band of source lengths, by greedy search."""
    model.eval()
    hypotheses: list[str] = []
    for i in range(0, len(sources), 50):
        source = pad([[*tokenizer.encode(line).ids, END] for line in sources[i : i + 50]], PAD)
        for row in model.translate(source, 60).tolist():
            kept = row[: row.index(END)] if END in row else row
            hypotheses.append(tokenizer.decode([t for t in kept if t > END]))
    scores = {"all": sacrebleu.corpus_bleu(hypotheses, [references]).score}
    for band, chosen in bands(sources).items():
        found = sacrebleu.corpus_bleu([hypotheses[i] for i in chosen], [[references[i] for i in chosen]])
        scores[band] = found.score
    return scores


def bands(sources: list[str]) -> dict[str, list[int]]:
    """The numbers of the sentences in each band of source lengths that has any."""
    found = {
        f"{low}-{high}": [i for i, line in enumerate(sources) if low <= len(line.split()) <= high]
        for low, high in BANDS
    }
    return {band: chosen for band, chosen in found.items() if chosen}


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """All four measurements, the two models in turn."""
    source, target = read(arguments.data, "train")
    tokenizer = train_tokenizer(source + target, arguments.vocab_size)
    ids = [[encoding.ids for encoding in tokenizer.encode_batch(lines)] for lines in (source, target)]
    pairs = [([*s, END], [*t, END]) for s, t in zip(*ids, strict=True)]
    test = [lines[: arguments.test_lines] for lines in read(arguments.data, "test_2016_flickr")]
    size = tokenizer.get_vocab_size()
    results: dict[str, object] = {"speed": {}, "quality": {}, "depth": {}}
    kinds = ("transformer", "recurrent")
    models_ = {kind: build(kind, size, arguments.d_model, arguments.layers, arguments.dropout) for kind in kinds}
    results["sentences"] = {band: len(chosen) for band, chosen in bands(test[0]).items()}
    results["parameters"] = {kind: parameters(model) for kind, model in models_.items()}
    results["speed"] = {length: speeds(models_, length, size) for length in LENGTHS}
    say(results)
    for kind in kinds:
        trials = {}
        for rate in arguments.rates:
            trial = build(kind, size, arguments.d_model, arguments.layers, arguments.dropout)
            trials[rate] = train(trial, pairs, arguments.trial_updates, rate, arguments.batch_tokens)["loss"]
        rate = min(trials, key=trials.__getitem__)
        model = build(kind, size, arguments.d_model, arguments.layers, arguments.dropout)
        trained = train(model, pairs, arguments.updates, rate, arguments.batch_tokens)
        results["quality"][kind] = {**trained, "rate": rate, "trials": trials, **quality(model, tokenizer, *test)}
        say(results["quality"][kind])
    for layers in arguments.depths:
        found = {}
        for kind in kinds:
            model = build(kind, size, arguments.depth_d_model, layers, 0.0)
            found[kind] = train(model, pairs, arguments.depth_updates, 1e-3, arguments.batch_tokens // 2)
        results["depth"][layers] = found
        say({layers: found})
    return results


def conditions(arguments: argparse.Namespace, seconds: float) -> dict[str, object]:
    """What a reader needs to repeat the run: its command, options, versions and processor."""
    words = ["DATA" if word == str(arguments.data) else word for word in sys.argv[1:]]
    options = {name: value for name, value in vars(arguments).items() if name not in ("data", "report")}
    return {
        "command": " ".join(["python benchmarks/recurrence.py", *words]),
        "options": options,
        "day": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor(),
        "load": os.getloadavg()[0],
        "minutes": seconds / 60,
    }


def processor() -> str:
    """The processor's name, where Linux tells it."""
    told = Path("/proc/cpuinfo")
    names = [line for line in told.read_text().splitlines() if line.startswith("model name")] if told.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.machine()


def say(found: object) -> None:
    """Prints a part of the results as soon as it is known."""
    print(json.dumps(found), flush=True)


def main() -> None:
    """Runs the benchmark and writes its page, picture and numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.en, train.de, test_2016_flickr.*")
    parser.add_argument("--report", type=Path, required=True, help="page to write; picture and numbers go beside it")
    parser.add_argument("--vocab_size", type=int, default=4000)
    parser.add_argument("--d_model", type=int, default=192)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3])
    parser.add_argument("--trial_updates", type=int, default=100)
    parser.add_argument("--batch_tokens", type=int, default=1500)
    parser.add_argument("--test_lines", type=int, default=1000)
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--depth_d_model", type=int, default=64)
    parser.add_argument("--depth_updates", type=int, default=120)
    parser.add_argument(
        "--redraw", action="store_true", help="measure nothing: page and picture from the kept numbers"
    )
    arguments = parser.parse_args()
    kept = arguments.report.with_suffix(".json")
    if not arguments.redraw:
        random.seed(2017)
        started = time.perf_counter()
        results = measure(arguments)
        results["run"] = conditions(arguments, time.perf_counter() - started)
        kept.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    results = json.loads(kept.read_text(encoding="utf-8"))
    for name in ("speed", "depth"):
        results[name] = {int(key): value for key, value in results[name].items()}
    picture = arguments.report.with_suffix(".png")
    draw(results, picture)
    arguments.report.write_text(report(results, picture.name), encoding="utf-8")


if __name__ == "__main__":
    main()
