"""Marian's own format out: weights as `.npz`, a decoder YAML, and a vocabulary. Firefox's teachers are of this kind.

Source: marian-dev, src/models/transformer.h (names, positions), src/data/default_vocab.cpp (vocabulary), and
CTranslate2's converter of it, by which the result is checked. Marian itself was not at hand.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformer2017.configuration import Transformer2017Config, UsageError
from transformer2017.modeling import Transformer2017ForConditionalGeneration
from transformer2017.modeling.embeddings import sinusoidal_encoding
from transformers import PreTrainedTokenizerBase

from .ctranslate2 import compare_pieces, load_library, tokens_by_id
from .layout import MAX_POSITIONS, POSITIONS, State, save_tokenizer, with_forbidden_tokens
from .marian import refuse_unusual_heads
from .report import Report, Sources, Specials, sources_or_samples

ACTIVATIONS = {"relu": "relu", "silu": "swish"}  # Marian's gelu is an approximation
FIRST_TOKENS = ("</s>", "<unk>")  # ids 0 and 1 in every Marian vocabulary
SUBLAYERS = {"self_attention": "self", "encoder_decoder_attention": "context"}


def export_marian_npz(
    model: Transformer2017ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    output_dir: str | Path,
    sources: Sources | None = None,
) -> Report:
    """Writes `model.npz`, `vocab.yml` and `decoder.yml`, and the tokenizer beside them.

    Compares by way of CTranslate2's converter of them.

    Raises:
        UsageError: If Marian cannot represent the model, or CTranslate2 is not installed.
        RunError: If log probabilities differ.
    """
    model = with_forbidden_tokens(model)
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    order = vocabulary_order(model.config, tokenizer)
    tokens = tokens_by_id(tokenizer, model.config.vocab_size)
    names = [*FIRST_TOKENS, *(tokens[index] for index in order[2:])]
    _refuse_ambiguous(names)
    lines = [f"{_yaml_key(name)}: {index}\n" for index, name in enumerate(names)]
    (folder / "vocab.yml").write_text("".join(lines), encoding="utf-8", newline="\n")
    (folder / "decoder.yml").write_text(_decoder_yaml(model), encoding="utf-8")
    np.savez(folder / "model.npz", **marian_weights(model, order))
    save_tokenizer(tokenizer, folder)
    report = Report("marian-npz export")
    report.note("Marian reads pieces with spaces between them: those of the tokenizer, which is beside it")
    report.note(f"positions: a table of {MAX_POSITIONS}, as Marian trains them; its own sinusoids differ from §3.5")
    report.note("run by CTranslate2's converter of Marian models, with its factor on embeddings as Marian has it")
    _compare(report, model, folder, sources, order, names)
    return report


def vocabulary_order(config: Transformer2017Config, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Our ids in Marian's order: the end and the unknown token first."""
    first = [Specials.of(config).end, tokenizer.unk_token_id]
    if None in first:
        raise UsageError(
            "Marian needs a token for the end and one for what is unknown, and the tokenizer has not both."
        )
    return [*first, *(index for index in range(config.vocab_size) if index not in first)]


def _refuse_ambiguous(names: list[str]) -> None:
    """Marian calls the end `</s>` and the unknown token `<unk>`, whatever the tokenizer calls them."""
    if twice := [name for name in FIRST_TOKENS if names.count(name) > 1]:
        raise UsageError(
            f"Marian's end and unknown tokens are {' and '.join(FIRST_TOKENS)}; the tokenizer has "
            f"{' and '.join(twice)} as another token. Rename it in tokenizer.json."
        )


def _yaml_key(name: str) -> str:
    r"""A piece of the vocabulary as YAML that Marian and CTranslate2's converter read alike.

    CTranslate2 has a parser of its own. In double quotes it takes "\t" for a t, and a code like "\x0A" for what it is
    only where that is all of the piece; in single quotes nothing is escaped but the quote.
    """
    if all(character >= " " or character == "\t" for character in name):
        return "'" + name.replace("'", "''") + "'"
    return '"' + "".join(rf"\x{ord(one):02X}" if one < " " or one in '"\\' else one for one in name) + '"'


def marian_weights(model: Transformer2017ForConditionalGeneration, order: list[int]) -> dict[str, Any]:
    """The model's weights by Marian's names, matrices as (input, output).

    Marian starts the decoder from a zero vector, where ours has the start token's. So that vector is taken from every
    row of the shared matrix and added to every position: embedded tokens stay as they are, the zero vector becomes the
    start token, and all logits of a step move by the same amount, which changes no probability. With a table of
    positions Marian does not scale embeddings; the matrix holds the factor sqrt(d_model), and the last norm of the
    decoder, which only the output projection reads, is divided by it.
    """
    config = model.config
    refuse_unusual_heads(config, "Marian")
    if config.activation_function not in ACTIVATIONS:
        raise UsageError(
            f"Marian's {config.activation_function} is another function; only relu and silu are the same."
        )
    state = {name: weight.detach().float().cpu() for name, weight in model.state_dict().items()}
    scale = config.d_model**0.5
    shared = state["model.shared.weight"]
    start = shared[config.decoder_start_token_id]
    weights = {
        "Wemb": (shared - start)[order] * scale,
        "Wpos": (_positions(config, state) + start.double() * scale).float(),
        "decoder_ff_logit_out_b": state.get("lm_head.bias", torch.zeros(config.vocab_size))[order][None],
    }
    for half, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        for index in range(layers):
            ours, theirs = f"model.{half}.layers.{index}", f"{half}_l{index + 1}"
            weights.update(_layer_weights(state, ours, theirs))
    last = f"decoder_l{config.decoder_layers}_ffn_ffn_ln"
    for kind in ("scale", "bias"):
        weights[f"{last}_{kind}"] = weights[f"{last}_{kind}"] / scale
    arrays = {name: np.ascontiguousarray(weight.numpy()) for name, weight in weights.items()}
    return {**arrays, "special:model.yml": np.frombuffer(_model_yaml(config).encode() + b"\0", dtype=np.int8)}


