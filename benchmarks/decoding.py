"""Decoding beside MarianMT and CTranslate2: the same weights, cores and sentences, in turn in one run.

    pip install -e ".[bench]"
    python benchmarks/decoding.py --model runs/en-de --source test.en --threads 2

Each row is timed in turn, ours and the peer's, `--repeats` times after one of warming up; printed is the median of the
ratios with their range, and the share of our time that is spent in matrix products: what is left to gain is the rest.
MarianMT gets the model by `interchange.marian`, CTranslate2 by `interchange.ctranslate2`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformer2017 import Transformer2017Config, Transformer2017ForConditionalGeneration
from transformer2017.interchange.ctranslate2 import write_ctranslate2
from transformer2017.interchange.marian import marian_from
from transformer2017.modeling.freed_memory import keep_freed_memory
from transformer2017.modeling.translation import Translator
from transformers import AutoTokenizer

PRODUCTS = ("linear", "addmm", "aten::mm", "bmm", "baddbmm", "_dynamic")
# Which figure each row must reach.
MUSTS = {
    "greedy, batch 32": 1.9,
    "greedy, batch 1": 2.0,
    "beam 4, batch 32": 2.3,
    "beam 4, batch 1": 2.0,
    "file, beam 4, float32, to MarianMT": 3.0,
    "file, beam 4, bfloat16, to MarianMT bfloat16": 3.0,
    "file, beam 4, float32, to CTranslate2 float32": 0.8,
    "file, beam 4, bfloat16, to CTranslate2 float32": 1.2,
    "file, beam 4, int8, to CTranslate2 int8": 0.6,
    "one line at a time, int8, to CTranslate2 int8": None,
    "memory, beam 8, batch 64, length 200": 0.5,
    "first line, from the start of Python": 1.0,
}


class Bench:
    """One model in all forms, and the sentences to decode."""

    def __init__(self, folder: Path, lines: list[str], flags: argparse.Namespace) -> None:
        self.folder, self.lines, self.flags = folder, lines, flags
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = Transformer2017ForConditionalGeneration.from_pretrained(folder).eval()
        self.length_penalty = self.model.generation_config.length_penalty or 1.0  # none: as transformers has it
        self.marian = marian_from(self.model).eval()
        self.marian.generation_config.max_length = None  # of which, beside max_new_tokens, each call would warn
        self.work = Path(tempfile.mkdtemp(prefix="decoding-"))
        self.limit = {"max_new_tokens": flags.max_new_tokens}
        self.order = sorted(range(len(lines)), key=lambda i: -len(self.tokenizer(lines[i])["input_ids"]))
        self.rows: list[dict[str, Any]] = []

    def compare(
        self, name: str, ours: Callable[[], Any], peer: Callable[[], Any], translator: Translator | None = None
    ) -> None:
        """Times both in turn, after one of warming up each; the profiler sees one worker only."""
        if self.flags.only and not any(word in name for word in self.flags.only):
            return
        mine, theirs = ours(), peer()
        same = sum(a == b for a, b in zip(mine, theirs, strict=True)) if mine and theirs else None
        times = [(seconds(ours), seconds(peer)) for _ in range(self.flags.repeats)]
        ratios = sorted(peer_time / own_time for own_time, peer_time in times)
        if translator is not None:
            translator.decoder.workers = 1
        row = {
            "row": name,
            "ratio": statistics.median(ratios),
            "range": [ratios[0], ratios[-1]],
            "must": MUSTS.get(name),
            "ours_s": statistics.median(t[0] for t in times),
            "peer_s": statistics.median(t[1] for t in times),
            "same_outputs": same,
            "of": len(mine) if mine else None,
            "products": share_of_products(ours),
        }
        self.rows.append(row)
        print(written(row), flush=True)

    def batches(self, size: int, count: int | None = None) -> list[dict[str, torch.Tensor]]:
        """Sentences in the order of their lengths, padded."""
        order = self.order if count is None else self.order[:: max(1, len(self.order) // count)]
        some = [self.lines[i] for i in order]
        groups = [some[i : i + size] for i in range(0, len(some), size)]
        kept = ("input_ids", "attention_mask")
        encoded = [self.tokenizer(group, return_tensors="pt", padding=True) for group in groups]
        return [{name: batch[name] for name in kept} for batch in encoded]

    def generate(self, model: Any, batches: list[dict[str, torch.Tensor]], **generation: Any) -> list[list[int]]:
        """All batches through `generate()`; the tokens of each sentence."""
        outputs = []
        for batch in batches:
            outputs += model.generate(**batch, **self.limit, **generation).tolist()
        special = {self.model.config.pad_token_id, self.model.config.eos_token_id}
        return [[token for token in row if token not in special] for row in outputs]

    def translator(self, precision: str, **generation: Any) -> Translator:
        """Our decoder of files."""
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        model = Transformer2017ForConditionalGeneration.from_pretrained(self.folder, dtype=dtype).eval()
        workers = self.flags.workers or self.flags.threads
        settings = {"workers": workers, "rows": self.flags.rows, "window": len(self.lines)}
        return Translator(model, self.tokenizer, int8=precision == "int8", **settings, **self.limit, **generation)

    def ctranslate2(self, quantization: str, beams: int) -> Callable[[], list[str]]:
        """CTranslate2 over the file in its best layout of replicas and threads, found by trying."""
        import ctranslate2

        folder = self.work / quantization
        if not folder.exists():
            write_ctranslate2(self.model, self.tokenizer, folder, quantization)
        threads = self.flags.threads
        layouts = {(threads, 1), (1, threads)}
        tokens = [self.tokenizer.convert_ids_to_tokens(self.tokenizer(line)["input_ids"]) for line in self.lines]

        def runner(layout: tuple[int, int], batch: int) -> Callable[[], list[str]]:
            translator = ctranslate2.Translator(
                str(folder), inter_threads=layout[0], intra_threads=layout[1], compute_type=quantization
            )
            given = {"beam_size": beams, "max_batch_size": batch, "max_decoding_length": self.flags.max_new_tokens}
            given["length_penalty"] = self.length_penalty

            def run() -> list[str]:
                results = translator.translate_batch(tokens, **given)
                ids = [self.tokenizer.convert_tokens_to_ids(r.hypotheses[0]) for r in results]
                return self.tokenizer.batch_decode(ids, skip_special_tokens=True)

            return run

        candidates = {(layout, batch): runner(layout, batch) for layout in layouts for batch in (32, 64)}
        best = min(candidates, key=lambda key: (candidates[key](), seconds(candidates[key]))[1])
        torch.set_num_threads(threads)  # CTranslate2 makes its own number that of the process
        print(f"  CTranslate2 {quantization}: best with {best[0][0]} replicas of {best[0][1]}, batches of {best[1]}")
        return candidates[best]


def seconds(run: Callable[[], Any]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def share_of_products(run: Callable[[], Any]) -> float:
    """Of the time spent in torch's operators, that spent in matrix products."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    events = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    return sum(e.self_cpu_time_total for e in events if any(p in e.key for p in PRODUCTS)) / max(total, 1)


