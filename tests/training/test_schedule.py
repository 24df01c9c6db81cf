"""The learning rate is the formula of §5.3."""

import pytest
import torch
from transformer2017.training.schedule import inverse_square_root_schedule, peak_learning_rate


@pytest.mark.parametrize(("d_model", "warmup"), [(512, 4000), (1024, 4000), (256, 7)])
def test_rate_of_each_update_is_the_papers_formula(d_model, warmup):
    """lrate = d_model^-0.5 * min(step^-0.5, step * warmup^-1.5), the first update being step 1."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=peak_learning_rate(d_model, warmup))
    schedule = inverse_square_root_schedule(optimizer, warmup)
    for step in range(1, 3 * warmup if warmup < 100 else 200):
        formula = d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(formula, rel=1e-12)
        optimizer.step()
        schedule.step()
