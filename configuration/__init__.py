"""How a Transformer is described: its sizes, the paper's variants by name, and how the user is told of a fault."""

from .configuration_transformer2017 import Transformer2017Config
from .errors import RunError, Stopped, UsageError, in_a_line
from .presets import PRESETS

__all__ = ["PRESETS", "RunError", "Stopped", "Transformer2017Config", "UsageError", "in_a_line"]
