"""`transformer2017 average`: one model of a run's last checkpoints (§6.1)."""

import argparse
from pathlib import Path


def run(argv: list[str]) -> int:
    """Averages the weights of a run's last checkpoints into a model folder of its own."""
    parser = argparse.ArgumentParser("transformer2017 average", description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder, which holds checkpoint-NUMBER folders")
    parser.add_argument("--last", type=int, default=5, help="how many of the last checkpoints (default: 5)")
    parser.add_argument("--output_dir", type=Path, required=True, help="where the model goes")
    parser.add_argument("--overwrite_output_dir", action="store_true", help="replace a model that is there")
    flags = parser.parse_args(argv)
    from transformer2017.training.averaging import average_run

    used = average_run(flags.run, flags.last, flags.output_dir, flags.overwrite_output_dir)
    print(f"{flags.output_dir} is the average of {', '.join(path.name for path in used)}")
    return 0
