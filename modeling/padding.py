"""How `generate()` of transformers learns of padding, and of what a given cache holds of the target already."""

from typing import Any

from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.generation import GenerationMixin

from .cache_name import CACHE


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

    def _prefill(
        self, input_ids: Tensor, generation_config: GenerationConfig, model_kwargs: dict[str, Any], **kwargs: Any
    ) -> Any:
        """Leaves out what the cache holds of the target so far (batch, target_len), where it has no mask either.

        transformers looks at the length of the mask to tell a whole target from new tokens alone, and without one
        would read the whole target again, behind itself.
        """
        cache = model_kwargs.get(CACHE)
        if cache is not None and cache.get_seq_length() < input_ids.shape[1]:
            generation_config._mask_length = input_ids.shape[1]
        return super()._prefill(input_ids, generation_config, model_kwargs, **kwargs)

    @staticmethod
    def create_masks_for_generate(attention_mask: Tensor | None, **kwargs: Any) -> Tensor | None:
        """Returns the mask of the target (batch, length of the cache), where transformers would return one of scores.

        Called for caches of a fixed length. What is not there yet is no padding: the cache hides it.
        """
        if attention_mask is None:
            return None
        missing = kwargs[CACHE].self_attention_cache.layers[0].max_cache_len - attention_mask.shape[1]
        return nn.functional.pad(attention_mask, (0, missing), value=1)
