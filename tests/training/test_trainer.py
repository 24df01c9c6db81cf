"""`Transformer2017Trainer` as a part of somebody's own program, with what `Seq2SeqTrainer` takes."""

import copy
import itertools
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformer2017.configuration import UsageError
from transformer2017.training.trainer import SeedEachUpdate, Transformer2017Trainer
from transformer2017.training.training_arguments import TrainingArguments
from transformers import Seq2SeqTrainingArguments


@pytest.fixture
def pairs() -> Dataset:
    lengths = torch.randint(2, 9, (40, 2)).tolist()
    sides = [[torch.randint(4, 97, (side[i],)).tolist() for side in lengths] for i in (0, 1)]
    return Dataset.from_dict({"input_ids": sides[0], "labels": sides[1]})


@pytest.fixture
def trainer(model, tmp_path):
    """Makes one of three updates, always from the same weights."""
    model.config.label_smoothing = 0.1
    start = {name: weight.clone() for name, weight in model.state_dict().items()}

    def made(train_dataset, arguments=None, **kwargs):
        model.load_state_dict(start)
        settings = {  # SGD, as Adam makes whole steps of what rounding leaves of a gradient that is 0
            "max_steps": 3, "batch_tokens": 64, "optim": "sgd", "learning_rate": 0.1, "warmup_steps": 1,
            "use_cpu": True, "report_to": [],
        }  # fmt: skip
        args = TrainingArguments(str(tmp_path), **(settings | (arguments or {})))
        given = None if "model_init" in kwargs else model
        return Transformer2017Trainer(given, args, train_dataset=train_dataset, **kwargs)

    return made


def weights_after(trainer) -> dict[str, torch.Tensor]:
    trainer.train()
    return {name: weight.clone() for name, weight in trainer.model.state_dict().items()}


def assert_same(one, other, **tolerance):
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, **tolerance)


def smoothed(outputs, labels, num_items_in_batch=None):
    """A loss of the user's own, from the logits."""
    summed = cross_entropy(outputs.logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1, reduction="sum")
    return summed / num_items_in_batch


def test_a_loss_of_ones_own_and_transformers_smoothing_train_as_the_models_loss(trainer, pairs):
    """Both are computed from logits, which the model gives where it is not handed the labels."""
    usual = weights_after(trainer(pairs))
    of_ones_own = weights_after(trainer(pairs, compute_loss_func=smoothed))
    of_transformers = weights_after(trainer(pairs, {"label_smoothing_factor": 0.1}))
    assert_same(usual, of_ones_own, atol=1e-4, rtol=1e-4)
    assert_same(usual, of_transformers, atol=1e-4, rtol=1e-4)
    with pytest.raises(AssertionError):  # three updates are more than the tolerance
        assert_same(usual, trainer(pairs).model.state_dict(), atol=1e-3, rtol=1e-3)


def test_lengths_are_counted_where_they_are_not_noted(trainer, pairs):
    noted = pairs.map(lambda row: {"source_length": len(row["input_ids"]), "target_length": len(row["labels"])})
    assert_same(weights_after(trainer(noted)), weights_after(trainer(pairs)), atol=0, rtol=0)


@pytest.mark.parametrize("with_lengths", [False, True])
def test_a_part_of_a_dataset_trains_as_its_rows_do(trainer, pairs, with_lengths):
    """`select`, `shuffle` and `train_test_split` leave the table as it is, and note which rows are meant."""
    if with_lengths:
        pairs = pairs.map(lambda row: {"source_length": len(row["input_ids"]), "target_length": len(row["labels"])})
    part = pairs.train_test_split(0.4, seed=1)["train"]
    rows = Dataset.from_dict(part.to_dict())
    assert_same(weights_after(trainer(rows)), weights_after(trainer(part)), atol=0, rtol=0)


def test_an_update_is_taken_in_parts_that_fit_a_device(trainer, pairs):
    """As many as there are when the number of parts is said."""
    said = weights_after(trainer(pairs, {"gradient_accumulation_steps": 4}))
    made = trainer(pairs, {"device_batch_tokens": 16})
    assert made.args.gradient_accumulation_steps == 4
    assert_same(said, weights_after(made), atol=0, rtol=0)


