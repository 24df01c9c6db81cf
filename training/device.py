"""What the machine has: an accelerator or none, whether it multiplies bfloat16 in hardware, and other processes."""

import os
import sys

import psutil
import torch

from .training_arguments import TrainingArguments


def has_accelerator() -> bool:
    """Whether there is a GPU or the like (CUDA, ROCm, MPS, XPU, ...)."""
    return torch.accelerator.is_available()


def bfloat16_is_quick(use_cpu: bool) -> bool:
    """Whether matrices are multiplied in bfloat16 by the hardware, so that autocast to it makes training quicker.

    Args:
        use_cpu: Whether the run stays on the processor where there is an accelerator.
    """
    if use_cpu or not has_accelerator():
        return _processor_has("avx512_bf16") or _processor_has("amx_tile")
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.accelerator.current_accelerator().type == "xpu"


def idle_gpus(arguments: TrainingArguments) -> int:
    """GPUs beside the one that a run of a single process is on."""
    alone = arguments.world_size == 1 and arguments.device.type == "cuda"
    return torch.cuda.device_count() - 1 if alone else 0


def others_share(arguments: TrainingArguments) -> float:
    """The share of the processor that other processes take, where threads would wait for one another in its way.

    Threads that wait hold a core for some milliseconds, unless they are told not to: with another process on two cores
    an update takes two to three times as long for it (docs/training-speed.md). 0 where it matters not.
    """
    told = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ)
    if arguments.device.type != "cpu" or torch.get_num_threads() == 1 or told or not sys.platform.startswith("linux"):
        return 0.0
    return psutil.cpu_percent(interval=0.3) / 100  # this process sleeps meanwhile


def max_over_processes(number: int, arguments: TrainingArguments) -> int:
    """The largest of the numbers that all processes of the run bring; each must call this."""
    if arguments.world_size == 1:
        return number
    numbers = torch.tensor(number, device=arguments.device)
    torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX)
    return int(numbers)


def _processor_has(name: str) -> bool:
    """Whether torch finds a unit in the processor; its names for that are not public, and may go."""
    supported = getattr(torch.cpu, f"_is_{name}_supported", None)
    return supported is not None and supported()
