"""Where a loaded model computes."""

from typing import Any

from .errors import UsageError, in_a_line


def placed(model: Any, device: str | None) -> Any:
    """Moves a model to the device that a command names; to a GPU of CUDA, if there is one, if None.

    Raises:
        UsageError: If the device cannot be used.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device} cannot be used: {in_a_line(error)}") from error
