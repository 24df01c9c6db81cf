"""The accelerate configuration files start as many processes as they say."""

from pathlib import Path

import pytest
from accelerate.commands import launch

FILES = sorted((Path(__file__).parents[2] / "docs" / "accelerate").glob("*.yaml"))
EXPECTED = {
    "one_gpu": ("simple_launcher", 1),
    "eight_gpus": ("multi_gpu_launcher", 8),
    "fsdp_eight_gpus": ("multi_gpu_launcher", 8),
    "fsdp_64_gpus": ("multi_gpu_launcher", 64),
    "two_cpu_processes": ("multi_gpu_launcher", 2),  # run for what it is in tests/training/test_processes.py
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_accelerate_launches_it(file, monkeypatch):
    """Only one of its launchers starts several processes; `distributed_type: MULTI_CPU` goes to the other."""
    started = []
    for name in ("simple_launcher", "multi_gpu_launcher"):
        monkeypatch.setattr(launch, name, lambda args, name=name: started.append((name, args.num_processes)))
    words = ["--config_file", str(file), "-m", "transformer2017", "train"]
    launch.launch_command(launch.launch_command_parser().parse_args(words))
    assert started == [EXPECTED[file.stem]]
