"""Runs the commands and Python examples of the README and these pages, and writes down when and how it went.

    python docs/run_commands.py --data shared/data/multi30k

Blocks marked `bash` and `python` are run, in the order of the pages, in an empty folder with some hundred lines of the
corpus under the names that the pages use. Blocks marked `text` are listed with the reason why they are not run.
Training is cut short by the flags in `SHORT` and `SMALL`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).parent
PAGES = (
    "../README.md",
    "tutorial.md",
    "how-to/look-inside.md",
    "how-to/fine-tune.md",
    "how-to/export.md",
    "how-to/many-gpus.md",
    "how-to/from-fairseq.md",
)
LINES = {"train": 600, "val": 20, "test": 10}
SHORT = "--max_steps 20 --batch_tokens 1500 --report_to none"
SMALL = "--preset tiny --vocab_size 1000"  # where the model is not one that there is already
NOT_RUN = {
    "make test": "is what .ci/run runs",
    "make demo": "trains for minutes; tests/training/test_pronunciation.py runs the verb",
    "pip install": "installs",
    "transformer2017 app runs": "serves until interrupted; tests/inspection runs it",
    "accelerate launch": "needs many devices; tests/training/test_processes.py runs two processes",
    "torchrun": "needs many devices; tests/training/test_processes.py runs two processes",
    "transformer2017 import fairseq": "needs a file of fairseq's; tests/interchange/test_fairseq.py imports one",
}


def main() -> int:
    """Runs the pages and writes docs/commands.md; the exit code is 1 if a command failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.en, train.de, val.*, test_2016_*")
    folder = Path(tempfile.mkdtemp())
    lay_out(parser.parse_args().data, folder)
    rows, failed = [], False
    for page in PAGES:
        blocks = re.findall(r"```(bash|python|text)\n(.*?)```", (HERE / page).read_text(encoding="utf-8"), re.S)
        commands = "\n".join(block for kind, block in blocks if kind == "bash")
        if re.search(r"transformer2017 train (?!--model)", commands):
            shutil.rmtree(folder / "runs", ignore_errors=True)
        for kind, block in blocks:
            for command in [block] if kind == "python" else block.replace("\\\n", " ").strip().split("\n"):
                told, good = run(kind, command, folder)
                failed |= not good
                first = " ".join(command.partition("  #")[0].strip().splitlines()[0].split())
                rows.append(f"| {page.removeprefix('../')} | `{first}` | {told} |")
                print(rows[-1], flush=True)
    now = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    head = f"# The commands of these pages\n\nLast run by `python docs/run_commands.py --data DATA` on {now}, "
    head += f"training cut short with `{SHORT} {SMALL}`.\n\n"
    head += "| page | command (first line) | result |\n| --- | --- | --- |\n"
    (HERE / "commands.md").write_text(head + "\n".join(rows) + "\n", encoding="utf-8")
    shutil.rmtree(folder)
    return int(failed)


def lay_out(data: Path, folder: Path) -> None:
    """Puts the first lines of the corpus under the pages' names."""
    for split, count in LINES.items():
        for side in ("en", "de"):
            name = "test_2016_flickr" if split == "test" else split
            lines = (data / f"{name}.{side}").read_text(encoding="utf-8").splitlines()[:count]
            (folder / f"{split}.{side}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copy(folder / "test.en", folder / "input.txt")


def run(kind: str, command: str, folder: Path) -> tuple[str, bool]:
    """Runs one command or example; says how it went, and whether it went well."""
    for start, reason in NOT_RUN.items():
        if command.startswith(start):
            return f"not run: {reason}", True
    if command.startswith("transformer2017 train"):
        command = f"{command} {SHORT}" if "--model" in command.split() else f"{command} {SHORT} {SMALL}"
    words = [sys.executable, "-c", command] if kind == "python" else ["bash", "-c", command]
    started = time.perf_counter()
    paths = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # the commands of this environment
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": paths})
    seconds = time.perf_counter() - started
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return f"failed with {done.returncode}", False
    return f"ran in {seconds:.0f} s", True


if __name__ == "__main__":
    sys.exit(main())
