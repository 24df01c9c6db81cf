"""The accelerate configuration files are ones that accelerate reads."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

FILES = sorted((Path(__file__).parents[2] / "docs" / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_accelerate_reads_it(file):
    config = load_config_from_file(str(file))
    assert config.num_processes == {"one_gpu": 1, "eight_gpus": 8, "two_cpu_processes": 2}[file.stem]
    assert config.use_cpu == ("cpu" in file.stem)
