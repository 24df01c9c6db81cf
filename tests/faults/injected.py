"""The command, with one fault put in from inside: `python injected.py FAULT train ...`."""

import random
import sys
import time

import torch
from transformer2017.cli import main
from transformer2017.training.trainer import Transformer2017Trainer

UPDATE = 9  # in which the fault happens


def _at_update(action):
    """Lets the action change the loss of that update."""
    compute_loss = Transformer2017Trainer.compute_loss

    def changed(self, model, *args, **kwargs):
        loss = compute_loss(self, model, *args, **kwargs)
        return action(self, loss) if model.training and self.state.global_step == UPDATE - 1 else loss

    Transformer2017Trainer.compute_loss = changed


def memory(trainer, loss):
    """More memory than any machine has: the error is torch's own."""
    torch.empty(2**52, dtype=torch.uint8)


def loss(trainer, loss):
    """NaN in the loss."""
    return loss * float("nan")


def gradient(trainer, loss):
    """NaN in the gradient of one weight; the loss is a number."""
    weight = next(trainer.model.parameters())
    weight.register_hook(lambda gradient: gradient * float("nan"))
    return loss


def clock() -> None:
    """A clock that jumps by up to ten years, both ways, each time it is read."""
    now, jumps = time.time, random.Random(0)
    time.time = lambda: now() + jumps.uniform(-3e8, 3e8)


if __name__ == "__main__":
    fault = sys.argv[1]
    clock() if fault == "clock" else _at_update({"memory": memory, "loss": loss, "gradient": gradient}[fault])
    sys.exit(main(sys.argv[2:]))
