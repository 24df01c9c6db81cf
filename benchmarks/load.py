"""50 callers at once, on the pipeline and on the app: `python benchmarks/load.py MODEL --minutes 10`.

Every answer is compared with the one that the same text got alone. At the end: callers, answers, errors, wrong
answers, the median and the 99th percentile of a call's time, and the memory held before and after; then what callers
beyond the app's limit are told.
"""

import argparse
import gc
import json
import resource
import statistics
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformer2017
from transformer2017.cli.loading import load
from transformer2017.inspection import app
from transformers import pipeline

SENTENCES = [
    "Two dogs run.",
    "A man in a blue shirt is standing on a ladder cleaning a window.",
    "Several women wait outside in a city.",
    "A girl.",
    "People walk down a busy street in the rain while a child looks at a shop window and laughs.",
    "<script>alert(1)</script>",
    "두 마리의 개",
]
Call = Callable[[str], str]


def held() -> float:
    """Memory of this process, in MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def load_with(call: Call, callers: int, minutes: float) -> dict[str, Any]:
    """Calls from that many threads until the time is up."""
    alone = {text: call(text) for text in SENTENCES}
    seconds: list[float] = []
    wrong: Counter[str] = Counter()
    end = time.monotonic() + 60 * minutes

    def work(number: int) -> None:
        turn = number
        while time.monotonic() < end:
            text = SENTENCES[turn % len(SENTENCES)]
            began = time.perf_counter()
            try:
                answer = call(text)
            except Exception as error:  # counted, whatever it is
                wrong[f"error: {error}"[:100]] += 1
                continue
            seconds.append(time.perf_counter() - began)
            wrong["another answer"] += answer != alone[text]
            turn += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    time.sleep(30 * minutes)
    half = held()
    for thread in threads:
        thread.join()
    return {
        "callers": callers,
        "answers": len(seconds),
        **{name: count for name, count in wrong.items() if count},
        "wrong": wrong.total(),
        "median_s": round(statistics.median(seconds), 3),
        "p99_s": round(statistics.quantiles(seconds, n=100)[98], 3),
        "mib_at_half": round(half),
        "mib_at_end": round(held()),
    }


def of_app(url: str) -> Call:
    """A call of the page's `translate`, as a browser makes it."""

    def call(text: str) -> str:
        body = json.dumps({"data": [text, 1, 1.0, 1]}).encode()
        request = urllib.request.Request(f"{url}gradio_api/call/translate", body, {"Content-Type": "application/json"})
        event = json.load(urllib.request.urlopen(request, timeout=600))["event_id"]
        stream = urllib.request.urlopen(f"{url}gradio_api/call/translate/{event}", timeout=600).read().decode()
        kind, data = stream.strip().split("\n\n")[-1].split("\n")
        if kind != "event: complete":
            raise RuntimeError(data)
        return json.loads(data.removeprefix("data: "))[0]

    return call


def refusals(call: Call, callers: int) -> Counter[str]:
    """What so many callers at the same moment are told."""
    told: Counter[str] = Counter()

    def work() -> None:
        try:
            call(SENTENCES[0])
            told["answered"] += 1
        except urllib.error.HTTPError as error:
            told[f"{error.code}: {error.read().decode()[:160]}"] += 1
        except Exception as error:
            told[str(error)[:160]] += 1

    threads = [threading.Thread(target=work) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def main() -> int:
    """Prints a line of JSON for each of both, and the refusals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each of pipeline and app (%(default)s)")
    parser.add_argument("--callers", type=int, default=50)
    flags = parser.parse_args()
    model, tokenizer = load(flags.model)
    translate = pipeline("translation", model=model, tokenizer=tokenizer)
    found = load_with(lambda text: translate(text, num_beams=1)[0]["translation_text"], flags.callers, flags.minutes)
    print(json.dumps({"what": "pipeline", "version": transformer2017.__version__, **found}), flush=True)
    blocks = app.build(model, tokenizer, "load")
    _, url, _ = app.launch(blocks, "127.0.0.1", None, wait=False)
    try:
        served = load_with(of_app(url), flags.callers, flags.minutes)
        print(json.dumps({"what": "app", **served}), flush=True)
        print(json.dumps({"what": "200 callers at once", **refusals(of_app(url), 200)}), flush=True)
    finally:
        blocks.close()
    return 1 if found["wrong"] or served["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
