"""When a run ends: its last update, or a score that no longer improves."""

from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import TrainerState


def evaluations_since_best(log_history: list[dict[str, Any]], metric: str, greater_is_better: bool) -> int:
    """How many evaluations have passed since the best score."""
    scores = [entry[metric] for entry in log_history if metric in entry]
    if not scores:
        return 0
    best = max(scores) if greater_is_better else min(scores)
    return len(scores) - 1 - scores.index(best)


def is_over(state: TrainerState, args: Any, max_steps: int) -> bool:
    """Whether a run in that state has nothing left to train."""
    if state.global_step >= max_steps:
        return True
    patience = args.early_stopping_patience
    if not patience:
        return False
    metric = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
    return evaluations_since_best(state.log_history, metric, args.greater_is_better) >= patience


class EarlyStopping(TrainerCallback):
    """Ends the run after `early_stopping_patience` evaluations without a better score.

    transformers' own keeps a counter, which a run that resumes would have lost; this one reads the log, which is kept.
    """

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Looks back over all scores."""
        if is_over(state, args, state.max_steps):
            control.should_training_stop = True
