"""The memory of a run: what a batch needs, how much of one a device takes at once, and freed memory given back."""

import ctypes
import json
import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch
from transformer2017.configuration.manifest import write_whole
from transformers import PreTrainedModel, TrainerCallback

from .device import max_over_processes
from .training_arguments import TrainingArguments

UPDATES_BETWEEN_TRIMS = 100
PROCESS = 7 * 2**27  # bytes of the process with its libraries, before there is a model
STATE = 16  # bytes of a parameter, its gradient and Adam's two moments in float32
SHARE, LEAST_SHARE = 0.6, 0.1  # of all memory: for a run, and for its batch where the model alone takes more
PROBE = (1, 32)  # sentences and their length: what is counted grows with the sentences alone


class FreedMemory(TrainerCallback):
    """Gives freed memory back now and then.

    What is kept falls to pieces, as no two batches have tensors of the same sizes, and would grow without end.
    """

    def __init__(self) -> None:
        self.trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if platform.libc_ver()[0] == "glibc" else None

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """After each `UPDATES_BETWEEN_TRIMS` updates."""
        if self.trim and state.global_step % UPDATES_BETWEEN_TRIMS == 0:
            self.trim(0)


def fit_accumulation_to_memory(args: TrainingArguments, model: PreTrainedModel, note: Path | None = None) -> None:
    """Has a device take an update in parts where the whole of it would not fit into memory.

    The number of parts is a power of 2 and follows from all memory, not from what is free at the moment; `note` keeps
    it, so that a run goes on with the same batches on another machine. What the user set stays as it is.

    Args:
        args: Its `gradient_accumulation_steps` is set.
        note: Of this run; made if it is not there.
    """
    batches = _remembered(note, args.batch_tokens)
    steps = _accumulation(args, model) if batches is None else -(-batches // args.world_size)
    args.gradient_accumulation_steps = max_over_processes(steps, args)  # their GPUs may differ in memory
    if batches is None and note is not None and args.should_save:
        batches = args.world_size * args.gradient_accumulation_steps
        write_whole(note, json.dumps({"batch_tokens": args.batch_tokens, "batches_per_update": batches}))


def _accumulation(args: TrainingArguments, model: PreTrainedModel) -> int:
    memory = memory_of_device(args.device)
    room = max(SHARE * memory - memory_of_run(model, 0, args.is_half), LEAST_SHARE * memory)
    needed = args.batch_tokens / args.world_size * bytes_per_token(model, args.is_half)
    return max(1, 2 ** (int(needed / room)).bit_length()) if needed > room else 1


def _remembered(note: Path | None, batch_tokens: int) -> int | None:
    if note is None or not note.is_file():
        return None
    memory = json.loads(note.read_text())
    return memory["batches_per_update"] if memory["batch_tokens"] == batch_tokens else None


def memory_of_device(device: torch.device) -> int:
    """Bytes that a process of the run may count on: of its GPU, or its part of the machine or container."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    memory = psutil.virtual_memory().total
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        memory = min(memory, int(text))
    return memory // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def memory_of_run(model: PreTrainedModel, tokens: float, bfloat16: bool) -> float:
    """Bytes for the process, weights, gradients, Adam's moments, and a batch of so many tokens on each side."""
    return PROCESS + STATE * model.num_parameters() + (tokens * bytes_per_token(model, bfloat16) if tokens else 0)


def bytes_per_token(model: PreTrainedModel, bfloat16: bool) -> float:
    """What the forward pass keeps for the backward pass, for a source and a target token, counted on two batches."""
    rows, length = PROBE
    once, twice = (_bytes_kept(model, times * rows, length, bfloat16) for times in (1, 2))
    return (twice - once) / (rows * length)


def _bytes_kept(model: PreTrainedModel, rows: int, length: int, bfloat16: bool) -> int:
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.full((rows, length), model.config.eos_token_id, device=model.device)
    was_training = model.training
    model.train()
    random = torch.get_rng_state()
    with (
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
        torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16),
    ):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids)
    torch.set_rng_state(random)
    model.train(was_training)
    return sum(kept.values())
