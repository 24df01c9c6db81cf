"""The matrix of faults: after each, no half model, the next start goes on or says what to do, nothing done is lost."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import ENVIRONMENT, LONG, assert_no_half_model, kill, same_weights

pytestmark = pytest.mark.faults


@pytest.mark.parametrize(("processes", "kills"), [(1, 40), (2, 10)])
def test_sigkill_at_random_moments(command, request, moments, tell, processes, kills):
    """A moment between the start and the end of what is left, most of them while checkpoints are written."""
    whole = request.getfixturevalue("whole" if processes == 1 else "whole_of_two")
    killed, runs, torn = 0, 0, 0
    while killed < kills:
        run = command.work / f"killed-{processes}-{runs}"
        process = command.start(run, processes=processes)
        if moments.random() < 0.8:  # in training; else anywhere from the start of the program on
            command.wait_for(process, "_run/train.tokens.json", "checkpoint-5", run=run)
        time.sleep(moments.uniform(0, 4))
        alive = process.poll() is None
        kill(process) if alive else None
        process.wait(LONG)
        killed += alive
        assert_no_half_model(run)
        torn += any(not (path / "manifest.json").exists() for path in run.glob("checkpoint-*"))
        if not alive:
            assert process.returncode == 0, command.said()
            assert same_weights(whole, run)
            runs += 1
    command.end(run, processes=processes)
    assert same_weights(whole, run)
    tell(
        f"SIGKILL at random moments, {processes} process{'es' * (processes > 1)}",
        f"{killed} kills over {runs + 1} runs, {torn} of them left a torn checkpoint; each run ended with the very "
        "weights of the uninterrupted one",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_stops_with_a_checkpoint(command, whole, tell, number):
    run = command.work / number.name
    process = command.start(run)
    command.wait_for(process, "checkpoint-10", run=run)
    process.send_signal(number)
    assert process.wait(LONG) == 128 + number
    assert "the same command goes on from it" in command.said()
    assert_no_half_model(run)
    assert "going on from" in command.end(run)
    assert same_weights(whole, run)
    tell(number.name, f"a checkpoint after the update, exit code {128 + number}; gone on to the same weights")


def test_a_signal_to_two_processes(command, whole_of_two, tell):
    """torchrun hands SIGTERM on to both; they stop after the same update."""
    run = command.work / "SIGTERM-2"
    process = command.start(run, processes=2)
    command.wait_for(process, "checkpoint-10", run=run)
    process.send_signal(signal.SIGTERM)
    process.wait(LONG)
    kept = list((run / "_run" / "stopped").glob("checkpoint-*"))
    assert len(kept) <= 1
    assert "going on from" in command.end(run, processes=2)
    assert same_weights(whole_of_two, run)
    tell("SIGTERM to `torchrun` of 2 processes", "both stop after the same update; gone on to the same weights")


def test_two_signals_stop_at_once(command, whole, tell):
    run = command.work / "twice"
    process = command.start(run)
    command.wait_for(process, "checkpoint-10", run=run)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LONG) == 128 + signal.SIGTERM
    command.end(run)
    assert same_weights(whole, run)
    tell("SIGTERM twice", "stopped at once, exit code 143; gone on from the checkpoint before")


def test_a_full_disk(command, whole, small_disk, tell):
    """A file system of 1 MiB fills up in training; with more room the same command goes on."""
    run = small_disk.path / "run"
    said = command.end(run, code=1)
    assert "No space left" in said or "could not be written" in said
    assert_no_half_model(run)
    small_disk.mount("remount,size=200m")
    assert "going on from" in command.end(run)
    assert same_weights(whole, run)
    tell(
        "full disk (a file system of 1 MiB)",
        f"exit code 1: {_last(said)}; with more room, gone on to the same weights",
    )


def test_a_limit_of_file_size(command, whole, tell):
    """RLIMIT_FSIZE: no file over 40,000 bytes, so neither weights nor the optimizer's state can be written."""
    run = command.work / "limited"
    limit = 40_000
    said = command.end(run, code=1, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert_no_half_model(run)
    command.end(run)
    assert same_weights(whole, run)
    tell("no file may be over 40,000 bytes (RLIMIT_FSIZE)", f"exit code 1: {_last(said)}; without the limit, done")


def test_an_unwritable_folder(command, small_disk, tell):
    """Root may write anywhere but on a read-only file system."""
    small_disk.mount("remount,ro")
    said = command.end(small_disk.path / "run", code=2)
    assert "cannot be written" in said
    under_a_file = command.end(command.corpus["val.en"] / "run", code=2)
    assert "cannot be written" in under_a_file
    tell("unwritable folder (a read-only file system)", f"exit code 2: {_last(said)}")


@pytest.mark.parametrize("damage", ["cut short", "a flipped bit"])
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_a_damaged_checkpoint(command, whole, tell, file, damage):
    run = command.work / f"{file}-{damage[0]}"
    process = command.start(run)
    command.wait_for(process, "checkpoint-15/manifest.json", run=run)
    process.send_signal(signal.SIGKILL)
    process.wait(LONG)
    last = max(run.glob("checkpoint-*/manifest.json"), key=lambda path: int(path.parent.name[11:])).parent
    content = bytearray((last / file).read_bytes())
    content[len(content) // 2] ^= 1
    (last / file).write_bytes(content if damage == "a flipped bit" else content[:-9])
    assert f"{last.name} is torn" in command.end(run)
    assert same_weights(whole, run)
    tell(f"{file} of the last checkpoint: {damage}", "told; gone on from the checkpoint before, to the same weights")


def test_a_lost_process_that_loads_data(command, whole, tell):
    run = command.work / "worker"
    process = command.start(run, dataloader_num_workers=1)
    command.wait_for(process, "checkpoint-10", run=run)
    worker = _child_of(process.pid)
    os.kill(worker, signal.SIGKILL)
    assert process.wait(LONG) == 1, command.said()
    said = command.said()
    assert "A process that loads data was killed" in said
    assert "Traceback" not in said
    command.end(run, dataloader_num_workers=0)
    assert same_weights(whole, run)
    tell("a worker that loads data, killed", f"exit code 1: {_last(said)}; gone on to the same weights")


def test_a_lost_process_of_two(command, whole_of_two, tell):
    run = command.work / "rank"
    process = command.start(run, processes=2)
    command.wait_for(process, "checkpoint-10", run=run)
    os.kill(_child_of(process.pid, last=True), signal.SIGKILL)
    assert process.wait(LONG) != 0
    assert_no_half_model(run)
    assert "going on from" in command.end(run, processes=2)
    assert same_weights(whole_of_two, run)
    tell("one process of two, killed", "`torchrun` ends the other; gone on to the same weights")


@pytest.mark.parametrize(
    ("fault", "told"),
    [("memory", "Memory ran out"), ("loss", "The loss of update 9 is nan"), ("gradient", "nan")],
)
def test_a_fault_inside_an_update(command, whole, tell, fault, told):
    run = command.work / fault
    said = command.end(run, code=1, fault=fault)
    assert told in said or "not a number" in said
    assert "checkpoint-5" in said
    assert_no_half_model(run)
    command.end(run)
    assert same_weights(whole, run)
    names = {"memory": "memory runs out in a batch", "loss": "NaN in the loss", "gradient": "NaN in a gradient"}
    tell(names[fault], f"exit code 1: {_last(said)}; without the fault, gone on to the same weights")


def test_a_clock_that_jumps(command, whole, tell):
    """By up to ten years at each reading; and checkpoints whose times are in the wrong order."""
    run = command.work / "clock"
    process = command.start(run, fault="clock")
    command.wait_for(process, "checkpoint-20", run=run)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LONG) == 143, command.said()
    for i, path in enumerate(sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))):
        os.utime(path, (1e9 - i * 1e6,) * 2)
    command.end(run, fault="clock")
    assert same_weights(whole, run)
    tell("a clock that jumps", "the same weights")


def test_two_runs_into_one_folder(command, tell):
    """The first has far more updates to do than the second needs to begin."""
    run = command.work / "both"
    process = command.start(run, max_steps=1_000_000)
    command.wait_for(process, "checkpoint-5", run=run)
    words = command.words(run)
    second = subprocess.run(words, capture_output=True, text=True, timeout=LONG, env=ENVIRONMENT)
    assert second.returncode == 2, second.stderr
    assert "Another process is training" in second.stderr
    assert process.poll() is None, command.said()
    process.send_signal(signal.SIGTERM)
    assert process.wait(LONG) == 143, command.said()
    told = f"the second: exit code 2, {_last(second.stderr)}; the first goes on"
    tell("two runs into one folder at once", told)


def _last(said: str) -> str:
    """The sentence for the user, without the folder of this test."""
    line = next(line for line in reversed(said.splitlines()) if line.startswith("transformer2017: "))
    words = line.removeprefix("transformer2017: ").split()
    return " ".join(Path(word).name if word.startswith("/") else word for word in words).rstrip(".")


def _child_of(parent: int, last: bool = False) -> int:
    """A process that another has started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    assert children, f"no child of {parent}; {sys.platform}"
    return int(children[-1 if last else 0])
