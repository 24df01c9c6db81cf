"""The configuration of the original Transformer (Vaswani et al., 2017), in the paper's own symbols."""

import difflib
from typing import Any

from transformers import PreTrainedConfig

from .presets import PRESETS

ACTIVATIONS = ("relu", "gelu", "silu")


class InstalledPipelines(dict[str, Any]):
    """The pipelines that a saved folder names, where the installed package has registered the same ones.

    `pipeline(model=folder)` reads the task's name from here, and then asks whether the task's code is in the folder,
    which would need `trust_remote_code`. It need not: the package's own code runs.
    """

    def __contains__(self, task: object) -> bool:
        return False


class Transformer2017Config(PreTrainedConfig):
    """The sizes and rates of one Transformer. The defaults are the paper's base model (Table 3).

    Args:
        vocab_size: Tokens in the vocabulary that source and target share (§5.1).
        d_model: Width of every sub-layer's output and of the embeddings (§3.1).
        d_ff: Inner width of the feed-forward sub-layer (§3.3).
        num_heads: h, the number of attention heads (§3.2.2).
        d_k: Width of each head's queries and keys; `d_model / num_heads` unless given, and saved as a number.
        d_v: Width of each head's values; `d_model / num_heads` unless given, and saved as a number.
        encoder_layers: N of the encoder (§3.1).
        decoder_layers: N of the decoder. The paper has one N for both; a shallow decoder is quicker to serve.
        dropout: Rate on each sub-layer's output and on the sum of embedding and position (§5.4).
        attention_dropout: Rate on the attention weights. 0 in the paper.
        activation_dropout: Rate after the feed-forward's activation. 0 in the paper.
        activation_function: "relu" in the paper; "gelu" and "silu" are for pretrained Marian models.
        label_smoothing: Weight of the uniform distribution in the training targets (§5.4). Like dropout, it acts
            in training mode only.
        learned_positions: Row E of Table 3: the number of positions to learn, which bounds the length of a
            sequence. None (the default) computes sinusoids, for any length.
        logits_bias: Adds a bias to the logits. Off in the paper; pretrained Marian models have one.
        format_version: Version of the saved format. Folders written by older versions keep loading.

    Raises:
        ValueError: If a size or rate is out of its range, or a misspelt field is given.

    Source: https://arxiv.org/abs/1706.03762
    """

    model_type = "transformer2017"
    keys_to_ignore_at_inference = ["past_key_values"]
    # transformers' own names for the paper's symbols.
    attribute_map = {
        "hidden_size": "d_model",
        "intermediate_size": "d_ff",
        "num_attention_heads": "num_heads",
        "encoder_attention_heads": "num_heads",
        "decoder_attention_heads": "num_heads",
        "head_dim": "d_k",
        "num_hidden_layers": "encoder_layers",
        "max_position_embeddings": "learned_positions",
    }

    vocab_size: int = 37000
    d_model: int = 512
    d_ff: int = 2048
    num_heads: int = 8
    d_k: int | None = None
    d_v: int | None = None
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    activation_function: str = "relu"
    label_smoothing: float = 0.1
    learned_positions: int | None = None
    logits_bias: bool = False
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 1
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = True
    use_cache: bool = True
    format_version: int = 1

    def __post_init__(self, **kwargs: Any) -> None:
        is_new = self.transformers_version is None  # else it was saved, and what tools have added to it is meant
        if is_new:
            self._refuse_misspelt(kwargs)
        if kwargs.get("custom_pipelines") and __name__.startswith("transformer2017."):
            kwargs["custom_pipelines"] = InstalledPipelines(kwargs["custom_pipelines"])
        super().__post_init__(**kwargs)
        if type(self.d_model) is type(self.num_heads) is int and self.num_heads >= 1:
            if None in (self.d_k, self.d_v) and self.d_model % self.num_heads:
                raise ValueError(
                    f"d_model {self.d_model} is no multiple of num_heads {self.num_heads}: change one of them, or "
                    "give d_k and d_v."
                )
            self.d_k = self.d_model // self.num_heads if self.d_k is None else self.d_k
            self.d_v = self.d_model // self.num_heads if self.d_v is None else self.d_v
        self.check()
        if is_new:
            self._refuse_other_tokens()

    @classmethod
    def from_preset(cls, name: str, **fields: Any) -> "Transformer2017Config":
        """Makes the configuration of a row of the paper's Table 3, or of a smaller preset.

        Args:
            name: "base", "A1" to "A4", "B1", "B2", "C1" to "C7", "D1" to "D4", "E", "big", "small" or "tiny".
            **fields: Fields that differ from the preset, such as `vocab_size`.

        Raises:
            ValueError: If no preset has that name.
        """
        if name not in PRESETS:
            raise ValueError(f"There is no preset {name!r}; choose one of {', '.join(PRESETS)}.")
        return cls(**{**PRESETS[name], **fields})

    def _refuse_misspelt(self, kwargs: dict[str, Any]) -> None:
        """Raises where an unknown field looks like one of ours: transformers would store it and say nothing."""
        own = list(Transformer2017Config.__annotations__)
        for name in kwargs:
            if name in self.attribute_map:
                continue
            if close := difflib.get_close_matches(name, own, n=1, cutoff=0.8):
                raise ValueError(f"Transformer2017Config has no field {name!r}. Did you mean {close[0]!r}?")

    def _refuse_other_tokens(self) -> None:
        """Raises where a token's number is none of the vocabulary, which would end in an IndexError or in silence."""
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
            value = getattr(self, name)
            for number in value if isinstance(value, list | tuple) and name == "eos_token_id" else [value]:
                is_token = type(number) is int and 0 <= number < self.vocab_size
                if number is not None and not is_token:
                    raise ValueError(
                        f"{name} must be the number of one of the {self.vocab_size} tokens, from 0 on, not {number!r}."
                    )

    def check(self) -> None:
        """Raises a sentence for the user where a field is out of its range."""
        sizes = ("vocab_size", "d_model", "d_ff", "num_heads", "d_k", "d_v", "encoder_layers", "decoder_layers")
        for name in (*sizes, "format_version"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {getattr(self, name)!r}.")
        for name in ("dropout", "attention_dropout", "activation_dropout", "label_smoothing"):
            rate = getattr(self, name)
            if not isinstance(rate, int | float) or not 0.0 <= rate < 1.0:
                raise ValueError(f"{name} is a rate from 0 up to, but not including, 1, not {rate!r}.")
        if self.d_model % 2 and self.learned_positions is None:
            raise ValueError(
                f"d_model is {self.d_model}, but sine and cosine come in pairs (§3.5): choose an even d_model, "
                "or learned_positions."
            )
        positions = self.learned_positions
        if positions is not None and (type(positions) is not int or positions < 1):
            raise ValueError(
                f"learned_positions must be a whole number of at least 1, or None for sinusoids, not {positions!r}."
            )
        if self.activation_function not in ACTIVATIONS:
            raise ValueError(
                f"activation_function must be one of {', '.join(ACTIVATIONS)}, not {self.activation_function!r}."
            )
        if self.pad_token_id is None or self.decoder_start_token_id is None:
            raise ValueError(
                "pad_token_id and decoder_start_token_id are needed: the one tells padding from tokens, the other "
                "begins every output."
            )
        for name, value in (("logits_bias", self.logits_bias), ("is_encoder_decoder", self.is_encoder_decoder)):
            if type(value) is not bool:
                raise ValueError(f"{name} must be True or False, not {value!r}.")
        if not self.is_encoder_decoder:
            raise ValueError("The Transformer has an encoder and a decoder: is_encoder_decoder must be True.")
        if not self.tie_word_embeddings:
            raise ValueError(
                "The paper's model shares one matrix between embeddings and output (§3.4); "
                "tie_word_embeddings=False makes another model."
            )
        if self.format_version > 1:
            raise ValueError(
                f"This model was saved in format {self.format_version}, and this version of transformer2017 reads "
                "formats up to 1. Update it: pip install --upgrade transformer2017"
            )


Transformer2017Config.register_for_auto_class()
