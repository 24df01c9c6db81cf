"""CTranslate2, the fast runtime behind LibreTranslate and others: out, in float32 or quantised."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformer2017.configuration import Transformer2017Config, UsageError
from transformer2017.modeling import Transformer2017ForConditionalGeneration
from transformer2017.modeling.embeddings import sinusoidal_encoding
from transformers import PreTrainedTokenizerBase

from .layout import MAX_POSITIONS, save_tokenizer, with_forbidden_tokens
from .marian import refuse_unusual_heads
from .report import (
    SENTENCES_AT_ONCE,
    Report,
    Sources,
    Specials,
    logits_of,
    longest_translation,
    shifted,
    sources_or_samples,
    without_settings,
)

QUANTIZATIONS = ("float32", "int8", "int8_float32", "int16", "float16", "bfloat16")
TOLERANCE = 1e-4  # of log probabilities
DEFAULT_LENGTH = 256  # of an output, CTranslate2's own


def load_library() -> Any:
    """Imports ctranslate2.

    Raises:
        UsageError: If it is not installed.
    """
    try:
        import ctranslate2
    except ImportError as error:
        raise UsageError(
            "CTranslate2 is not installed; install it: pip install 'transformer2017[interchange]'"
        ) from error
    import ctranslate2.converters
    import ctranslate2.specs

    return ctranslate2


def specification(model: Transformer2017ForConditionalGeneration, tokens: list[str]) -> Any:
    """Describes the model to CTranslate2, which takes any positions as a table, so that no weight is reordered.

    Args:
        model: In evaluation mode.
        tokens: The vocabulary by id.

    Raises:
        UsageError: If CTranslate2 cannot represent the model.
    """
    library = load_library()
    config = model.config
    refuse_unusual_heads(config, "CTranslate2")
    activation = library.specs.Activation
    spec = library.specs.TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers),
        config.num_heads,
        pre_norm=False,
        activation={"relu": activation.RELU, "gelu": activation.GELU, "silu": activation.SWISH}[
            config.activation_function
        ],
    )
    _set_half(spec.encoder, spec.encoder.embeddings[0], model, model.model.encoder)
    _set_half(spec.decoder, spec.decoder.embeddings, model, model.model.decoder)
    _set_linear(spec.decoder.projection, model.lm_head)
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.layer_norm_epsilon = 1e-5  # torch's
    return spec


def _set_half(spec: Any, embedding_spec: Any, model: Transformer2017ForConditionalGeneration, half: Any) -> None:
    """Fills in the encoder or the decoder."""
    embedding_spec.weight = _array(model.model.shared.weight)
    spec.scale_embeddings = True
    spec.position_encodings.encodings = _array(_positions(model.config, half))
    for layer_spec, layer in zip(spec.layer, half.layers, strict=True):
        _set_attention(layer_spec.self_attention, layer.self_attention, layer.self_attention_norm)
        if hasattr(layer, "encoder_decoder_attention"):
            _set_attention(layer_spec.attention, layer.encoder_decoder_attention, layer.encoder_decoder_attention_norm)
        _set_linear(layer_spec.ffn.linear_0, layer.feed_forward.w_1)
        _set_linear(layer_spec.ffn.linear_1, layer.feed_forward.w_2)
        _set_norm(layer_spec.ffn.layer_norm, layer.feed_forward_norm)


def _set_attention(spec: Any, attention: Any, norm: nn.LayerNorm) -> None:
    """CTranslate2 keeps q, k and v in one matrix where they read the same states: all three, or k and v."""
    of_memory = len(spec.linear) == 3
    groups = [["w_q"], ["w_k", "w_v"], ["w_o"]] if of_memory else [["w_q", "w_k", "w_v"], ["w_o"]]
    for linear_spec, names in zip(spec.linear, groups, strict=True):
        parts = [getattr(attention, name) for name in names]
        linear_spec.weight = _array(torch.cat([part.weight for part in parts]))
        linear_spec.bias = _array(torch.cat([part.bias for part in parts]))
    _set_norm(spec.layer_norm, norm)


def _set_linear(spec: Any, linear: nn.Linear) -> None:
    spec.weight = _array(linear.weight)
    if linear.bias is not None:
        spec.bias = _array(linear.bias)


def _set_norm(spec: Any, norm: nn.LayerNorm) -> None:
    spec.gamma, spec.beta = _array(norm.weight), _array(norm.bias)


def _positions(config: Transformer2017Config, half: Any) -> torch.Tensor:
    """The table of positions of one half (positions, d_model)."""
    if config.learned_positions is not None:
        return half.embeddings.positions.weight
    return sinusoidal_encoding(torch.arange(MAX_POSITIONS), config.d_model)


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach().float().cpu().numpy().copy()  # quantisation works in place


def tokens_by_id(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> list[str]:
    """The vocabulary in the order of its ids, with a name for each id that the tokenizer does not use."""
    named = {index: token for token, index in tokenizer.get_vocab().items()}
    return [named.get(index, f"<unused{index}>") for index in range(vocab_size)]


def write_ctranslate2(
    model: Transformer2017ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    output_dir: str | Path,
    quantization: str = "float32",
    *,
    add_source_eos: bool = False,
) -> None:
    """Writes a folder that `ctranslate2.Translator` loads; see `export_ctranslate2`.

    Args:
        add_source_eos: Whether CTranslate2 is to add the end token to each source, for users who do not.
    """
    if quantization not in QUANTIZATIONS:
        raise UsageError(f"--quantization must be one of {', '.join(QUANTIZATIONS)}, not {quantization!r}.")
    spec = specification(model, tokens_by_id(tokenizer, model.config.vocab_size))
    for kind in ("bos_token", "eos_token", "unk_token"):
        if (token := getattr(tokenizer, kind)) is not None:  # CTranslate2 refuses a null
            setattr(spec.config, kind, token)
    spec.config.decoder_start_token = tokenizer.convert_ids_to_tokens(model.config.decoder_start_token_id)
    spec.config.add_source_eos = add_source_eos
    spec.validate()
    spec.optimize(quantization=quantization)
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    spec.save(str(output_dir))


def export_ctranslate2(
    model: Transformer2017ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    output_dir: str | Path,
    quantization: str = "float32",
    sources: Sources | None = None,
) -> Report:
    """Writes the model for `ctranslate2.Translator`, its tokenizer beside it, and compares the two.

    Args:
        model: In evaluation mode.
        tokenizer: Its pieces, with the end token, are what `translate_batch` takes.
        output_dir: Made if it is not there.
        quantization: One of `QUANTIZATIONS`.
        sources: Token ids of sentences to compare on, each with its end; random ones if None.

    Raises:
        UsageError: If CTranslate2 is not installed, or cannot represent the model.
        RunError: If log probabilities in float32 differ.
    """
    model = with_forbidden_tokens(model)
    write_ctranslate2(model, tokenizer, output_dir, quantization)
    save_tokenizer(tokenizer, output_dir)
    report = Report(f"ctranslate2 export ({quantization})")
    note_positions(report, model.config)
    settings = model.generation_config
    report.note(
        f"the caller says how to search: translate_batch(..., beam_size={settings.num_beams or 1}, "
        f"length_penalty={1.0 if settings.length_penalty is None else settings.length_penalty})"
    )
    compare_translator(report, model, str(output_dir), quantization, sources)
    return report


def note_positions(report: Report, config: Transformer2017Config) -> None:
    """Says how long sequences may be: CTranslate2 has a table of positions, and decodes 256 tokens unless told."""
    learned = config.learned_positions
    report.note(f"sequences of up to {learned or MAX_POSITIONS} tokens: CTranslate2 has a table of positions")
    if learned is not None and learned < DEFAULT_LENGTH:
        report.note(f"give max_decoding_length={learned}: its default, {DEFAULT_LENGTH}, goes beyond these and fails")


def compare_translator(
    report: Report,
    model: Transformer2017ForConditionalGeneration,
    folder: str,
    quantization: str,
    sources: Sources | None,
    *,
    add_source_eos: bool = False,
) -> None:
    """Compares log probabilities and greedy translations with those of the CTranslate2 model.

    Raises:
        RunError: If log probabilities in float32 differ.
    """
    translator = load_library().Translator(folder, device="cpu", compute_type=_compute_type(quantization))
    vocabulary = json.loads((Path(folder) / "shared_vocabulary.json").read_text(encoding="utf-8"))
    sources = sources_or_samples(report, model.config, sources, MAX_POSITIONS)
    bare = [source[:-1] if add_source_eos else source for source in sources]
    pieces = [[vocabulary[token] for token in source] for source in bare]
    targets = [[vocabulary[token] for token in source[:-1]] for source in sources]
    ids = {piece: token for token, piece in enumerate(vocabulary)}
    tolerance = TOLERANCE if quantization == "float32" else None
    compare_pieces(report, model, translator, sources, (pieces, targets), ids, tolerance)


def compare_pieces(
    report: Report,
    model: Transformer2017ForConditionalGeneration,
    translator: Any,
    sources: Sources,
    pieces: tuple[list[list[str]], list[list[str]]],
    ids: dict[str, int],
    tolerance: float | None = TOLERANCE,
) -> None:
    """Compares log probabilities and greedy translations with those of a CTranslate2 translator.

    Args:
        sources: Token ids of sentences.
        pieces: The same as the translator takes them: to read, and as targets to score.
        ids: Of each of the translator's pieces, the model's token.
        tolerance: As for `Report.compare_logits`.

    Raises:
        RunError: If log probabilities differ by more.
    """
    scores = translator.score_batch(*pieces, max_batch_size=SENTENCES_AT_ONCE)
    theirs = [torch.tensor(score.log_probs, dtype=torch.float64) for score in scores]
    ours = _log_probabilities(model, sources)
    report.compare_logits(zip(ours, theirs, strict=True), tolerance, "log probabilities")
    longest = longest_translation(model)
    limits = {"max_batch_size": SENTENCES_AT_ONCE, "max_decoding_length": longest}
    results = translator.translate_batch(pieces[0], beam_size=1, **limits)
    translations = [[ids[piece] for piece in result.hypotheses[0]] for result in results]
    must_agree = tolerance is not None
    report.compare_translations(without_settings(model), sources, translations, longest, must_agree=must_agree)


def _log_probabilities(model: Transformer2017ForConditionalGeneration, sources: Sources) -> Iterator[torch.Tensor]:
    """Of each token of the target, its end included (target_len,): the target is the source again."""
    specials = Specials.of(model.config)
    logits = logits_of(model, sources, shifted(sources, specials.start), specials.pad)
    for row, source in zip(logits, sources, strict=True):
        yield row.log_softmax(-1).gather(-1, torch.tensor(source)[:, None])[:, 0]


def _compute_type(quantization: str) -> str:
    """What is stored as asked is computed in float32 here where this processor does not compute in it."""
    return quantization if quantization in load_library().get_supported_compute_types("cpu") else "float32"
