"""The original Transformer as a model of transformers; what the paper describes is in the files beside this one."""

from typing import Any

from torch import Tensor, nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention import MultiHeadAttention
from .cache_name import CACHE, takes_cache_by_either_name
from .configuration_transformer2017 import Transformer2017Config
from .decoder import DecoderLayer
from .decoding import FastGenerationMixin
from .embeddings import InputEmbedding
from .encoder import EncoderLayer
from .loss import IGNORED_LABEL, label_smoothed_cross_entropy
from .saved_folder import SavedWithCode
from .training_speed import is_plain, projected_cross_entropy

WIDTH_AT_START = 0.5  # of the weights, to those of the authors' code


class Transformer2017PreTrainedModel(SavedWithCode, PreTrainedModel):
    """What the models share: what they can do, and how their weights begin.

    Departure: the paper gives no initialisation. The authors' code draws matrices from Glorot's uniform distribution
    and the shared embedding from a normal one of deviation d_model^-0.5 (tensor2tensor, `get_variable_initializer` in
    utils/optimize.py, layers/modalities.py). Both are half as wide here: each norm divides the gradient by the
    deviation of x + sublayer(x), so small sub-layers let more of it through (compare Wang et al., 2022, "DeepNet",
    arXiv 2203.00555). With theirs six layers may not begin to learn, and three learn late (docs/training-speed.md).
    """

    config: Transformer2017Config
    base_model_prefix = "model"
    gradient_checkpointing = False
    supports_gradient_checkpointing = True
    _no_split_modules = ["EncoderLayer", "DecoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True

    def __init__(self, config: Transformer2017Config) -> None:
        config.check()  # its fields may have been set since it was made
        super().__init__(config)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # biases and layer normalisation
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight, gain=WIDTH_AT_START)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=WIDTH_AT_START * self.config.d_model**-0.5)


class Transformer2017Encoder(Transformer2017PreTrainedModel):
    """The left half of Figure 1 with its input: from the source to the memory that the decoder reads."""

    _can_record_outputs = {"hidden_states": EncoderLayer, "attentions": MultiHeadAttention}

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__(config)
        self.embeddings = InputEmbedding(config)
        self.layers = nn.ModuleList(EncoderLayer(config, n) for n in range(config.encoder_layers))
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Reads the source: `Transformer2017Model.forward` of it, where all are real tokens without a mask."""
        x = self.embeddings(input_ids, inputs_embeds, attention_mask)  # (batch, source_len, d_model)
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=x, attention_mask=attention_mask)
        for layer in self.layers:
            x = layer(x, mask, **kwargs)
        return BaseModelOutput(x)


class Transformer2017Decoder(Transformer2017PreTrainedModel):
    """The right half of Figure 1 with its input: from target so far and memory to what predicts the next token."""

    _can_record_outputs = {
        "hidden_states": OutputRecorder(DecoderLayer, num_hidden_layers_key="decoder_layers"),
        "attentions": OutputRecorder(MultiHeadAttention, index=1, layer_name="self_attention"),
        "cross_attentions": OutputRecorder(MultiHeadAttention, index=1, layer_name="encoder_decoder_attention"),
    }

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__(config)
        self.embeddings = InputEmbedding(config)
        self.layers = nn.ModuleList(DecoderLayer(config, n) for n in range(config.decoder_layers))
        self.post_init()

    @takes_cache_by_either_name
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Reads the target so far, each position seeing itself and those before it, and the whole memory.

        The arguments are those of `Transformer2017Model.forward` without their `decoder_`; the memory is
        `encoder_hidden_states` (batch, source_len, d_model), and `encoder_attention_mask` tells of its padding.
        """
        if encoder_hidden_states is None:
            raise ValueError("The decoder attends to the encoder's output: give encoder_hidden_states.")
        if not isinstance(past_key_values, EncoderDecoderCache) and (use_cache or past_key_values is not None):
            own_cache = DynamicCache(config=self.config) if past_key_values is None else past_key_values
            past_key_values = EncoderDecoderCache(own_cache, DynamicCache(config=self.config))
        own_cache = None if past_key_values is None else past_key_values.self_attention_cache
        past_length = 0 if own_cache is None else own_cache.get_seq_length()
        x = self.embeddings(input_ids, inputs_embeds, attention_mask, past_length)  # (batch, target_len, d_model)
        mask = create_causal_mask(self.config, x, attention_mask, own_cache)  # whose name differs between versions
        memory_mask = create_bidirectional_mask(self.config, x, encoder_attention_mask, encoder_hidden_states)
        for layer in self.layers:
            x = layer(x, encoder_hidden_states, mask, memory_mask, past_key_values=past_key_values, **kwargs)
        return BaseModelOutputWithPastAndCrossAttentions(x, past_key_values)


