"""The original Transformer as a model of transformers: inputs, masks, caches, outputs, tying and initialisation.

What the paper describes is in the files beside this one, a file a section.
"""

from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention import MultiHeadAttention
from .configuration_transformer2017 import Transformer2017Config
from .decoder import Decoder, DecoderLayer
from .embeddings import InputEmbedding, positions_of
from .encoder import Encoder, EncoderLayer
from .loss import IGNORED_LABEL, label_smoothed_cross_entropy
from .pipeline_transformer2017 import CUSTOM_PIPELINES


def shift_right(labels: torch.Tensor, config: Transformer2017Config) -> torch.Tensor:
    """Makes the decoder's input of the labels: the start token, then all labels but the last (§3.1).

    Args:
        labels: (batch, target_len); -100 marks padding.
    """
    shifted = labels.roll(1, dims=-1)
    shifted[:, 0] = config.decoder_start_token_id
    return shifted.masked_fill(shifted == IGNORED_LABEL, config.pad_token_id)


def padding_mask(input_ids: torch.Tensor | None, config: Transformer2017Config) -> torch.Tensor | None:
    """1 for a token, 0 for padding (batch, length); None where there are no ids to tell."""
    if input_ids is None or config.pad_token_id is None:
        return None
    return (input_ids != config.pad_token_id).long()


def embed(embedding: nn.Embedding, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
    """Looks ids up in the shared matrix, or takes its rows as given (batch, length, d_model)."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError(
            "Give exactly one of ids and embeddings: input_ids or inputs_embeds for the source, "
            "decoder_input_ids or decoder_inputs_embeds (or labels) for the target."
        )
    return embedding(input_ids) if inputs_embeds is None else inputs_embeds


class Transformer2017PreTrainedModel(PreTrainedModel):
    """What the models share: initialisation, and what they can do.

    Initialisation is that of the code that the authors released (tensor2tensor): Glorot uniform for each weight
    matrix, zero for biases, and a normal of deviation d_model^-0.5 for the shared embedding, which the embedding's
    scaling by sqrt(d_model) brings to 1 and the output projection leaves at logits of about unit size.
    Source: `transformer_base` in tensor2tensor/models/transformer.py and `get_variable_initializer` in
    tensor2tensor/utils/optimize.py; layers/modalities.py for the embedding.
    """

    config_class = Transformer2017Config
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["EncoderLayer", "DecoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self.config.d_model**-0.5)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Saves weights, configuration, and the code of this folder, so that the model loads where the package is not.

        Whichever model is saved, the folder names the classes of all, for `AutoModel` and `AutoModelForSeq2SeqLM`.
        """
        self.config.auto_map = {
            "AutoConfig": "configuration_transformer2017.Transformer2017Config",
            "AutoModel": "modeling_transformer2017.Transformer2017Model",
            "AutoModelForSeq2SeqLM": "modeling_transformer2017.Transformer2017ForConditionalGeneration",
        }
        self.config.custom_pipelines = getattr(self.config, "custom_pipelines", None) or CUSTOM_PIPELINES
        super().save_pretrained(*args, **kwargs)

    @property
    def dummy_inputs(self) -> dict[str, torch.Tensor]:
        """A tiny batch with padding, for transformers' own checks."""
        input_ids = torch.tensor([[5, 6, 7, 2], [5, 6, 2, self.config.pad_token_id]], device=self.device)
        return {"input_ids": input_ids, "decoder_input_ids": input_ids}


class Transformer2017Encoder(Transformer2017PreTrainedModel):
    """The encoder with its input: token ids, or rows of the embedding matrix, to the memory (§3.1)."""

    _can_record_outputs = {"hidden_states": EncoderLayer, "attentions": MultiHeadAttention}

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.embedding = InputEmbedding(config)
        self.layers = Encoder(config)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Reads the source.

        Args:
            input_ids: (batch, source_len).
            attention_mask: 1 for a token, 0 for padding (batch, source_len); taken from `input_ids` if None.
            inputs_embeds: Rows of the embedding matrix, before their scaling, instead of ids
                (batch, source_len, d_model).

        Raises:
            ValueError: If not exactly one of `input_ids` and `inputs_embeds` is given.
        """
        embedded = embed(self.embed_tokens, input_ids, inputs_embeds)
        if attention_mask is None:
            attention_mask = padding_mask(input_ids, self.config)
        positions = positions_of(embedded.shape[1], 0, attention_mask, embedded.device)
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=embedded, attention_mask=attention_mask)
        x = self.layers(self.embedding(embedded, positions), mask, **kwargs)
        return BaseModelOutput(last_hidden_state=x)


class Transformer2017Decoder(Transformer2017PreTrainedModel):
    """The decoder with its input: the target so far, and the memory, to the states before the output projection."""

    _can_record_outputs = {
        "hidden_states": OutputRecorder(DecoderLayer, num_hidden_layers_key="decoder_layers"),
        "attentions": OutputRecorder(MultiHeadAttention, index=1, layer_name="self_attention"),
        "cross_attentions": OutputRecorder(MultiHeadAttention, index=1, layer_name="encoder_decoder_attention"),
    }

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.embedding = InputEmbedding(config)
        self.layers = Decoder(config)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Reads the target so far, each position seeing only itself and those before it.

        Args:
            input_ids: (batch, target_len), without the positions that the cache holds.
            attention_mask: 1 for a token, 0 for padding (batch, cached_len + target_len); no padding if None.
            encoder_hidden_states: The memory (batch, source_len, d_model).
            encoder_attention_mask: 1 for a token of the source, 0 for padding (batch, source_len).
            past_key_values: Keys and values of earlier positions and of the memory.
            inputs_embeds: Rows of the embedding matrix, before their scaling, instead of ids
                (batch, target_len, d_model).
            use_cache: Whether to make and return a cache.

        Raises:
            ValueError: If not exactly one of `input_ids` and `inputs_embeds` is given, or the memory is missing.
        """
        if encoder_hidden_states is None:
            raise ValueError("The decoder attends to the encoder's output: give encoder_hidden_states.")
        embedded = embed(self.embed_tokens, input_ids, inputs_embeds)
        past_key_values = self._cache(past_key_values, use_cache)
        self_cache = None if past_key_values is None else past_key_values.self_attention_cache
        past_length = 0 if self_cache is None else self_cache.get_seq_length()

        positions = positions_of(embedded.shape[1], past_length, attention_mask, embedded.device)
        mask = create_causal_mask(
            config=self.config, inputs_embeds=embedded, attention_mask=attention_mask, past_key_values=self_cache
        )
        memory_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=embedded,
            attention_mask=encoder_attention_mask,
            encoder_hidden_states=encoder_hidden_states,
        )
        x = self.layers(
            self.embedding(embedded, positions),
            encoder_hidden_states,
            attention_mask=mask,
            memory_mask=memory_mask,
            past_key_values=past_key_values,
            **kwargs,
        )
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=x, past_key_values=past_key_values)

    def _cache(self, past_key_values: Cache | None, use_cache: bool | None) -> EncoderDecoderCache | None:
        """The cache to use: the one given, a new one, or none."""
        if past_key_values is None and use_cache:
            return EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))
        if past_key_values is not None and not isinstance(past_key_values, EncoderDecoderCache):
            return EncoderDecoderCache(past_key_values, DynamicCache(config=self.config))
        return past_key_values


