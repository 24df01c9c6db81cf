"""What ends a run from outside: memory that ran out, a process that was lost."""

import torch

# What torch says on the CPU, of workers that load data, and of processes that train together.
OF_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc")
OF_A_WORKER = ("DataLoader worker",)
OF_A_PROCESS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting")


def outer_fault(error: BaseException) -> str | None:
    """The beginning of a sentence for the user; None if the error is of another kind, such as a fault of the code."""
    words = str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(one in words for one in OF_MEMORY):
        return (
            "Memory ran out (give --device_batch_tokens N, which computes an update in smaller batches, with "
            "--resume_from_checkpoint true)"
        )
    if any(one in words for one in OF_A_WORKER):
        return "A process that loads data was killed (is memory short? --dataloader_num_workers 0 needs none)"
    if any(one in words for one in OF_A_PROCESS) or isinstance(error, torch.distributed.DistError):
        return "Another process of this run was lost"
    return None