def written(row: dict[str, Any]) -> str:
    """A row of the table, in Markdown."""
    must = "" if row["must"] is None else f"{row['must']:g}"
    same = "" if row.get("same_outputs") is None else f"{row['same_outputs']} of {row['of']}"
    products = "" if row.get("products") is None else f"{row['products']:.0%}"
    low, high = row["range"]
    times = f"{row['ours_s']:.2f} | {row['peer_s']:.2f}"
    return f"| {row['row']} | {row['ratio']:.2f} ({low:.2f} to {high:.2f}) | {must} | {times} | {same} | {products} |"


def against_marian(bench: Bench) -> None:
    """`generate()` beside `generate()`, and our decoder of files beside sorted batches."""
    for beams, name in ((1, "greedy"), (4, "beam 4")):
        for size, count in ((32, None), (1, bench.flags.single_lines)):
            batches = bench.batches(size, count)
            runs = [
                lambda m=m, b=batches, n=beams: bench.generate(m, b, num_beams=n) for m in (bench.model, bench.marian)
            ]
            bench.compare(f"{name}, batch {size}", *runs)
    sorted_batches = bench.batches(32)
    for precision, peer in (("float32", bench.marian), ("bfloat16", marian_in_bfloat16(bench))):
        translator = bench.translator(precision, num_beams=4)
        decode = bench.tokenizer.batch_decode
        name = f"file, beam 4, {precision}, to MarianMT" + (" bfloat16" if precision == "bfloat16" else "")

        def theirs(peer: Any = peer, decode: Any = decode) -> list[str]:
            texts = decode(bench.generate(peer, sorted_batches, num_beams=4), skip_special_tokens=True)
            return [text for _, text in sorted(zip(bench.order, texts, strict=True))]

        ours = lambda t=translator: [x.text for x in t.translate(bench.lines)]  # noqa: E731
        bench.compare(name, ours, theirs, translator)


