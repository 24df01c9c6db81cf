"""`transformer2017` whose accelerate shards on a CPU as it does on GPUs: it is told that these processes have some."""

import sys

from accelerate import state
from accelerate.utils import DistributedType
from transformer2017.cli import main

as_accelerate_does = state.AcceleratorState.__init__


def with_sharding(self: state.AcceleratorState, *args, fsdp_plugin=None, **kwargs) -> None:
    """What it does for GPUs, once the processes have met as those of a CPU do."""
    as_accelerate_does(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.distributed_type = state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


if __name__ == "__main__":
    state.AcceleratorState.__init__ = with_sharding
    sys.exit(main())
