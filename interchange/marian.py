"""MarianMT, transformers' model of the 1,400 opus-mt translators: out as a plain folder, and in for fine-tuning."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformer2017.configuration import Transformer2017Config, UsageError, in_a_line
from transformer2017.configuration.manifest import check_folder, check_weights
from transformer2017.modeling import Transformer2017ForConditionalGeneration
from transformer2017.modeling.decoding import OWN_ARGUMENTS
from transformer2017.modeling.embeddings import sinusoidal_encoding
from transformer2017.modeling.output_length import named_max_length
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerBase,
)

from .layout import (
    MAX_POSITIONS,
    POSITIONS,
    State,
    halves_from_interleaved,
    layer_parts,
    load_all_weights,
    own_config,
    own_model,
    reorder_d_model,
    save_tokenizer,
    why_unreadable,
    with_scaled_embedding,
)
from .report import LOGITS_TOLERANCE, Report, Sources, compare_models

SINUSOID_TOLERANCE = 1e-4  # between a table of positions in a checkpoint and the formula of §3.5
MARIAN_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "swish": "silu"}
MAX_LENGTH = 512  # of an output, as opus-mt models have it


def marian_from(model: Transformer2017ForConditionalGeneration) -> MarianMTModel:
    """Makes the `MarianMTModel` that computes the same logits.

    Raises:
        UsageError: If MarianMT cannot represent the model.
    """
    config = model.config
    refuse_unusual_heads(config, "MarianMT")
    if config.learned_positions is not None:
        raise UsageError("MarianMT has sinusoidal positions only, and this model has learned ones (row E of Table 3).")
    marian = MarianMTModel(_marian_config(config)).eval()
    state = reorder_d_model(model.state_dict(), halves_from_interleaved(config.d_model))
    renamed = {"model.shared.weight": state["model.shared.weight"]}
    for ours, theirs in layer_parts(config.encoder_layers, config.decoder_layers).items():
        for kind in ("weight", "bias"):
            renamed[f"{theirs}.{kind}"] = state[f"{ours}.{kind}"]
    if config.logits_bias:
        renamed["final_logits_bias"] = state["lm_head.bias"][None]  # (1, vocab_size)
    load_all_weights(marian, renamed, {"lm_head", "embed_tokens", "embed_positions", "final_logits_bias"})
    settings = model.generation_config.to_dict()
    settings = {name: value for name, value in settings.items() if name not in OWN_ARGUMENTS}
    marian.generation_config = generation = GenerationConfig.from_dict(settings)
    if named_max_length(generation) is None and generation.max_new_tokens is None:  # or plain transformers stops at 20
        generation.max_length = MAX_LENGTH
    marian.to(model.dtype)  # type: ignore[arg-type]  # its wrapper hides what torch takes
    return marian


def refuse_unusual_heads(config: Transformer2017Config, format_name: str) -> None:
    """Raises where heads are not d_model / h wide, which no other format can hold (rows B of Table 3)."""
    if config.d_k != config.d_v or config.d_k * config.num_heads != config.d_model:
        raise UsageError(
            f"{format_name} gives each head d_model / h dimensions, and this model has d_k {config.d_k} and d_v "
            f"{config.d_v} with d_model {config.d_model} and h {config.num_heads} (rows B of Table 3)."
        )


def _marian_config(config: Transformer2017Config) -> MarianConfig:
    return MarianConfig(
        vocab_size=config.vocab_size,
        d_model=config.d_model,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        encoder_attention_heads=config.num_heads,
        decoder_attention_heads=config.num_heads,
        encoder_ffn_dim=config.d_ff,
        decoder_ffn_dim=config.d_ff,
        activation_function=config.activation_function,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        activation_dropout=config.activation_dropout,
        max_position_embeddings=MAX_POSITIONS,
        scale_embedding=True,
        share_encoder_decoder_embeddings=True,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
        forced_eos_token_id=None,
    )


def export_marian(
    model: Transformer2017ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase | None,
    output_dir: str | Path,
    sources: Sources | None = None,
) -> Report:
    """Writes a folder that plain transformers loads as a `MarianMTModel`, and compares what it loads with the model.

    Args:
        model: In evaluation mode.
        tokenizer: Saved as it is; `AutoTokenizer` loads it.
        output_dir: Made if it is not there.
        sources: Token ids of sentences to compare on, each with its end; random ones if None.

    Raises:
        UsageError: If MarianMT cannot represent the model.
        RunError: If the logits differ.
    """
    marian_from(model).save_pretrained(output_dir)
    if tokenizer is not None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.model_max_length = min(tokenizer.model_max_length, MAX_POSITIONS)
        save_tokenizer(tokenizer, output_dir)
    report = Report("marian export")
    report.note(f"sequences of up to {MAX_POSITIONS} tokens: MarianMT has a table of positions")
    if getattr(model.generation_config, "max_tokens_beyond_input", None) is not None:
        report.note(f"outputs end after {MAX_LENGTH} tokens, where the model's own end by the length of their source")
    if getattr(model.generation_config, "ranking", "transformers") == "paper":
        report.note("hypotheses are ranked by transformers' penalty, which is not quite the paper's")
    exported = MarianMTModel.from_pretrained(output_dir, dtype=model.dtype).eval()
    compare_models(report, model, exported, sources, LOGITS_TOLERANCE)
    return report


def transformer2017_from(marian: MarianMTModel) -> Transformer2017ForConditionalGeneration:
    """Makes our model that computes the same logits as a `MarianMTModel`.

    Raises:
        UsageError: If our model cannot represent it; the sentence says why.
    """
    theirs = marian.config
    _check_marian(theirs)
    state = {name: weight for name, weight in marian.state_dict().items() if not name.startswith("lm_head")}
    bias = state.pop("final_logits_bias")[0]
    positions = _positions_of(state)
    config = _own_config(theirs, logits_bias=bool(bias.any()), learned_positions=_learned(positions))
    own = {"model.shared.weight": state["model.shared.weight"]}
    for ours, name in layer_parts(config.encoder_layers, config.decoder_layers).items():
        for kind in ("weight", "bias"):
            own[f"{ours}.{kind}"] = state[f"{name}.{kind}"]
    if not theirs.scale_embedding:
        own = with_scaled_embedding(own, config)
    if config.logits_bias:
        own["lm_head.bias"] = bias
    if config.learned_positions is None:
        own = reorder_d_model(own, halves_from_interleaved(config.d_model).argsort())
    else:
        for half, table in positions.items():
            own[POSITIONS.format(half=half)] = table
    model = own_model(config, own)
    model.generation_config = GenerationConfig.from_dict(marian.generation_config.to_dict())
    model.to(marian.dtype)  # type: ignore[arg-type]
    return model


def _check_marian(theirs: MarianConfig) -> None:
    """Raises a sentence for the user where the paper's model has no place for what a Marian model has."""
    halves = (
        ("encoder_ffn_dim", "decoder_ffn_dim", "d_ff"),
        ("encoder_attention_heads", "decoder_attention_heads", "number of heads"),
    )
    for encoder, decoder, what in halves:
        if getattr(theirs, encoder) != getattr(theirs, decoder):
            raise UsageError(
                f"Encoder and decoder have one {what} in the paper's model, and this Marian model has "
                f"{encoder} {getattr(theirs, encoder)} and {decoder} {getattr(theirs, decoder)}."
            )
    if not theirs.share_encoder_decoder_embeddings or not theirs.tie_word_embeddings:
        raise UsageError(
            "This Marian model has separate vocabularies for source and target; the paper's model shares one matrix "
            "between both embeddings and the output (§3.4)."
        )
    for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
        number = getattr(theirs, name)
        if not isinstance(number, int) or not 0 <= number < theirs.vocab_size:
            raise UsageError(f"Its {name} {number} is not one of its {theirs.vocab_size} tokens.")
    if theirs.activation_function not in MARIAN_ACTIVATIONS:
        raise UsageError(
            f"This Marian model has the activation {theirs.activation_function!r}; only "
            f"{', '.join(MARIAN_ACTIVATIONS)} can be represented."
        )
    for name in ("normalize_before", "add_final_layer_norm", "normalize_embedding"):
        if getattr(theirs, name, False):
            raise UsageError(f"This model has {name}, which is not in the paper's (post-norm, §3.1).")


