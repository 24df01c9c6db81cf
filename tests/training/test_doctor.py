"""The doctor: it finds a sound run sound, and a faulty one faulty."""

import math

import pytest
import torch
from transformer2017.cli import main
from transformer2017.training import doctor


@pytest.mark.parametrize(("smoothing", "size"), [(0.1, 50), (0.0, 50), (0.3, 2)])
def test_the_floor_is_the_least_loss(smoothing, size):
    """torch's label-smoothed cross-entropy of the best prediction, the smoothed distribution itself."""
    best = torch.full((1, size), smoothing / size)
    best[0, 0] += 1 - smoothing
    loss = torch.nn.functional.cross_entropy(best.clamp_min(1e-30).log(), torch.tensor([0]), label_smoothing=smoothing)
    assert doctor.smoothing_floor(smoothing, size) == pytest.approx(loss.item(), abs=1e-5)


def test_a_sound_run(flags, capsys):
    """It shows the shifted pair, learns 100 pairs by heart, and says what the run will take."""
    sizes = {"d_model": 64, "d_ff": 128, "max_steps": 50, "bpe_dropout": 0.1}
    assert main(["doctor", *flags(**sizes)]) == 0
    shown = capsys.readouterr().out
    assert "decoder in  <s> ▁" in shown
    assert "(ignored)" in shown
    assert "start 1 <s>, pad 0 <pad>, end 2 </s>" in shown
    assert "unknown     0.000% of" in shown
    assert "overfit     100 pairs, loss" in shown
    assert "50 updates" in shown


def test_gradients_that_are_not_finite_are_found(flags, capsys, monkeypatch):
    class Broken(torch.optim.Adam):
        def step(self, *args, **kwargs):
            super().step(*args, **kwargs)
            self.param_groups[0]["params"][0].data.fill_(math.nan)

    monkeypatch.setattr(torch.optim, "Adam", Broken)
    assert main(["doctor", *flags()]) == 1
    assert "FAILED: loss nan" in capsys.readouterr().out
