"""Memory and time of a corpus on its way to the first step of training: 100 thousand, 1 million and 10 million lines.

    python benchmarks/corpus.py --lines 100000 1000000 10000000 --folder /tmp/corpus

Each size runs in a process of its own on one core: text files are read and cleaned, a vocabulary is learnt, the pairs
become token ids, and one update of a small model is made of the first batch. Lines are generated: words of a
vocabulary of 200,000 that are as frequent as Zipf's law says, 12 a line on average, each with one translation.

The seconds on the processor are those that it takes on a machine with nothing else to do; a million lines are
reckoned by them. Stages are in wall-clock time.

Memory is the most that the process held of its own (RssAnon, looked up 50 times a second). Pages of memory-mapped
files are not counted: they belong to the disk's cache, and go when memory is short.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

WORDS, MEAN_LENGTH = 200_000, 12
AT_ONCE = 100_000
STAGES = {"train.pairs.arrow": "read", "tokenizer/tokenizer.json": "vocabulary", "train.tokens.arrow": "tokens"}


def vocabulary(random: np.random.Generator, letters: str) -> list[str]:
    """Words of 2 to 11 letters; frequent ones are short."""
    lengths = np.minimum(2 + np.log2(1 + np.arange(WORDS)) / 2 + random.random(WORDS), 11).astype(int)
    return ["".join(random.choice(list(letters), length)) for length in lengths]


def generated_lines(count: int) -> Iterator[tuple[str, str]]:
    """Pairs of some thousand lines at a time, as text."""
    random = np.random.default_rng(2017)
    sides = vocabulary(random, "etaoinshrdlu"), vocabulary(random, "enisratdhäöüß")
    chances = np.cumsum(1 / np.arange(1, WORDS + 1))
    for start in range(0, count, AT_ONCE):
        lengths = 1 + random.poisson(MEAN_LENGTH - 1, min(AT_ONCE, count - start))
        drawn = np.searchsorted(chances, random.random(lengths.sum()) * chances[-1]).tolist()
        ends = lengths.cumsum().tolist()
        lines = [drawn[end - length : end] for end, length in zip(ends, lengths.tolist(), strict=True)]
        yield tuple("".join(" ".join([words[i] for i in line]) + ".\n" for line in lines) for words in sides)


def generate(folder: Path, count: int) -> None:
    """Writes train.en and train.de, if they are not there."""
    if (folder / "train.de").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "train.en", "w") as english, open(folder / "train.de.partial", "w") as german:
        for source, target in generated_lines(count):
            english.write(source)
            german.write(target)
    (folder / "train.de.partial").rename(folder / "train.de")


def first_step(folder: Path) -> None:
    """What `transformer2017 train` does up to its first update."""
    began = time.time()
    from transformer2017.modeling.freed_memory import keep_freed_memory
    from transformer2017.training.flags import Flags
    from transformer2017.training.prepare import make_model, prepare
    from transformer2017.training.trainer import Transformer2017Trainer

    keep_freed_memory()
    files = ["--train_source", f"{folder}/train.en", "--train_target", f"{folder}/train.de"]
    sizes = ["--preset", "tiny", "--vocab_size", "16000", "--batch_tokens", "4096", "--max_steps", "1"]
    rest = ["--output_dir", f"{folder}/run", "--save_strategy", "no", "--disable_tqdm", "true", "--use_cpu", "true"]
    store = folder / "run" / "_run"
    prepared = prepare(Flags([*files, *sizes, *rest]), store)
    model = make_model(prepared.arguments, prepared.tokenizer)
    trainer = Transformer2017Trainer(
        model, prepared.arguments.training, train_dataset=prepared.tokens, processing_class=prepared.tokenizer
    )
    trainer.train()
    before = began
    for file, stage in STAGES.items():
        ended = (store / file).stat().st_mtime
        print(f"{stage} {ended - before:.0f} s", end=", ")
        before = ended
    print(f"first step {time.time() - before:.0f} s")


def anonymous_bytes(process: int) -> int:
    """The memory of a process that no file backs; 0 once it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0)


def measure(folder: Path) -> tuple[float, float, int, str]:
    """Seconds until the first step is made, those of them on the processor, the most memory, and the stages' times."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    began, most, ended = time.perf_counter(), 0, 0
    child = subprocess.Popen(
        [sys.executable, __file__, "--child", str(folder)], stdout=subprocess.PIPE, env=environment
    )
    while not ended:
        most = max(most, anonymous_bytes(child.pid))
        time.sleep(0.02)
        ended, status, usage = os.wait4(child.pid, os.WNOHANG)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{folder}: the run ended with {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_utime + usage.ru_stime, most, child.stdout.read().decode().splitlines()[-1]


def main() -> None:
    """Prints a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/corpus"), help="10 million lines take some 6 GB")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        first_step(options.child)
        return
    print("| lines | seconds to the first step | on the processor | a million lines | most memory, MiB | stages |")
    print("|--:|--:|--:|--:|--:|---|")
    for count in options.lines:
        folder = options.folder / str(count)
        generate(folder, count)
        seconds, busy, most, stages = measure(folder)
        times = f"{seconds:.0f} | {busy:.0f} | {busy * 1e6 / count:.0f} s"
        print(f"| {count:,} | {times} | {most / 2**20:,.0f} | {stages} |", flush=True)


if __name__ == "__main__":
    main()
