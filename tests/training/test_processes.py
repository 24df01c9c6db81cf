"""Two processes train as one does: the oracle is the run of one process with the same global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformer2017.training.train import train

TWO_PROCESSES = Path(__file__).parents[2] / "docs" / "accelerate" / "two_cpu_processes.yaml"


@pytest.mark.slow
def test_two_processes_give_the_curve_and_weights_of_one(flags, tmp_path):
    """With equal global batches, to float32 rounding: one process accumulates what two take at once."""
    exact = {
        "dropout": 0.0,
        "bf16": "false",
        "num_train_epochs": 3,
        "max_steps": -1,
        "logging_steps": 1,
        "average_checkpoints": 0,
    }
    one = train(flags("one", gradient_accumulation_steps=2, **exact))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(TWO_PROCESSES)]
    subprocess.run(
        [*launch, "-m", "transformer2017", "train", *flags("two", **exact)],
        check=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    curves = []
    for folder in (one, tmp_path / "two"):
        last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        log = json.loads((last / "trainer_state.json").read_text())["log_history"]
        curves.append(torch.tensor([entry["loss"] for entry in log if "loss" in entry]))
        weights = load_file(last / "model.safetensors")
        curves.append(torch.cat([weights[name].flatten() for name in sorted(weights)]))
    torch.testing.assert_close(curves[2], curves[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(curves[3], curves[1], rtol=1e-4, atol=1e-5)