def marian_in_bfloat16(bench: Bench) -> Any:
    """A copy of the peer in bfloat16."""
    return marian_from(bench.model).to(torch.bfloat16).eval()


def against_ctranslate2(bench: Bench) -> None:
    """The file, each in its best form; CTranslate2 stops as `early_stopping=True` does."""
    search = {"num_beams": 4, "early_stopping": True}
    for precision, peer in (("float32", "float32"), ("bfloat16", "float32"), ("int8", "int8")):
        name = f"file, beam 4, {precision}, to CTranslate2 {peer}"
        if bench.flags.only and not any(word in name for word in bench.flags.only):
            continue
        translator = bench.translator(precision, **search)
        ours = lambda t=translator: [x.text for x in t.translate(bench.lines)]  # noqa: E731
        bench.compare(name, ours, bench.ctranslate2(peer, 4), translator)
    one_line_at_a_time(bench, search)


def one_line_at_a_time(bench: Bench, search: dict[str, Any]) -> None:
    """Single sentences, each on one thread."""
    import ctranslate2

    name = "one line at a time, int8, to CTranslate2 int8"
    if bench.flags.only and not any(word in name for word in bench.flags.only):
        return
    folder = bench.work / "int8"
    if not folder.exists():
        write_ctranslate2(bench.model, bench.tokenizer, folder, "int8")
    peer = ctranslate2.Translator(str(folder), inter_threads=1, intra_threads=1, compute_type="int8")
    lines = bench.lines[:: max(1, len(bench.lines) // bench.flags.single_lines)]
    translator = bench.translator("int8", **search)
    threads = torch.get_num_threads()

    def ours() -> list[str]:
        return [x.text for line in lines for x in translator.translate([line])]

    def theirs() -> list[str]:
        found = []
        for line in lines:
            tokens = bench.tokenizer.convert_ids_to_tokens(bench.tokenizer(line)["input_ids"])
            result = peer.translate_batch([tokens], **given)
            ids = bench.tokenizer.convert_tokens_to_ids(result[0].hypotheses[0])
            found.append(bench.tokenizer.decode(ids, skip_special_tokens=True))
        return found

    given = {"beam_size": 4, "max_decoding_length": bench.flags.max_new_tokens}
    given["length_penalty"] = bench.length_penalty
    torch.set_num_threads(1)
    bench.compare(name, ours, theirs)
    torch.set_num_threads(threads)


MEMORY = """
import re, torch
{load}


def peak():  # getrusage would tell of the parent's as well
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1])


ids = torch.randint(4, model.config.vocab_size, (64, 200))
model.generate(ids[:1, :4], max_new_tokens=2, num_beams=8)
before = peak()
model.generate(ids, attention_mask=torch.ones_like(ids), num_beams=8, min_new_tokens=200, max_new_tokens=200)
print(peak() - before)
"""
FIRST_LINE = """
{load}
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({folder!r})
batch = tokenizer(["A man in an orange hat."], return_tensors="pt")
model.generate(input_ids=batch["input_ids"], max_new_tokens=30, num_beams=4)
"""
LOAD = "from {module} import {name}\nmodel = {name}.from_pretrained({folder!r}).eval()"


def whole_processes(bench: Bench) -> None:
    """Peak memory and the time to a first line, each in a process of its own."""
    marian_folder = bench.work / "marian"
    bench.marian.save_pretrained(marian_folder)
    loads = [
        LOAD.format(
            module="transformer2017", name="Transformer2017ForConditionalGeneration", folder=str(bench.folder)
        ),
        LOAD.format(module="transformers", name="MarianMTModel", folder=str(marian_folder)),
    ]

    def run(script: str) -> str:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    name = "memory, beam 8, batch 64, length 200"
    if not bench.flags.only or any(word in name for word in bench.flags.only):
        ours, theirs = (int(run(MEMORY.format(load=load)).split()[-1]) / 1024 for load in loads)
        row = {"row": name, "ratio": ours / theirs, "range": [ours / theirs] * 2, "must": MUSTS[name]}
        row |= {"ours_s": ours, "peer_s": theirs}  # MiB
        bench.rows.append(row)
        print(written(row), "in MiB; a ratio of memory: less is better", flush=True)
    scripts = [FIRST_LINE.format(load=load, folder=str(bench.folder)) for load in loads]
    name = "first line, from the start of Python"
    bench.compare(name, lambda: run(scripts[0]) and None, lambda: run(scripts[1]) and None)


def exactness(bench: Bench) -> None:
    """How many sentences have the tokens that transformers' own loop gives, by beam size and `early_stopping`."""
    batches = bench.batches(32)
    for beams in (1, 4, 8):
        for early_stopping in (False, True, "never") if beams > 1 else (False,):
            given = {"num_beams": beams, "early_stopping": early_stopping} if beams > 1 else {}
            ours, theirs = (bench.generate(bench.model, batches, fast=fast, **given) for fast in (True, False))
            same = sum(a == b for a, b in zip(ours, theirs, strict=True))
            print(f"beam {beams}, early_stopping={early_stopping}: {same} of {len(ours)} alike", flush=True)


def quality(bench: Bench, target: Path) -> None:
    """BLEU of each precision."""
    import sacrebleu

    references = target.read_text(encoding="utf-8").splitlines()[: len(bench.lines)]
    for precision in ("float32", "bfloat16", "int8"):
        translator = bench.translator(precision, num_beams=4)
        hypotheses = [translation.text for translation in translator.translate(bench.lines)]
        print(f"{precision}: BLEU {sacrebleu.corpus_bleu(hypotheses, [references]).score:.2f}", flush=True)


def random_base(folder: Path, tokenizer: Any) -> None:
    """The paper's base shape with random weights, whose outputs all have the length that the limit gives them."""
    torch.manual_seed(2017)
    config = Transformer2017Config.from_preset("base", vocab_size=len(tokenizer))
    Transformer2017ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Makes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a folder that was trained")
    parser.add_argument("--source", type=Path, required=True, help="sentences to translate, one a line")
    parser.add_argument("--lines", type=int, default=1000, help="how many of them (%(default)s)")
    parser.add_argument("--single_lines", type=int, default=60, help="how many one at a time (%(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="cores to use (%(default)s)")
    parser.add_argument("--workers", type=int, help="our workers over a file; as many as cores if absent")
    parser.add_argument("--rows", type=int, default=128, help="hypotheses of a worker (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="timings of each row (%(default)s)")
    parser.add_argument("--max_new_tokens", type=int, default=64, help="of all outputs (%(default)s)")
    parser.add_argument("--only", nargs="*", help="rows whose names hold one of these words")
    parser.add_argument("--base", action="store_true", help="the base shape with random weights instead")
    parser.add_argument("--exact", action="store_true", help="count sentences that are as transformers' own instead")
    parser.add_argument("--target", type=Path, help="reference translations: print BLEU of each precision instead")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    keep_freed_memory()  # ours asks for it over a file; the peers in this process have it as well
    lines = [line for line in flags.source.read_text(encoding="utf-8").splitlines() if line.strip()][: flags.lines]
    folder = flags.model
    if flags.base:
        folder = Path(tempfile.mkdtemp(prefix="base-"))
        random_base(folder, AutoTokenizer.from_pretrained(flags.model))
    bench = Bench(folder, lines, flags)
    if flags.exact or flags.target:
        if flags.exact:
            exactness(bench)
        if flags.target:
            quality(bench, flags.target)
        return
    print(
        "| row | ratio (range) | must | ours, s | peer, s | same outputs | in products |\n| --- | --- | --- |"
        + " --- |" * 4
    )
    against_marian(bench)
    against_ctranslate2(bench)
    whole_processes(bench)
    if flags.json:
        flags.json.write_text(json.dumps(bench.rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
