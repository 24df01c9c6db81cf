"""When a run is over: at its last update, or after so many evaluations without a better score."""

from types import SimpleNamespace

import pytest
from transformer2017.training.stopping import is_over, standing
from transformers.trainer_callback import TrainerState


@pytest.mark.parametrize(
    ("scores", "over"),
    [
        ([], False),
        ([5.0], False),
        ([5.0, 4.0], False),
        ([5.0, 4.0, 4.5], True),
        ([5.0, 4.0, 6.0], False),
        ([5.0, 5.0, 5.0], True),  # as good is not better
        ([5.0, 4.0, 6.0, 5.0, 5.5], True),
    ],
)
@pytest.mark.parametrize("greater_is_better", [True, False])
def test_patience_is_the_number_of_evaluations_without_a_better_score(scores, over, greater_is_better):
    """Patience 2; among the scores stand entries without one."""
    log = [entry for s in scores for entry in ({"loss": 9.9}, {"eval_bleu": s if greater_is_better else -s})]
    state = TrainerState(global_step=7, log_history=log)
    args = SimpleNamespace(metric_for_best_model="bleu", greater_is_better=greater_is_better)
    args.early_stopping_patience = 2
    assert is_over(state, args, 100) is over
    assert is_over(state, args, 7)
    args.early_stopping_patience = 0
    assert not is_over(state, args, 100)


def test_where_a_score_is_level_finer_ones_tell_which_is_better():
    """All outputs wrong, or none with four right words in a row, is where runs begin; their loss falls meanwhile."""
    args = SimpleNamespace(metric_for_best_model="wer", greater_is_better=False, early_stopping_patience=1)
    first, second = {"eval_wer": 100.0, "eval_per": 90.0, "eval_loss": 3.0}, {"eval_wer": 100.0, "eval_per": 80.0}
    assert not is_over(TrainerState(log_history=[first, {**second, "eval_loss": 3.5}]), args, 9)
    assert is_over(TrainerState(log_history=[first, {**first, "eval_loss": 3.5}]), args, 9)
    assert not is_over(TrainerState(log_history=[first, {**first, "eval_loss": 2.5}]), args, 9)
    assert standing({"bleu": 0.0, "chrf": 5.0}, "bleu", True) > standing({"bleu": 0.0, "chrf": 4.0}, "bleu", True)
    assert standing({"bleu": 1.0, "loss": 9.0}, "bleu", True) > standing({"bleu": 0.0, "loss": 1.0}, "bleu", True)
