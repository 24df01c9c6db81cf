"""How much of an update a device takes at once."""

import json
import subprocess
import sys

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformer2017 import Transformer2017Config, Transformer2017ForConditionalGeneration
from transformer2017.training import memory
from transformer2017.training.training_arguments import TrainingArguments

GIBIBYTE = 2**30


@pytest.fixture(scope="module")
def model():
    return Transformer2017ForConditionalGeneration(Transformer2017Config.from_preset("tiny", vocab_size=500))


def arguments(tmp_path, batch_tokens=25_000):
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True, batch_tokens=batch_tokens)


def test_bytes_of_a_token_foretell_those_of_a_larger_batch(model):
    """What torch's profiler sees a forward pass allocate and not free is what is kept for the backward pass.

    Counting leaves the random numbers as they were.
    """
    torch.manual_seed(0)
    drawn = torch.get_rng_state()
    foretold = memory.bytes_per_token(model, bfloat16=False)
    assert torch.equal(torch.get_rng_state(), drawn)
    more = bytes_left_allocated(model, 64, 32) - bytes_left_allocated(model, 8, 32)
    assert more / (56 * 32) == pytest.approx(foretold, rel=0.02)


def bytes_left_allocated(model, rows, length):
    ids = torch.full((rows, length), 5)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        loss = model.train()(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
    assert loss.requires_grad
    return sum(event.self_cpu_memory_usage for event in seen.key_averages())


@pytest.mark.parametrize("gibibytes", [64, 3, 2, 1])
def test_an_update_is_taken_in_parts_that_fit(model, tmp_path, monkeypatch, gibibytes):
    """A power of 2, and no more than the memory asks for."""
    monkeypatch.setattr(memory, "memory_of_device", lambda device: gibibytes * GIBIBYTE)
    monkeypatch.setattr(memory, "bytes_per_token", lambda model, bfloat16: 50_000)
    args = arguments(tmp_path)
    memory.fit_accumulation_to_memory(args, model)
    parts_taken = args.gradient_accumulation_steps
    room = max(0.6 * gibibytes * GIBIBYTE - memory.memory_of_run(model, 0, False), 0.1 * gibibytes * GIBIBYTE)
    assert 25_000 * 50_000 / parts_taken <= room
    assert parts_taken == 1 or 25_000 * 50_000 / (parts_taken / 2) > room
    assert parts_taken.bit_count() == 1


def test_a_run_goes_on_with_the_parts_that_it_began_with(model, tmp_path, monkeypatch):
    """On a machine with more memory, too, or its batches would be others; another size of update is settled anew."""
    note = tmp_path / "parts.json"
    monkeypatch.setattr(memory, "memory_of_device", lambda device: GIBIBYTE)
    began, goes_on = arguments(tmp_path), arguments(tmp_path)
    memory.fit_accumulation_to_memory(began, model, note)
    assert began.gradient_accumulation_steps > 1
    monkeypatch.setattr(memory, "memory_of_device", lambda device: 64 * GIBIBYTE)
    memory.fit_accumulation_to_memory(goes_on, model, note)
    assert goes_on.gradient_accumulation_steps == began.gradient_accumulation_steps
    other = arguments(tmp_path, batch_tokens=2048)
    memory.fit_accumulation_to_memory(other, model, note)
    assert other.gradient_accumulation_steps == 1


def test_all_processes_take_as_many_parts_as_the_smallest_gpu_needs(model, tmp_path, monkeypatch):
    """They would wait for one another without end if one had fewer batches in an update."""
    note = tmp_path / "parts.json"
    monkeypatch.setattr(memory, "memory_of_device", lambda device: 64 * GIBIBYTE)
    monkeypatch.setattr(memory, "max_over_processes", lambda number, args: max(number, 4))
    args = arguments(tmp_path)
    memory.fit_accumulation_to_memory(args, model, note)
    assert args.gradient_accumulation_steps == 4
    assert json.loads(note.read_text())["batches_per_update"] == 4


KEPT_AND_GIVEN_BACK = """
import sys
import torch
from pathlib import Path
from types import SimpleNamespace
from transformer2017.modeling.freed_memory import keep_freed_memory
from transformer2017.training import memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if not keep_freed_memory():
    sys.exit("skipped: not glibc")
before = resident()
pieces = [torch.ones(2**18) for _ in range(200)]  # 1 MiB each
for even in range(0, 200, 2):
    pieces[even] = None  # each between two that stay, so that the heap's end cannot come down
kept = resident() - before
memory.FreedMemory().on_step_end(None, SimpleNamespace(global_step=memory.UPDATES_BETWEEN_TRIMS - 1), None)
assert resident() - before > 0.9 * kept
memory.FreedMemory().on_step_end(None, SimpleNamespace(global_step=memory.UPDATES_BETWEEN_TRIMS), None)
print(kept / 2**20, (resident() - before) / 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_memory_is_kept_and_given_back_now_and_then():
    """200 MiB, half of it freed: all stays resident until the trim, which gives the half back."""
    done = subprocess.run([sys.executable, "-c", KEPT_AND_GIVEN_BACK], capture_output=True, text=True)
    if "not glibc" in done.stderr:
        pytest.skip("another C library")
    assert done.returncode == 0, done.stderr
    kept, left = map(float, done.stdout.split())
    assert kept > 190
    assert left < 115