def _layer_weights(state: State, ours: str, theirs: str) -> State:
    """Of one layer of the encoder or the decoder."""
    weights = {}
    for sublayer, name in SUBLAYERS.items():
        if f"{ours}.{sublayer}.w_q.weight" not in state:
            continue
        for letter in "qkvo":
            weights[f"{theirs}_{name}_W{letter}"] = state[f"{ours}.{sublayer}.w_{letter}.weight"].T
            weights[f"{theirs}_{name}_b{letter}"] = state[f"{ours}.{sublayer}.w_{letter}.bias"][None]
        weights[f"{theirs}_{name}_Wo_ln_scale"] = state[f"{ours}.{sublayer}_norm.weight"][None]
        weights[f"{theirs}_{name}_Wo_ln_bias"] = state[f"{ours}.{sublayer}_norm.bias"][None]
    for number in "12":
        weights[f"{theirs}_ffn_W{number}"] = state[f"{ours}.feed_forward.w_{number}.weight"].T
        weights[f"{theirs}_ffn_b{number}"] = state[f"{ours}.feed_forward.w_{number}.bias"][None]
    weights[f"{theirs}_ffn_ffn_ln_scale"] = state[f"{ours}.feed_forward_norm.weight"][None]
    weights[f"{theirs}_ffn_ffn_ln_bias"] = state[f"{ours}.feed_forward_norm.bias"][None]
    return weights


def _positions(config: Transformer2017Config, state: State) -> torch.Tensor:
    """The table that Marian's encoder and decoder share (positions, d_model)."""
    if config.learned_positions is not None:
        raise UsageError(
            "Marian shares one table of positions between encoder and decoder; this model has learned two."
        )
    assert not any(POSITIONS.format(half=half) in state for half in ("encoder", "decoder"))
    return sinusoidal_encoding(torch.arange(MAX_POSITIONS), config.d_model)


def _model_yaml(config: Transformer2017Config) -> str:
    """What Marian stores with the weights of a post-norm transformer with one vocabulary."""
    options: dict[str, Any] = {
        "type": "transformer",
        "dim-vocabs": [config.vocab_size, config.vocab_size],
        "dim-emb": config.d_model,
        "enc-depth": config.encoder_layers,
        "dec-depth": config.decoder_layers,
        "transformer-heads": config.num_heads,
        "transformer-dim-ffn": config.d_ff,
        "transformer-decoder-dim-ffn": config.d_ff,
        "transformer-ffn-depth": 2,
        "transformer-decoder-ffn-depth": 2,
        "transformer-ffn-activation": ACTIVATIONS[config.activation_function],
        "transformer-preprocess": "",
        "transformer-postprocess": "dan",
        "transformer-postprocess-emb": "d",
        "transformer-postprocess-top": "",
        "transformer-decoder-autoreg": "self-attention",
        "transformer-no-projection": False,
        "transformer-no-bias": False,
        "transformer-tied-layers": [],
        "transformer-pool": False,
        "transformer-train-position-embeddings": True,
        "transformer-guided-alignment-layer": "last",
        "max-length": MAX_POSITIONS,
        "tied-embeddings": False,
        "tied-embeddings-src": False,
        "tied-embeddings-all": True,
        "skip": False,
        "layer-normalization": False,
        "right-left": False,
        "input-types": [],
        "ulr": False,
        "version": "v1.9.0",
    }
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in options.items())


def _decoder_yaml(model: Transformer2017ForConditionalGeneration) -> str:
    settings = model.generation_config
    options = {
        "relative-paths": True,
        "models": ["model.npz"],
        "vocabs": ["vocab.yml", "vocab.yml"],
        "beam-size": settings.num_beams or 1,
        "normalize": 1.0 if settings.length_penalty is None else settings.length_penalty,
        "mini-batch": 16,
        "maxi-batch": 100,
    }
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in options.items())


def _compare(
    report: Report,
    model: Transformer2017ForConditionalGeneration,
    folder: Path,
    sources: Sources | None,
    order: list[int],
    names: list[str],
) -> None:
    """Converts what was written with CTranslate2, runs it, and compares log probabilities and greedy translations."""
    library = load_library()
    import ctranslate2.converters.marian as reader

    spec = reader.MarianConverter(str(folder / "model.npz"), [str(folder / "vocab.yml")])._load()
    spec.encoder.scale_embeddings = spec.decoder.scale_embeddings = False  # as Marian, with a table of positions
    spec.validate()
    spec.optimize(quantization="float32")
    if misread := sum(map(str.__ne__, names, reader.load_vocab(str(folder / "vocab.yml")))):
        report.note(
            f"pieces with a line's end or another control character in them: {misread}, which CTranslate2's "
            "converter misreads; they were put right for the comparison"
        )
    position = {ours: theirs for theirs, ours in enumerate(order)}
    sources = sources_or_samples(report, model.config, sources, MAX_POSITIONS)
    pieces = [[names[position[token]] for token in source[:-1]] for source in sources]
    with tempfile.TemporaryDirectory() as work:
        spec.save(work)
        (Path(work) / "shared_vocabulary.json").write_text(json.dumps(names), encoding="utf-8")
        translator = library.Translator(work, device="cpu", compute_type="float32")
    ids = {name: order[index] for index, name in enumerate(names)}
    compare_pieces(report, model, translator, sources, (pieces, pieces), ids)
