"""Damaged files for every reader, without end: `make fuzz MINUTES=60`, or `python tests/fuzz/readers.py 60`.

Each input is a good file, damaged at random: bits flipped, parts cut out, doubled or swapped, numbers made huge, and
pieces put in that have broken readers before. A reader must give pairs, or refuse in one sentence (UsageError or
RunError). Anything else is a finding: another exception, a crash, more than `SECONDS` for an input, or more than
`MEMORY` beyond what the process began with. Inputs follow from the seed; a finding is kept in a file.
"""

import argparse
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).parent))

from transformer2017.configuration import RunError, UsageError

SECONDS = 30  # for one input, on a busy machine
MEMORY = 4 << 30  # bytes beyond what the process holds before
ROUND = 100  # inputs of a target in a process of their own
NUMBERS = [b"-1", b"0", b"1e999", b"NaN", b"null", b"99999999999999999999", b"2147483648", b"1000000000", b"0.5"]
PIECES = [
    b'<!DOCTYPE a [<!ENTITY b "cccc"><!ENTITY d "&b;&b;&b;&b;">]>', b'<!ENTITY e SYSTEM "file:///etc/passwd">',
    b"&e;", b"<tu>", b"</tu>", b"<seg/>", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n", b"\t", b'"',
    b"\\ud800", b"\xed\xa0\x80", b"\xc3", b"\xf0\x9f", b"{", b"}", b"[" * 3000, b'{"a":' * 3000, b"null", b"[]",
    b"{}", b'""', b"true",
    b"../../x", b"/etc/passwd", b"A" * 100_000, b"*a", b"&a [*a,*a]", b"!!python/object:os.system",
    b"<<: ", b"%", b"\xe2\x80\xa8",
]  # fmt: skip
TOLD: set[tuple[str, str, str]] = set()
Read = Callable[[Path], object]


def damaged(good: bytes, rng: random.Random) -> bytes:
    """The file with one to eight faults."""
    data = bytearray(good)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice([1, 2, 4, 16, 100, 1000]))
        kind = rng.randrange(8)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at:end] = rng.randbytes(end - at)
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = data[at:end] * rng.choice([1, 2, 50])
        elif kind == 4:
            data[at:at] = rng.choice(PIECES)
        elif kind == 5:
            del data[at:]
        elif kind == 6:
            _change_a_number(data, rng)
        else:
            other = rng.randrange(len(data) + 1)
            data[at:end], data[other:other] = b"", bytes(data[at:end])
    return bytes(data)


def _change_a_number(data: bytearray, rng: random.Random) -> None:
    digits = [i for i in range(min(len(data), 20_000)) if 48 <= data[i] <= 57]
    if digits:
        at = end = rng.choice(digits)
        while end < len(data) and 48 <= data[end] <= 57:
            end += 1
        data[at:end] = rng.choice(NUMBERS)


def try_one(read: Read, path: Path) -> tuple[str, str]:
    """What became of an input: "read", "refused", or a finding with its traceback."""
    try:
        signal.alarm(SECONDS)
        read(path)
        return "read", ""
    except (UsageError, RunError) as error:
        lines = str(error).splitlines()
        return ("refused", "") if len(lines) == 1 else ("more than one line", str(error))
    except BaseException as error:
        return type(error).__name__, traceback.format_exc()
    finally:
        signal.alarm(0)


def _too_long(signum: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} seconds")


def _round(name: str, seed: int, folder: Path, results: "multiprocessing.Queue") -> None:
    """One process's share: damaged inputs of one target."""
    import targets

    signal.signal(signal.SIGALRM, _too_long)
    with open(os.devnull, "w") as nowhere:  # what native code says on its way to an error
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))
    good, place, read = targets.make(name, folder)
    for number in range(seed, seed + ROUND):
        place.write_bytes(damaged(good, random.Random(f"{name} {number}")))
        results.put(("begun", number, ""))
        results.put((*try_one(read, place), number))
    results.put(("end", 0, ""))


def run_round(name: str, seed: int, findings: Path) -> Counter[str]:
    """Runs a share, and keeps the input of each finding."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        results = multiprocessing.SimpleQueue()
        process = multiprocessing.Process(target=_round, args=(name, seed, Path(work), results))
        process.start()
        number = seed
        while True:
            if results.empty():
                if not process.is_alive() and results.empty():
                    counts[_keep(findings, name, number, f"the process died: {process.exitcode}", "")] += 1
                    break
                time.sleep(0.001)
                continue
            what, told, last = results.get()
            if what == "end":
                break
            if what == "begun":
                number = told
            elif what in ("read", "refused"):
                counts[what] += 1
            else:
                counts[_keep(findings, name, last, what, told)] += 1
        process.join()
    return counts


def _keep(findings: Path, name: str, number: int, what: str, told: str) -> str:
    findings.mkdir(parents=True, exist_ok=True)
    place = told.strip().splitlines()
    where = next((line.strip() for line in reversed(place) if line.strip().startswith("File ")), "")
    (findings / f"{name.replace('/', '-')}-{number}.txt").write_text(
        f"{what}\n{told}", encoding="utf-8", errors="replace"
    )
    if (name, what, where) not in TOLD:  # once each
        TOLD.add((name, what, where))
        print(f"FOUND {name} {number}: {what} {where} {place[-1][:200] if place else ''}", flush=True)
    return "found"


def main() -> int:
    """Fuzzes all targets in turn until the time is up; prints a table."""
    import targets

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--seed", type=int, default=2017)
    parser.add_argument("--only", nargs="*", choices=list(targets.TARGETS), help="these targets alone")
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"))
    flags = parser.parse_args()
    counts: dict[str, Counter[str]] = {name: Counter() for name in flags.only or targets.TARGETS}
    began, seed = time.monotonic(), flags.seed * 1_000_000
    while time.monotonic() - began < 60 * flags.minutes:
        for name in counts:
            counts[name] += run_round(name, seed, flags.findings)
        seed += ROUND
    print(f"\nseed {flags.seed}, {(time.monotonic() - began) / 60:.1f} minutes\n")
    print("| reader | inputs | read | refused in a sentence | found |\n| --- | --- | --- | --- | --- |")
    for name, count in counts.items():
        print(f"| {name} | {count.total():,} | {count['read']:,} | {count['refused']:,} | {count['found']:,} |")
    return 1 if any(count["found"] for count in counts.values()) else 0


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    sys.exit(main())
