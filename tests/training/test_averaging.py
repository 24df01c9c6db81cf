"""The average of checkpoints (§6.1): of which ones it is, and when it is taken."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformer2017 import Transformer2017ForConditionalGeneration
from transformer2017.configuration import UsageError
from transformer2017.configuration.manifest import write_manifest
from transformer2017.training import train
from transformer2017.training.averaging import average_run, average_weights, last_checkpoints


@pytest.fixture
def run(config, tmp_path):
    """A run's folder with checkpoints 8, 9 and 10 (by name, 10 comes first), and a torn one after them."""
    for step in (8, 9, 10):
        model = Transformer2017ForConditionalGeneration(config)
        model.save_pretrained(tmp_path / f"checkpoint-{step}")
        write_manifest(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-11").mkdir()
    return tmp_path


def mean_of(run, *steps):
    weights = [load_file(run / f"checkpoint-{step}" / "model.safetensors") for step in steps]
    return {name: torch.stack([each[name] for each in weights]).mean(0) for name in weights[0]}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_average_is_of_the_last_whole_checkpoints(run, count):
    found = average_weights(last_checkpoints(run, count))
    expected = mean_of(run, *(8, 9, 10)[3 - count :])
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("asked", "last", "average", "taken"),
    [
        ("bleu", {"bleu": 20.0}, {"bleu": 21.0}, "average of the last 2 checkpoints"),
        ("bleu", {"bleu": 20.0}, {"bleu": 19.0}, "last update"),
        ("wer", {"wer": 20.0}, {"wer": 21.0}, "last update"),
        ("loss", {"wer": 20.0}, {"wer": 19.0}, "average of the last 2 checkpoints"),
        ("chrf", {"bleu": 0.0, "chrf": 90.0}, {"bleu": 0.0, "chrf": 80.0}, "last update"),
        ("eval_per", {"wer": 9.0, "per": 3.0}, {"wer": 9.5, "per": 2.0}, "average of the last 2 checkpoints"),
    ],
)
def test_the_average_is_taken_unless_it_does_worse(run, monkeypatch, asked, last, average, taken):
    """A higher BLEU is better, and a lower error rate; the model ends with the weights that are named."""
    found = iter((last, average))
    monkeypatch.setattr(train, "final_scores", lambda trainer, validation: next(found))
    model = Transformer2017ForConditionalGeneration.from_pretrained(run / "checkpoint-10")
    args, state = (
        SimpleNamespace(load_best_model_at_end=False, metric_for_best_model=asked),
        SimpleNamespace(best_model_checkpoint=None),
    )
    trainer = SimpleNamespace(model=model, validation=object(), args=args, state=state)
    settings = SimpleNamespace(output_dir=str(run), average_checkpoints=2)
    scores = train.choose_weights(trainer, SimpleNamespace(training=settings))
    assert scores == {"weights": taken, "chosen": True, **(last if taken == "last update" else average)}
    expected = mean_of(run, 10) if taken == "last update" else mean_of(run, 9, 10)
    weights = model.state_dict()
    for name, weight in expected.items():
        torch.testing.assert_close(weights[name], weight)
    assert model.lm_head.weight is model.model.shared.weight  # still tied


def test_what_is_not_averaged_is_told(run, tmp_path, caplog):
    """A torn checkpoint among the last, none that is whole, and one of another model."""
    assert [path.name for path in last_checkpoints(run, 2)] == ["checkpoint-9", "checkpoint-10"]
    assert "checkpoint-11 is torn and is not used" in caplog.text
    other = {name: torch.zeros(3, 3) for name in load_file(run / "checkpoint-8" / "model.safetensors")}
    save_file(other, run / "checkpoint-8" / "model.safetensors")
    with pytest.raises(UsageError, match="checkpoint-8 holds weights of other names or sizes than"):
        average_weights([run / "checkpoint-9", run / "checkpoint-8"])
    for manifest in run.glob("*/manifest.json"):
        manifest.unlink()
    with pytest.raises(UsageError, match="holds 4 checkpoints, and none is as its manifest"):
        last_checkpoints(run, 2)


def test_an_average_replaces_nothing_unasked(run, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "note").touch()
    with pytest.raises(UsageError, match="notes is not an empty folder"):
        average_run(run, 2, tmp_path / "notes")
    with pytest.raises(UsageError, match="is a checkpoint of the run"):
        average_run(run, 2, run / "checkpoint-10", overwrite=True)
