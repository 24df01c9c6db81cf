"""Flags: which goes before which, and what the machine decides."""

import pytest
import torch
from transformer2017.cli import main
from transformer2017.training import flags as flags_module
from transformer2017.training.flags import Flags
from transformer2017.training.prepare import prepare


def test_flags_from_a_file_yield_to_the_command_line(flags, tmp_path):
    """A YAML or JSON file of flags comes first on the line."""
    file = tmp_path / "flags.yaml"
    file.write_text("d_model: 64\nwarmup_steps: 7\n")
    arguments = Flags([str(file), *flags(d_model=32)]).with_recipe("paper-base", with_validation=True)
    assert arguments.model.d_model == 32
    assert arguments.training.warmup_steps == 7
    assert arguments.training.adam_beta2 == 0.98


def without(words: list[str], flag: str) -> list[str]:
    place = words.index(flag)
    return words[:place] + words[place + 2 :]


@pytest.mark.parametrize("precision", [{}, {"bf16": "true"}])
def test_a_machine_without_accelerator_needs_no_flag(flags, monkeypatch, precision):
    """transformers refuses --bf16 true there unless it is told --use_cpu."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    arguments = Flags(without(flags(**precision), "--use_cpu")).with_recipe("small-data", with_validation=True)
    assert arguments.training.use_cpu
    assert arguments.training.device.type == "cpu"


@pytest.mark.parametrize("quick", [True, False])
def test_bfloat16_is_the_default_where_it_is_quick(flags, monkeypatch, quick):
    """And float32 wherever the user says so; the recipe line names it."""
    monkeypatch.setattr(flags_module, "bfloat16_is_quick", lambda use_cpu: quick)
    arguments = Flags(flags()).with_recipe("small-data", with_validation=True)
    assert arguments.training.bf16 is quick
    assert ("in bfloat16 over float32 weights" in arguments.describe()) is quick
    arguments = Flags(flags(bf16="false")).with_recipe("small-data", with_validation=True)
    assert not arguments.training.bf16
    assert "in float32" in arguments.describe()


@pytest.mark.parametrize(
    ("asked", "epochs"),
    [
        ({}, 200),  # a toy corpus would need thousands for its rate to rise and fall
        ({"batch_tokens": 32}, 134),  # 30 updates an epoch: 4,000 in 134 epochs
        ({"batch_tokens": 4}, 40),
        ({"batch_tokens": 32, "num_train_epochs": 7}, 7),
    ],
    ids=str,
)
def test_a_small_corpus_gets_more_epochs_unless_the_user_says_how_many(flags, tmp_path, monkeypatch, asked, epochs):
    monkeypatch.setattr("transformer2017.training.data.total", lambda dataset, column: 960)
    words = flags(**asked)
    for flag in ("--max_steps", *([] if "batch_tokens" in asked else ["--batch_tokens"])):
        words = without(words, flag)
    assert prepare(Flags(words), tmp_path / "store").arguments.training.num_train_epochs == epochs


@pytest.mark.parametrize(("one", "other"), [("eval_steps", "save_steps"), ("save_steps", "eval_steps")])
def test_what_is_evaluated_is_saved_where_only_one_is_said(flags, one, other):
    """transformers refuses to keep the best of what is not saved."""
    words = without(without(flags(), "--eval_steps"), "--save_steps")
    arguments = Flags([*words, f"--{one}", "6"]).with_recipe("paper-base", with_validation=True)
    assert getattr(arguments.training, other) == 6


def test_a_warm_up_as_a_part_of_the_run_needs_a_rate(flags, capsys):
    """The paper's rate follows from its number of updates, and would be that of a single one."""
    assert main(["train", *flags(recipe="paper-base", warmup_steps=0.1)]) == 2
    assert "--learning_rate" in capsys.readouterr().err
    assert main(["train", *flags(recipe="paper-base", warmup_steps=0.1, learning_rate=1e-3)]) == 0
