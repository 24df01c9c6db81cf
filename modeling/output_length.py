"""How long an output may grow (§6.1)."""

from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from .padding import PaddingAwareGenerationMixin


class BoundedGenerationMixin(PaddingAwareGenerationMixin):
    """`generate()`, bounded by the input's length plus `max_tokens_beyond_input` of the generation config."""

    def _prepare_generated_length(
        self, generation_config: GenerationConfig, has_default_max_length: bool, inputs_tensor: Tensor, **kwargs: Any
    ) -> GenerationConfig:
        """Sets the paper's bound where the caller gives none; `inputs_tensor` is the source (batch, source_len)."""
        margin = getattr(generation_config, "max_tokens_beyond_input", None)
        if margin is not None and has_default_max_length and generation_config.max_new_tokens is None:
            generation_config.max_new_tokens = inputs_tensor.shape[1] + margin
        return super()._prepare_generated_length(
            generation_config, has_default_max_length, inputs_tensor=inputs_tensor, **kwargs
        )
