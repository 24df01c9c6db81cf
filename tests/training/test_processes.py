"""Two processes train as one does: the oracle is the run of one process with the same global batch."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import FullyShardedDataParallelPlugin
from safetensors.torch import load_file
from transformer2017.modeling.decoder import DecoderLayer
from transformer2017.modeling.encoder import EncoderLayer
from transformer2017.training.train import train

ACCELERATE = Path(__file__).parents[2] / "docs" / "accelerate"


@pytest.mark.parametrize(
    ("name", "processes", "machines"),
    [
        ("one_gpu", 1, 1),
        ("eight_gpus", 8, 1),
        ("fsdp_eight_gpus", 8, 1),
        ("fsdp_64_gpus", 64, 8),
        ("two_cpu_processes", 2, 1),
    ],
)
def test_configuration_files_are_accelerates(name, processes, machines):
    """It knows every key, and what FSDP2 is told to shard by are the model's layers."""
    config = load_config_from_file(str(ACCELERATE / f"{name}.yaml"))
    assert (config.num_processes, config.num_machines) == (processes, machines)
    if name.startswith("fsdp"):
        assert config.fsdp_config["fsdp_version"] == 2
        named = config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")
        assert set(named) == {EncoderLayer.__name__, DecoderLayer.__name__}
        known = {f"fsdp_{field.name}" for field in dataclasses.fields(FullyShardedDataParallelPlugin)}
        known |= {"fsdp_version", "fsdp_transformer_layer_cls_to_wrap"}
        assert set(config.fsdp_config) <= known


def command(*launcher: str) -> list[str]:
    """Two processes of `transformer2017` on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if launcher == ("accelerate",):
        words = ["-m", "accelerate.commands.launch", "--config_file", str(ACCELERATE / "two_cpu_processes.yaml")]
        words += ["--main_process_port", str(port)]
    else:
        words = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
    return [sys.executable, *words, "-m", "transformer2017", "train"]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_two_processes_give_the_curve_and_weights_of_one(flags, tmp_path, launcher):
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
    subprocess.run([*command(launcher), *flags("two", **exact)], check=True, timeout=600, env=ENVIRONMENT)
    curves = []
    for folder in (one, tmp_path / "two"):
        last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        log = json.loads((last / "trainer_state.json").read_text())["log_history"]
        curves.append(torch.tensor([entry["loss"] for entry in log if "loss" in entry]))
        weights = load_file(last / "model.safetensors")
        curves.append(torch.cat([weights[name].flatten() for name in sorted(weights)]))
    torch.testing.assert_close(curves[2], curves[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(curves[3], curves[1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_killed_processes_end_with_the_weights_of_the_uninterrupted_run(flags, tmp_path):
    """SIGKILL for both in the midst of an epoch, some updates after a checkpoint; then the same command again."""
    steps = {"max_steps": 60, "save_steps": 10, "eval_steps": 10, "average_checkpoints": 0}
    steps |= {"early_stopping_patience": 100, "dropout": 0.1}
    subprocess.run([*command("torchrun"), *flags("whole", **steps)], check=True, timeout=600, env=ENVIRONMENT)
    killed = subprocess.Popen([*command("torchrun"), *flags("killed", **steps)], env=ENVIRONMENT)
    awaited = tmp_path / "killed" / "checkpoint-20" / "manifest.json"
    end = time.monotonic() + 300
    while not awaited.exists() and time.monotonic() < end:
        time.sleep(0.005)
    workers = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    assert len(workers) == 2
    for process in (*map(int, workers), killed.pid):
        os.kill(process, signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    subprocess.run([*command("torchrun"), *flags("killed", **steps)], check=True, timeout=600, env=ENVIRONMENT)
    whole, again = (load_file(tmp_path / name / "checkpoint-60" / "model.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == again.keys()
    for name, weight in whole.items():
        assert torch.equal(weight, again[name]), name
