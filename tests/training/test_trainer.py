"""`Transformer2017Trainer` as a part of somebody's own program, with what `Seq2SeqTrainer` takes."""

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformer2017.training.trainer import Transformer2017Trainer
from transformer2017.training.training_arguments import TrainingArguments


def smoothed(outputs, labels, num_items_in_batch=None):
    """A loss of the user's own, from the logits."""
    summed = cross_entropy(outputs.logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1, reduction="sum")
    return summed / num_items_in_batch


@pytest.fixture
def train(model, tmp_path):
    """Three updates; gives the weights."""
    lengths = torch.randint(2, 9, (40, 2)).tolist()
    rows = [[torch.randint(4, 97, (length,)).tolist() for length in pair] for pair in lengths]
    pairs = Dataset.from_dict(
        {
            "input_ids": [source for source, _ in rows],
            "labels": [target for _, target in rows],
            "source_length": [source for source, _ in lengths],
            "target_length": [target for _, target in lengths],
        }
    )
    start = {name: weight.clone() for name, weight in model.state_dict().items()}

    def trained(label_smoothing_factor=0.0, **kwargs):
        model.load_state_dict(start)
        arguments = TrainingArguments(
            str(tmp_path), max_steps=3, batch_tokens=64, learning_rate=1e-2, use_cpu=True, report_to=[],
            label_smoothing_factor=label_smoothing_factor, save_strategy="no", eval_strategy="no",
            load_best_model_at_end=False,
        )  # fmt: skip
        Transformer2017Trainer(model, arguments, train_dataset=pairs, **kwargs).train()
        return {name: weight.clone() for name, weight in model.state_dict().items()}

    model.config.label_smoothing = 0.1
    return trained


def test_a_loss_of_ones_own_and_transformers_smoothing_train_as_the_models_loss(train):
    """Both are computed from logits, which the model gives where it is not handed the labels."""
    usual = train()
    for others in (train(compute_loss_func=smoothed), train(label_smoothing_factor=0.1)):
        for name, weight in usual.items():
            torch.testing.assert_close(others[name], weight, atol=1e-4, rtol=1e-4)
