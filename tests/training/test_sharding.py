"""Weights sharded over two processes (FSDP2) train as whole ones do: the oracle is the run of one process.

accelerate shards on GPUs alone, so it is told here that the processes have some (train_sharded.py); from there on the
code that shards, gathers, saves and loads is accelerate's and torch's own.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from transformer2017.training.train import train
from transformers import AutoModelForSeq2SeqLM

HERE = Path(__file__).parent
CONFIG = HERE.parents[1] / "docs" / "accelerate" / "fsdp_eight_gpus.yaml"
NAMES = {"fsdp_transformer_layer_cls_to_wrap": "FSDP_TRANSFORMER_CLS_TO_WRAP"}  # the others are upper case


def train_sharded(words: list[str]) -> str:
    """Two processes as `accelerate launch` would start them with the project's file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = load_config_from_file(str(CONFIG)).fsdp_config
    environment = {NAMES.get(name, name.upper()): str(value) for name, value in settings.items()}
    environment |= {"ACCELERATE_USE_FSDP": "true", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
    done = subprocess.run(
        [sys.executable, *launcher, str(HERE / "train_sharded.py"), "train", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def biases_of_keys(names: Iterable[str]) -> set[str]:
    """They add the same to all scores of a query, so the softmax knows nothing of them, and they move by rounding."""
    return {name for name in names if name.endswith("w_k.bias")}


def test_sharded_weights_train_as_whole_ones(flags, tmp_path):
    """Loss, evaluation, checkpoints, the best one loaded, resuming, the final model and its code."""
    exact = {
        "dropout": 0.0,
        "bf16": "false",
        "logging_steps": 1,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "save_steps": 4,
        "average_checkpoints": 2,
    }
    one = train(flags("one", gradient_accumulation_steps=2, **exact))
    two = tmp_path / "two"
    train_sharded(flags("two", max_steps=8, **exact))
    assert (two / "checkpoint-8" / "pytorch_model_fsdp.bin").is_file()  # or nothing was sharded
    longer = {**exact, "max_steps": 12, "resume_from_checkpoint": "true"}
    assert "going on from" in train_sharded(flags("two", **longer))
    for place in ("checkpoint-4", "checkpoint-8", "checkpoint-12", "."):
        whole, sharded = (load_file(run / place / "model.safetensors") for run in (one, two))
        assert whole.keys() == sharded.keys()
        for name in whole.keys() - biases_of_keys(whole):
            torch.testing.assert_close(sharded[name], whole[name], rtol=1e-3, atol=1e-4, msg=f"{name} of {place}")
    for place in ("checkpoint-12", "."):  # its code is the model's, not that of the class that shards
        assert (two / place / "modeling_transformer2017.py").is_file()
        AutoModelForSeq2SeqLM.from_pretrained(two / place)