class Transformer2017Model(Transformer2017PreTrainedModel):
    """Encoder and decoder over one shared embedding matrix (§3.4), without the output projection."""

    _tied_weights_keys = {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    }
    _input_embed_layer = "shared"

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Transformer2017Encoder(config)
        self.decoder = Transformer2017Decoder(config)
        self.post_init()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replaces the matrix that encoder and decoder share."""
        self.shared = self.encoder.embed_tokens = self.decoder.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[torch.Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqModelOutput:
        """Encodes the source, unless `encoder_outputs` are given, and decodes the target so far.

        Args:
            input_ids: Source (batch, source_len).
            attention_mask: 1 for a source token, 0 for padding; taken from `input_ids` if None.
            decoder_input_ids: Target so far (batch, target_len), beginning with the start token.
            decoder_attention_mask: 1 for a target token, 0 for padding (batch, cached_len + target_len).
            encoder_outputs: The encoder's output, to decode again without encoding again.
            past_key_values: Keys and values of earlier positions and of the memory.
            inputs_embeds: Rows of the embedding matrix instead of `input_ids` (batch, source_len, d_model).
            decoder_inputs_embeds: The same for the target (batch, target_len, d_model).
            use_cache: Whether to return a cache for the next step.
        """
        if attention_mask is None:
            attention_mask = padding_mask(input_ids, self.config)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask, inputs_embeds, **kwargs)
        elif not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        decoder_outputs = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            past_key_values=decoder_outputs.past_key_values,
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )


class Transformer2017ForConditionalGeneration(Transformer2017PreTrainedModel, GenerationMixin):
    """The whole of Figure 1: encoder, decoder, and the output projection, which is the shared matrix again (§3.4)."""

    _tied_weights_keys = {
        "lm_head.weight": "model.shared.weight",
        "model.encoder.embed_tokens.weight": "model.shared.weight",
        "model.decoder.embed_tokens.weight": "model.shared.weight",
    }

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__(config)
        self.model = Transformer2017Model(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=config.logits_bias)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[torch.Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Computes the logits of each next token and, where `labels` are given, the loss.

        Args:
            labels: Target (batch, target_len), -100 for padding. Shifted right, they are the decoder's input unless
                that is given. The loss is label-smoothed in training mode only (§5.4), so that in evaluation its
                exponential is the perplexity.
            num_items_in_batch: Real target tokens in the whole update; see `label_smoothed_cross_entropy`.

        The other arguments are those of `Transformer2017Model.forward`.
        """
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = shift_right(labels, self.config)
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.lm_head(outputs.last_hidden_state)  # (batch, target_len, vocab_size)
        loss = None
        if labels is not None:
            smoothing = self.config.label_smoothing if self.training else 0.0
            loss = label_smoothed_cross_entropy(logits, labels, smoothing, num_items_in_batch)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
        )

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Shifts labels right, for collators of transformers."""
        return shift_right(labels, self.config)

    def _prepare_generated_length(
        self,
        generation_config: GenerationConfig,
        has_default_max_length: bool,
        inputs_tensor: torch.Tensor,
        **kwargs: Any,
    ) -> GenerationConfig:
        """Bounds the output by the input's length plus `max_tokens_beyond_input` (§6.1), where no bound is given."""
        margin = getattr(generation_config, "max_tokens_beyond_input", None)
        if margin is not None and has_default_max_length and generation_config.max_new_tokens is None:
            generation_config.max_new_tokens = inputs_tensor.shape[1] + margin
        return super()._prepare_generated_length(
            generation_config=generation_config,
            has_default_max_length=has_default_max_length,
            inputs_tensor=inputs_tensor,
            **kwargs,
        )


Transformer2017Model.register_for_auto_class("AutoModel")
Transformer2017ForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")
Transformer2017Config.register_for_auto_class()
