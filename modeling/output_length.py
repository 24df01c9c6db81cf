"""How long an output may grow (§6.1)."""

from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from .padding import PaddingAwareGenerationMixin

TOKENS_BEYOND_INPUT = 50  # §6.1


class BoundedGenerationMixin(PaddingAwareGenerationMixin):
    """`generate()`, bounded by the input's length plus `max_tokens_beyond_input` of the generation config."""

    def _prepare_generation_config(
        self, generation_config: GenerationConfig | None, **kwargs: Any
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """Notes whether the caller gives a `max_length`."""
        config, model_kwargs = super()._prepare_generation_config(generation_config, **kwargs)
        given = (kwargs.get("max_length"), getattr(generation_config, "max_length", None))
        config._max_length_is_given = any(length is not None for length in given)
        return config, model_kwargs

    def _prepare_generated_length(
        self,
        generation_config: GenerationConfig,
        has_default_max_length: bool,
        inputs_tensor: Tensor,  # the source (batch, source_len)
        input_ids_length: int,  # of what the output begins with
        **kwargs: Any,
    ) -> GenerationConfig:
        """Sets the paper's bound where neither the caller nor the model's own configuration gives one."""
        margin = getattr(generation_config, "max_tokens_beyond_input", None)
        given = getattr(generation_config, "_max_length_is_given", False)
        is_unnamed = has_default_max_length or not (given or named_max_length(self.generation_config))
        if margin is not None and is_unnamed and generation_config.max_new_tokens is None:
            positions = self.config.learned_positions
            generation_config.max_new_tokens = new_tokens(inputs_tensor.shape[1], margin, input_ids_length, positions)
            has_default_max_length = True
        return super()._prepare_generated_length(
            generation_config,
            has_default_max_length,
            inputs_tensor=inputs_tensor,
            input_ids_length=input_ids_length,
            **kwargs,
        )


def new_tokens(source_len: int, margin: int, begun: int, positions: int | None) -> int:
    """How many an output may get: a margin beyond its source (§6.1), or as many as there are positions for.

    Args:
        begun: Tokens that it begins with. The last one of an output is not read, and needs no position.
        positions: How many the model has learned; None where they are a formula.
    """
    longest = source_len + margin
    return longest if positions is None else min(longest, positions + 1 - begun)


def named_max_length(own: GenerationConfig) -> int | None:
    """The `max_length` of a model's own configuration; None for transformers' default.

    `Seq2SeqTrainer` writes that default, 20, into it when it first evaluates by translating.
    """
    return None if own.max_length == own._get_default_generation_params()["max_length"] else own.max_length


def with_bound(generation: dict[str, Any], own: GenerationConfig) -> dict[str, Any]:
    """Arguments of `generate()`, with the paper's bound where neither they nor the model's configuration name one."""
    bounds = [generation.get(name) for name in ("max_length", "max_new_tokens", "max_tokens_beyond_input")]
    for one in filter(None, (generation.get("generation_config"), own)):
        bounds += [named_max_length(one), one.max_new_tokens, getattr(one, "max_tokens_beyond_input", None)]
    is_bounded = any(bound is not None for bound in bounds)
    return generation if is_bounded else {**generation, "max_tokens_beyond_input": TOKENS_BEYOND_INPUT}
