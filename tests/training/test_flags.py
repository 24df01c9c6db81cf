"""Flags: which goes before which, and what the machine decides."""

import pytest
import torch
from transformer2017.training import flags as flags_module
from transformer2017.training.flags import Flags


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