def test_random_numbers_differ_by_seed_update_and_process_and_by_nothing_else():
    """Two processes with the same dropout would train on less noise than one process that takes both batches."""

    def drawn(seed, update, process):
        args, state = SimpleNamespace(seed=seed, process_index=process), SimpleNamespace(global_step=update)
        SeedEachUpdate().on_step_begin(args, state, None)
        return random.random(), np.random.random(), torch.rand(1).item()

    numbers = [drawn(*which) for which in itertools.product((1, 2), repeat=3)]
    for each in zip(*numbers, strict=True):
        assert len(set(each)) == 8
    assert numbers == [drawn(*which) for which in itertools.product((1, 2), repeat=3)]


def test_muon_is_refused_where_matrices_are_sharded(trainer, pairs):
    made = trainer(pairs, {"muon": True})
    made.is_fsdp_enabled = True
    with pytest.raises(UsageError, match="--muon needs whole matrices, and FSDP"):
        made.create_optimizer()


def test_a_streamed_dataset_is_refused(trainer, pairs):
    with pytest.raises(UsageError, match="Seq2SeqTrainer"):
        trainer(pairs.to_iterable_dataset()).train()


def test_without_sentences_to_translate_the_best_checkpoint_has_the_lowest_loss(trainer, pairs):
    """Whose score would not be there otherwise."""
    run = trainer(pairs, {"eval_steps": 1, "save_steps": 1}, eval_dataset=pairs)
    run.train()
    losses = [logged["eval_loss"] for logged in run.state.log_history if "eval_loss" in logged]
    assert len(losses) == 3
    assert run.state.best_metric == min(losses)


@pytest.mark.parametrize(("score", "best"), [("other", min), ("bleu", max)])
def test_scores_of_ones_own_without_bleu_leave_the_best_checkpoint_to_the_loss(trainer, pairs, score, best):
    """Early stopping looks at the same score; a BLEU among them is the one."""
    rising = itertools.count()
    run = trainer(
        pairs,
        {"eval_steps": 1, "save_steps": 1, "early_stopping_patience": 5, "predict_with_generate": False},
        eval_dataset=pairs,
        compute_metrics=lambda outputs: {score: float(next(rising))},
    )
    run.train()
    name = "eval_bleu" if score == "bleu" else "eval_loss"
    assert run.state.best_metric == best(logged[name] for logged in run.state.log_history if name in logged)


def test_arguments_of_another_class_are_refused(model, tmp_path):
    other = Seq2SeqTrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(TypeError, match=r"takes transformer2017\..*TrainingArguments, .*not Seq2SeqTrainingArguments"):
        Transformer2017Trainer(model, other)


def test_a_model_may_be_made_when_training_begins(trainer, pairs, model):
    """As in a search for hyperparameters."""
    usual, start = trainer(pairs), copy.deepcopy(model)
    searched = trainer(pairs, model_init=lambda: copy.deepcopy(start))
    assert_same(weights_after(usual), weights_after(searched), atol=0, rtol=0)


def test_scores_and_logs_of_any_kind_are_shown(trainer, pairs, capsys):
    """`Seq2SeqTrainer` takes words among scores, and a loss in the logs without a rate."""
    settings = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "predict_with_generate": False}
    scores = {"compute_metrics": lambda predictions: {"signature": "v1", "half": 0.5}}
    made = trainer(pairs, settings | {"metric_for_best_model": "half"}, eval_dataset=pairs, **scores)
    made.train()
    assert "half 0.50" in capsys.readouterr().out
    made.log({"loss": 1.0})


def test_true_goes_on_from_a_checkpoint_that_is_whole(trainer, pairs):
    """As `transformer2017 train` does: a torn one is passed over."""
    settings = {"save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": False}
    made = trainer(pairs, settings)
    expected = weights_after(made)
    (Path(made.args.output_dir) / "checkpoint-3" / "optimizer.pt").unlink()
    again = trainer(pairs, settings)
    again.train(True)
    assert again._initial_global_step == 2
    assert_same(expected, again.model.state_dict(), rtol=0, atol=0)


def test_an_update_of_more_batches_than_pairs_is_refused(trainer, pairs):
    with pytest.raises(UsageError, match="2 pairs cannot fill the 3 batches of an update"):
        trainer(pairs.select(range(2)), {"gradient_accumulation_steps": 3}).train()


def test_muon_without_a_matrix_to_train_is_refused(trainer, pairs):
    made = trainer(pairs, {"muon": True})
    for name, weight in made.model.named_parameters():
        weight.requires_grad_("shared" in name)
    with pytest.raises(UsageError, match="--muon has no matrix to train"):
        made.train()
