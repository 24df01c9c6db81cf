"""Weights sharded over two processes train as whole ones do: the oracle is the run of one process.

accelerate shards by FSDP2 on GPUs alone, so it is told here that the processes have some (train_sharded.py); from
there on the code that shards, gathers, saves and loads is accelerate's and torch's own. DeepSpeed shards on a CPU too.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from transformer2017.training.train import train
from transformers import AutoModelForSeq2SeqLM

HERE = Path(__file__).parent
CONFIG = HERE.parents[1] / "docs" / "accelerate" / "fsdp_eight_gpus.yaml"
NAMES = {"fsdp_transformer_layer_cls_to_wrap": "FSDP_TRANSFORMER_CLS_TO_WRAP"}  # the others are upper case


def fsdp() -> dict[str, str]:
    """What `accelerate launch` would say to its processes of the project's file."""
    settings = load_config_from_file(str(CONFIG)).fsdp_config
    environment = {NAMES.get(name, name.upper()): str(value) for name, value in settings.items()}
    return {**environment, "ACCELERATE_USE_FSDP": "true", "ACCELERATE_USE_CPU": "true"}


def zero(stage: int, folder: Path) -> list[str]:
    """DeepSpeed's file of settings as a flag of `train`, with torch's Adam, which needs no compiler."""
    settings = {
        "zero_optimization": {"stage": stage},
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }
    file = folder / "zero.json"
    file.write_text(json.dumps(settings))
    return ["--deepspeed", str(file)]


def train_sharded(words: list[str], environment: dict[str, str]) -> str:
    """Two processes of `transformer2017 train`."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(HERE / "train_sharded.py"), "train", *words],
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def biases_of_keys(names: Iterable[str]) -> set[str]:
    """They add the same to all scores of a query, so the softmax knows nothing of them, and they move by rounding."""
    return {name for name in names if name.endswith("w_k.bias")}


deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")


@pytest.mark.parametrize("stage", [None, pytest.param(2, marks=deepspeed), pytest.param(3, marks=deepspeed)])
def test_sharded_weights_train_as_whole_ones(flags, tmp_path, stage):
    """Loss, evaluation, checkpoints, the best one loaded, resuming, the final model and its code.

    By a stage of DeepSpeed's ZeRO, or by FSDP2.
    """
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
    if stage is None:
        more, environment, trace = [], fsdp(), "pytorch_model_fsdp.bin"
    else:
        more, trace = zero(stage, tmp_path), "global_step8"
        environment = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_USE_CPU": "false", "DS_ACCELERATOR": "cpu"}
    train_sharded([*flags("two", max_steps=8, **exact), *more], environment)
    assert (two / "checkpoint-8" / trace).exists()  # or nothing was sharded
    longer = {**exact, "max_steps": 12, "resume_from_checkpoint": "true"}
    assert "going on from" in train_sharded([*flags("two", **longer), *more], environment)
    for place in ("checkpoint-4", "checkpoint-8", "checkpoint-12", "."):
        whole, sharded = (load_file(run / place / "model.safetensors") for run in (one, two))
        assert whole.keys() == sharded.keys()
        for name in whole.keys() - biases_of_keys(whole):
            torch.testing.assert_close(sharded[name], whole[name], rtol=1e-3, atol=1e-4, msg=f"{name} of {place}")
    for place in ("checkpoint-12", "."):  # its code is the model's, not that of the class that shards
        assert (two / place / "modeling_transformer2017.py").is_file()
        AutoModelForSeq2SeqLM.from_pretrained(two / place)
