"""SIGINT and SIGTERM as a request: the run ends after its update, with a checkpoint that it goes on from exactly."""

import os
import signal
import threading
from typing import Any

from transformer2017.configuration import Stopped
from transformers import TrainerCallback

from .device import max_over_processes

TOLD = b"\ntransformer2017: stopping after this update, with a checkpoint; once more to stop at once\n"


class StopSignals:
    """Hears both signals while the context lasts.

    While `waits` is set, the first one is only noted in `received`; a second one, or one at any other time, raises
    `Stopped` where it finds the program.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.waits = False
        self._process = os.getpid()
        self._former: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # no other thread may set a handler
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: object) -> None:
        if os.getpid() != self._process:  # a worker that loads data, forked with this handler
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
        elif self.waits and self.received is None:
            self.received = number
            os.write(2, TOLD)
        else:
            raise Stopped(number)


class StopOnSignal(TrainerCallback):
    """Ends training after the update in which any process heard a signal; the checkpoint is kept aside.

    Aside, so that neither the average of the last checkpoints nor the limit of their number counts it: the run ends
    with the weights that it would have had without the signal.
    """

    def __init__(self, trainer: Any, signals: StopSignals) -> None:
        self.trainer, self.signals = trainer, signals

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """From here on a signal waits for the end of an update."""
        self.signals.waits = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks all processes, since a checkpoint is written by all or none."""
        heard = max_over_processes(self.signals.received or 0, args)
        if not heard:
            return
        self.signals.received = heard
        self.trainer.keeps_aside = not control.should_save
        control.should_training_stop = control.should_save = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """In the midst of an epoch, leaves undone what is due at its end: the run that goes on does it there."""
        if self.signals.received and state.epoch % 1 and state.global_step < state.max_steps:
            control.should_evaluate = control.should_save = control.should_log = False

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """From here on a signal ends the program."""
        self.signals.waits = False