def _own_config(theirs: MarianConfig, **fields: Any) -> Transformer2017Config:
    return own_config(
        "Marian model",
        vocab_size=theirs.vocab_size,
        d_model=theirs.d_model,
        d_ff=theirs.encoder_ffn_dim,
        num_heads=theirs.encoder_attention_heads,
        encoder_layers=theirs.encoder_layers,
        decoder_layers=theirs.decoder_layers,
        dropout=theirs.dropout,
        attention_dropout=theirs.attention_dropout,
        activation_dropout=theirs.activation_dropout,
        activation_function=MARIAN_ACTIVATIONS[theirs.activation_function],
        pad_token_id=theirs.pad_token_id,
        bos_token_id=theirs.bos_token_id,
        eos_token_id=theirs.eos_token_id,
        decoder_start_token_id=theirs.decoder_start_token_id,
        **fields,
    )


def _positions_of(state: State) -> State:
    """The tables of positions of encoder and decoder, taken out of the state."""
    return {half: state.pop(f"model.{half}.embed_positions.weight") for half in ("encoder", "decoder")}


def _learned(positions: State) -> int | None:
    """None where the tables hold sinusoids, as in all of opus-mt; else how many positions they have."""
    for table in positions.values():
        count, d_model = table.shape
        formula = sinusoidal_encoding(torch.arange(count), d_model)[:, halves_from_interleaved(d_model)]
        if (table.double() - formula).abs().max() > SINUSOID_TOLERANCE:
            return count
    return None


def import_marian(path: str | Path, output_dir: str | Path, sources: Sources | None = None) -> Report:
    """Reads a folder (or a name on the Hub) of transformers' MarianMT, tokenizer included, and writes it as ours.

    The weights are written in float32, whatever they were in.

    Raises:
        UsageError: If there is no such model, or it cannot be represented.
        RunError: If the logits differ.
    """
    check_folder(str(path))
    try:
        if (kind := AutoConfig.from_pretrained(path).model_type) != "marian":
            raise ValueError(f"its config.json says that it is a {kind}")
        # In float32: in half precision their table of positions is not quite the formula, and weights train badly.
        marian, loading = MarianMTModel.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # files of any kind of damage raise errors of any kind
        raise UsageError(f"{path} cannot be read as a MarianMT model: {why_unreadable(error)}") from error
    check_weights(path, loading)
    model = transformer2017_from(marian.eval())
    model.save_pretrained(output_dir)
    report = Report(f"marian import from {path}")
    try:
        AutoTokenizer.from_pretrained(path).save_pretrained(output_dir)
    except (OSError, ValueError, KeyError, ImportError, TypeError) as error:
        report.note(f"no tokenizer: {in_a_line(error)}")
    if Path(path, "README.md").is_file():
        report.note("its card stays where it is: name the original and its licence in your own")
    if marian.config.encoder_layerdrop or marian.config.decoder_layerdrop:
        report.note("layer-drop, which acts in training only, is not in the paper's model and was left out")
    reloaded = Transformer2017ForConditionalGeneration.from_pretrained(output_dir).eval()
    compare_models(report, marian, reloaded, sources, LOGITS_TOLERANCE)
    return report
