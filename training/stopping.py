"""When a run ends: its last update, or scores that no longer improve; and which of two scores is the better."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerState

from .training_arguments import LESS_IS_BETTER

FINER = ("chrf", "per", "loss")  # where the score asked for is level: so are BLEU and word error at their worst


def standing(scores: Mapping[str, Any], metric: str, greater_is_better: bool) -> tuple[float, ...]:
    """What evaluations are compared by, the larger the better: a score, and where that is level, finer ones.

    Args:
        scores: By name, with or without `eval_` before it.
        metric: The score that decides, and whether more of it is better.
    """
    scores = {name.removeprefix("eval_"): value for name, value in scores.items()}
    signs = [(metric, greater_is_better), *((name, name not in LESS_IS_BETTER) for name in FINER)]
    values = [(scores.get(name), 1 if is_better_high else -1) for name, is_better_high in signs]
    return tuple(
        sign * value if isinstance(value, numbers.Number) and not math.isnan(value) else -math.inf
        for value, sign in values
    )


def evaluations_since_best(log_history: list[dict[str, Any]], args: Any) -> int:
    """How many evaluations have passed since the best one."""
    metric = args.metric_for_best_model.removeprefix("eval_")
    evaluations = [entry for entry in log_history if f"eval_{metric}" in entry]
    standings = [standing(entry, metric, args.greater_is_better) for entry in evaluations]
    return len(standings) - 1 - standings.index(max(standings)) if standings else 0


def has_no_patience_left(state: TrainerState, args: Any) -> bool:
    """Whether `early_stopping_patience` evaluations have passed without a better one."""
    patience = args.early_stopping_patience
    is_asked = bool(patience and args.metric_for_best_model)
    return is_asked and evaluations_since_best(state.log_history, args) >= patience


def is_over(state: TrainerState, args: Any, max_steps: int) -> bool:
    """Whether a run in that state has nothing left to train."""
    return state.global_step >= max_steps or has_no_patience_left(state, args)


class EarlyStopping(TrainerCallback):
    """Ends the run after `early_stopping_patience` evaluations without a better one.

    transformers' own keeps a counter, which a run that resumes would have lost; this one reads the log, which is kept.
    """

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Looks back over all scores."""
        if control.should_training_stop or not has_no_patience_left(state, args):
            return
        control.should_training_stop = True
        if state.is_world_process_zero:
            metric, count = args.metric_for_best_model.removeprefix("eval_"), args.early_stopping_patience
            tqdm.write(f"update {state.global_step:,}: the last, after {count} evaluations without a better {metric}")
