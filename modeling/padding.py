"""How `generate()` of transformers learns of padding, in the source and before a given beginning of the target."""

from typing import Any

from torch import Tensor, nn
from transformers.cache_utils import EncoderDecoderCache
from transformers.generation import GenerationMixin


class PaddingAwareGenerationMixin(GenerationMixin):
    """Masks padding where the caller gives no mask, and keeps the target's mask in the form that positions need."""

    def _prepare_model_inputs(
        self, inputs: Tensor | None, bos_token_id: Tensor | None, model_kwargs: dict[str, Any]
    ) -> tuple[Tensor, str, dict[str, Any]]:
        """Takes the source's mask from its ids, as `forward` does: transformers 5 does so for decoders alone."""
        inputs, name, model_kwargs = super()._prepare_model_inputs(inputs, bos_token_id, model_kwargs)
        if name == "input_ids" and model_kwargs.get("attention_mask") is None:
            model_kwargs["attention_mask"] = (inputs != self.config.pad_token_id).long()
        return inputs, name, model_kwargs

    @staticmethod
    def create_masks_for_generate(
        attention_mask: Tensor | None, past_key_values: EncoderDecoderCache, **kwargs: Any
    ) -> Tensor | None:
        """Returns the mask of the target (batch, length of the cache), where transformers would return one of scores.

        Called for caches of a fixed length. What is not there yet is no padding: the cache hides it.
        """
        if attention_mask is None:
            return None
        missing = past_key_values.self_attention_cache.layers[0].max_cache_len - attention_mask.shape[1]
        return nn.functional.pad(attention_mask, (0, missing), value=1)
