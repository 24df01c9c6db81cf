"""Runs of the command that something happens to, and a table of what came of it."""

import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors import safe_open
from transformer2017.configuration.manifest import check_manifest

HERE = Path(__file__).parent
TABLE: list[tuple[str, str]] = []
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
LONG = 900  # seconds that nothing takes, however busy the machine


def pytest_terminal_summary(terminalreporter):
    if TABLE:
        terminalreporter.write_line("\n| fault | result |\n| --- | --- |")
        for fault, result in TABLE:
            terminalreporter.write_line(f"| {fault} | {result} |")


@pytest.fixture
def tell():
    """Writes a row of the table; only what a test has shown."""
    return lambda fault, result: TABLE.append((fault, result))


class Command:
    """`transformer2017 train` on the toy corpus, a very small model and a checkpoint every few updates."""

    def __init__(self, corpus: dict[str, Path], work: Path) -> None:
        self.corpus, self.work = corpus, work

    def words(self, run: Path | str, processes: int = 1, fault: str | None = None, **more) -> list[str]:
        flags = {
            "train_source": self.corpus["train.en"], "train_target": self.corpus["train.de"],
            "validation_source": self.corpus["val.en"], "validation_target": self.corpus["val.de"],
            "output_dir": self.work / run, "preset": "tiny", "d_model": 16, "d_ff": 16, "num_heads": 2,
            "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 300, "batch_tokens": 256, "max_steps": 60,
            "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 5, "save_steps": 5,
            "predict_with_generate": "false", "metric_for_best_model": "loss",
            "logging_steps": 5, "sample_outputs": 0, "disable_tqdm": "true",
            "use_cpu": "true", "early_stopping_patience": 1000, **more,
        }  # fmt: skip
        start = [sys.executable, "-m", "transformer2017"]
        if fault:
            start = [sys.executable, str(HERE / "injected.py"), fault]
        if processes > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            start = [
                *(sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"),
                *(f"--master_port={port}", "-m", "transformer2017"),
            ]
        return [*start, "train", *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]

    def start(self, run: Path | str, *, preexec_fn=None, **more) -> subprocess.Popen:
        output = open(self.work / "output.txt", "w+")  # noqa: SIM115
        return subprocess.Popen(
            self.words(run, **more), stdout=output, stderr=subprocess.STDOUT, env=ENVIRONMENT,
            start_new_session=True, preexec_fn=preexec_fn,
        )  # fmt: skip

    def said(self) -> str:
        return (self.work / "output.txt").read_text()

    def end(self, run: Path | str, code: int = 0, **more) -> str:
        """Runs to the end; what was said."""
        process = self.start(run, **more)
        assert process.wait(LONG) == code, self.said()
        assert "Traceback" not in self.said() or more.get("processes", 1) > 1, self.said()
        return self.said()

    def wait_for(self, process: subprocess.Popen, *parts: str, run: Path | str) -> None:
        """Until one of the paths is in the run's folder."""
        end = time.monotonic() + LONG
        while not any((self.work / run / part).exists() for part in parts):
            assert process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.005)


def kill(process: subprocess.Popen, number: int = signal.SIGKILL) -> None:
    """The process and all that it started."""
    os.killpg(process.pid, number)


def same_weights(one: Path, other: Path) -> bool:
    """Bit for bit, of the model and of the last checkpoint."""
    return all(_bytes(one / part) == _bytes(other / part) for part in (".", "checkpoint-60"))


def _bytes(folder: Path) -> dict[str, bytes]:
    with safe_open(folder / "model.safetensors", "np") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def assert_no_half_model(run: Path) -> None:
    """What looks like a model folder is whole."""
    if (run / "config.json").exists():
        assert (run / "manifest.json").exists()
        check_manifest(run)


@pytest.fixture(scope="session")
def command(tmp_path_factory) -> Command:
    spec = importlib.util.spec_from_file_location("toy_corpus", HERE.parent / "training" / "conftest.py")
    toy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(toy)
    work = tmp_path_factory.mktemp("faults")
    return Command(toy.write_corpus(work), work)


@pytest.fixture(scope="session")
def whole(command) -> Path:
    """The uninterrupted run: the oracle."""
    command.end("whole")
    return command.work / "whole"


@pytest.fixture(scope="session")
def whole_of_two(command) -> Path:
    """The same on two processes."""
    command.end("whole-2", processes=2)
    return command.work / "whole-2"


@pytest.fixture
def moments() -> random.Random:
    return random.Random(2017)


@dataclass
class Disk:
    """A file system in memory."""

    path: Path

    def mount(self, options: str) -> None:
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def small_disk(tmp_path):
    """Of one megabyte; `mount("remount,size=9m")` makes it larger, `mount("remount,ro")` read-only."""
    disk = Disk(tmp_path / "disk")
    disk.path.mkdir()
    try:
        disk.mount("size=1m")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", str(disk.path)], check=True)
