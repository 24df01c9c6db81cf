"""The cache's name: transformers 5.24 calls `cache` what was `past_key_values`. Ours goes by either."""

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any

from transformers.modeling_outputs import Seq2SeqLMOutput

CACHE = "cache" if "cache" in {field.name for field in fields(Seq2SeqLMOutput)} else "past_key_values"


def takes_cache_by_either_name(forward: Callable) -> Callable:
    """Makes a `forward` that takes `past_key_values` take `cache` too, which is how `generate()` gives it."""

    @wraps(forward)
    def renamed(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "cache" in kwargs:
            kwargs["past_key_values"] = kwargs.pop("cache")
        return forward(self, *args, **kwargs)

    return renamed
