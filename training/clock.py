"""What happens by the clock and not by updates: checkpoints every so many minutes (§6.1), and the end of a run."""

import time
from typing import Any

import torch
from accelerate.utils import broadcast
from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerState


class Clock(TrainerCallback):
    """Has a run save every `save_minutes`, and end, with an evaluation and a checkpoint, after `max_minutes`.

    The clock is that of the first process: were each to look at its own, one could end an update before another.
    """

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self.began = self.saved = time.monotonic()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Looks at the clock."""
        now = time.monotonic()
        saves = bool(args.save_minutes) and now - self.saved >= 60 * args.save_minutes
        ends = bool(args.max_minutes) and now - self.began >= 60 * args.max_minutes
        saves, ends = _as_the_first_process_says([saves, ends], args)
        if saves:
            self.saved = now
            control.should_save = True
        if ends and not control.should_training_stop:
            control.should_training_stop = control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"
            if state.is_world_process_zero:
                place = f"update {state.global_step:,} of {state.max_steps:,}"
                tqdm.write(f"{place}: ends here, by --max_minutes {args.max_minutes:g}")


def _as_the_first_process_says(answers: list[bool], args: Any) -> list[bool]:
    if args.world_size == 1:
        return answers
    return [bool(answer) for answer in broadcast(torch.tensor(answers, device=args.device).int()).tolist()]