class Transformer2017Model(Transformer2017PreTrainedModel):
    """Encoder and decoder over one shared embedding matrix (§3.4), without the output projection."""

    _tied_weights_keys = {
        "encoder.embeddings.embed_tokens.weight": "shared.weight",
        "decoder.embeddings.embed_tokens.weight": "shared.weight",
    }
    _input_embed_layer = "shared"
    _auto_class = "AutoModel"

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Transformer2017Encoder(config)
        self.decoder = Transformer2017Decoder(config)
        self.post_init()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replaces the matrix that encoder and decoder share."""
        self.shared = self.encoder.embeddings.embed_tokens = self.decoder.embeddings.embed_tokens = value

    @takes_cache_by_either_name
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqModelOutput:
        """Encodes the source, unless `encoder_outputs` are given, and decodes the target so far.

        Args:
            input_ids: Source (batch, source_len).
            attention_mask: 1 for a source token, 0 for padding; taken from `input_ids` if None.
            decoder_input_ids: Target so far (batch, target_len), from the start token or from the end of the cache.
            decoder_attention_mask: 1 for a target token, 0 for padding (batch, cached_len + target_len).
            encoder_outputs: The encoder's output, to decode again without encoding again.
            past_key_values: Keys and values of earlier positions and of the memory.
            inputs_embeds: Rows of the shared matrix, unscaled, instead of `input_ids` (batch, source_len, d_model).
            decoder_inputs_embeds: The same for the target (batch, target_len, d_model).
            use_cache: Whether to return a cache for the next step.
        """
        if attention_mask is None and input_ids is not None:
            attention_mask = (input_ids != self.config.pad_token_id).long()
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask, inputs_embeds, **kwargs)
        elif not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        memory = (encoder_outputs.last_hidden_state, attention_mask)
        target = (decoder_input_ids, decoder_attention_mask)
        outputs = self.decoder(*target, *memory, past_key_values, decoder_inputs_embeds, use_cache=use_cache, **kwargs)
        return Seq2SeqModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            **{CACHE: getattr(outputs, CACHE)},
            decoder_hidden_states=outputs.hidden_states,
            decoder_attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
            **{f"encoder_{name}": output for name, output in encoder_outputs.items()},
        )


class Transformer2017ForConditionalGeneration(Transformer2017PreTrainedModel, FastGenerationMixin):
    """The whole of Figure 1: encoder, decoder, and the output projection, which is the shared matrix again (§3.4)."""

    _tied_weights_keys = {"lm_head.weight": "model.shared.weight"}
    _auto_class = "AutoModelForSeq2SeqLM"

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__(config)
        self.model = Transformer2017Model(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=config.logits_bias)
        self.post_init()

    @takes_cache_by_either_name
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Computes the logits of each next token and, where `labels` are given, the loss: in training mode, only that.

        Args, beside those of `Transformer2017Model.forward`:
            labels: Target (batch, target_len), -100 for padding. Shifted right, they are the decoder's input unless
                that is given. The loss is label-smoothed in training mode only (§5.4), so that in evaluation its
                exponential is the perplexity.
            num_items_in_batch: Real target tokens in the whole update; see `label_smoothed_cross_entropy`.
        """
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        ids_and_masks = (input_ids, attention_mask, decoder_input_ids, decoder_attention_mask)
        embeds = (inputs_embeds, decoder_inputs_embeds)
        outputs = self.model(*ids_and_masks, encoder_outputs, past_key_values, *embeds, use_cache, **kwargs)
        states = outputs.last_hidden_state  # (batch, target_len, d_model)
        logits = None
        smoothing = self.config.label_smoothing if self.training else 0.0
        if labels is not None and self.training and is_plain(self.lm_head):
            loss = projected_cross_entropy(states, self.lm_head, labels, smoothing, num_items_in_batch)
        else:
            logits = self.lm_head(states)  # (batch, target_len, vocab_size)
            goal = (labels, smoothing, num_items_in_batch)
            loss = None if labels is None else label_smoothed_cross_entropy(logits, *goal)
        others = {name: output for name, output in outputs.items() if name != "last_hidden_state"}
        return Seq2SeqLMOutput(loss=loss, logits=logits, **others)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Shifts the labels (batch, target_len) right, behind the start token (§3.1); their -100 become padding."""
        shifted = labels.roll(1, dims=-1)
        shifted[:, 0] = self.config.decoder_start_token_id
        return shifted.masked_fill(shifted == IGNORED_LABEL, self.config.pad_token_id)
