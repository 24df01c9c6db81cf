"""fairseq checkpoints in: `transformer`, `transformer_wmt_en_de` and their big forms (post-norm, one vocabulary).

Names and shapes: `transformer_encoder.py` and `transformer_decoder.py` in fairseq/models/transformer/, and
`transformer_layer.py` in fairseq/modules/; special tokens: fairseq/data/dictionary.py; positions:
`sinusoidal_positional_embedding.py` in fairseq/modules/. All of v0.12.2, of which transformers' FSMT is a port.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformer2017.configuration import Transformer2017Config, UsageError, in_a_line
from transformer2017.modeling import Transformer2017ForConditionalGeneration
from transformers import PreTrainedTokenizerFast

from .layout import POSITIONS, State, layer_parts, own_config, own_model, why_unreadable, with_scaled_embedding
from .originals import fsmt_from
from .report import LOGITS_TOLERANCE, Report, compare_models

START, PAD, END, UNKNOWN = SPECIAL_TOKENS = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
]  # ids 0 to 3; the decoder starts with END
FIRST_POSITION = SPECIAL_TOKENS.index(PAD) + 1  # fairseq numbers positions from behind the pad token's id
UNUSED = ("version", "_float_tensor", "embed_positions", "output_projection", "embed_out", "embed_tokens")


def import_fairseq(checkpoint: str | Path, dictionary: str | Path | None, output_dir: str | Path) -> Report:
    """Reads a fairseq checkpoint and its dictionary, and writes them as a model folder of ours.

    The checkpoint is read with `weights_only=True`: it cannot run code.

    Args:
        checkpoint: Such as `checkpoint_best.pt`.
        dictionary: Such as `dict.en.txt`; no tokenizer is written if None.
        output_dir: Made if it is not there.

    Raises:
        UsageError: If a file cannot be read, or the model cannot be represented; the sentence says why.
        RunError: If the logits differ from the original's.
    """
    arguments, state = read_checkpoint(checkpoint)
    try:
        model = transformer2017_from(arguments, state)
        learned = "encoder.embed_positions.weight" in state
        scaled = not getattr(arguments, "no_scale_embedding", False)
        original = fsmt_from(model.config, state, scaled=scaled, learned=learned)
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError) as error:
        raise UsageError(f"{checkpoint} is not a whole fairseq checkpoint: {in_a_line(error)}") from error
    model.save_pretrained(output_dir)
    report = Report(f"fairseq import from {checkpoint}")
    report.note("compared with FSMT, transformers' port of fairseq's transformer")
    reloaded = Transformer2017ForConditionalGeneration.from_pretrained(output_dir).eval()
    compare_models(report, original, reloaded, None, LOGITS_TOLERANCE)
    if not learned:
        report.note(
            f"fairseq's sinusoids have other frequencies than §3.5: written as {model.config.learned_positions} "
            "learned positions"
        )
    if dictionary is not None:
        tokenizer = tokenizer_of(dictionary, model.config.vocab_size)
        tokenizer.save_pretrained(output_dir)
        report.note("tokenizer: the dictionary's pieces between spaces; give it text as fairseq had it, BPE applied")
    return report


def read_checkpoint(path: str | Path) -> tuple[argparse.Namespace, State]:
    """Reads a checkpoint without running any code of it: its arguments, and its weights by fairseq's names.

    Raises:
        UsageError: If it cannot be read so.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # files of any kind of damage raise errors of any kind
        raise UsageError(
            f"{path} cannot be read as a checkpoint without running code of it: {why_unreadable(error)}"
        ) from error
    if not isinstance(checkpoint, dict) or "model" not in checkpoint:
        raise UsageError(f"{path} is no fairseq checkpoint: it has no entry 'model'.")
    whole = checkpoint.get("cfg")
    arguments = checkpoint.get("args") or (whole.get("model") if isinstance(whole, dict) else None)
    if isinstance(arguments, dict):
        arguments = argparse.Namespace(**arguments)
    if arguments is None:
        raise UsageError(f"{path} does not hold the arguments of its training ('args' or 'cfg').")
    return arguments, checkpoint["model"]


def transformer2017_from(arguments: argparse.Namespace, state: State) -> Transformer2017ForConditionalGeneration:
    """Makes our model of fairseq's arguments and weights.

    Raises:
        UsageError: If our model cannot represent it.
    """
    _check(arguments, state)
    tables = {half: _positions(arguments, state, half) for half in ("encoder", "decoder")}
    positions = min(len(table) for table in tables.values())
    shared = state["encoder.embed_tokens.weight"]
    config = _own_config(arguments, *shared.shape, learned_positions=positions)
    own = {"model.shared.weight": shared}
    unread = {name for name in state if not any(part in name for part in UNUSED)}
    for ours, theirs in layer_parts(config.encoder_layers, config.decoder_layers).items():
        for kind in ("weight", "bias"):
            name = f"{theirs.removeprefix('model.')}.{kind}"
            if name not in state:
                raise UsageError(f"The checkpoint has no weight {name}: it may be of a fairseq older than 0.7.")
            own[f"{ours}.{kind}"] = state[name]
            unread.discard(name)
    if unread:
        raise UsageError(f"The checkpoint has weights that the paper's model has no place for: {sorted(unread)[0]}.")
    if getattr(arguments, "no_scale_embedding", False):
        own = with_scaled_embedding(own, config)
    own.update({POSITIONS.format(half=half): table[:positions] for half, table in tables.items()})
    return own_model(config, {name: weight.float() for name, weight in own.items()})


def _check(arguments: argparse.Namespace, state: State) -> None:
    """Raises a sentence for the user where the paper's model has no place for what a fairseq model has."""
    refused = {
        "encoder_normalize_before": "normalises before each sub-layer (pre-norm); the paper's normalises after (§3.1)",
        "decoder_normalize_before": "normalises before each sub-layer (pre-norm); the paper's normalises after (§3.1)",
        "adaptive_softmax_cutoff": "has an adaptive softmax; the paper's output is the shared matrix (§3.4)",
        "layernorm_embedding": "normalises its embeddings, as BART does and the paper does not",
        "no_token_positional_embeddings": "has no positions (§3.5)",
        "no_cross_attention": "has no attention of the decoder to the encoder (§3.1)",
        "cross_self_attention": "merges its attention to the encoder with self-attention (§3.1)",
    }
    for name, reason in refused.items():
        if getattr(arguments, name, None):
            raise UsageError(f"This fairseq model {reason} (--{name.replace('_', '-')}).")
    for part in ("encoder.layer_norm.weight", "decoder.layer_norm.weight"):
        if part in state:
            raise UsageError(f"This fairseq model has a norm at the end of a stack ({part}): it is pre-norm.")
    for encoder, decoder in (("encoder_ffn_embed_dim", "decoder_ffn_embed_dim"), *_PAIRS):
        if getattr(arguments, encoder) != getattr(arguments, decoder):
            raise UsageError(f"{encoder} and {decoder} differ; the paper's model has one number for both.")
    shared = state["encoder.embed_tokens.weight"]
    for name in ("decoder.embed_tokens.weight", "decoder.output_projection.weight", "decoder.embed_out"):
        other = state.get(name)
        if other is not None and (other.shape != shared.shape or not torch.equal(other, shared)):
            raise UsageError(
                f"This fairseq model has separate vocabularies or matrices ({name}): only one trained with "
                "--share-all-embeddings can be represented (§3.4)."
            )


_PAIRS = (
    ("encoder_attention_heads", "decoder_attention_heads"),
    ("encoder_embed_dim", "decoder_embed_dim"),
    ("encoder_learned_pos", "decoder_learned_pos"),
)


def _own_config(arguments: argparse.Namespace, vocab_size: int, d_model: int, **fields: Any) -> Transformer2017Config:
    start, pad, end = (SPECIAL_TOKENS.index(token) for token in (START, PAD, END))
    activation = getattr(arguments, "activation_fn", "relu")
    return own_config(
        "fairseq model",
        vocab_size=vocab_size,
        d_model=d_model,
        d_ff=arguments.encoder_ffn_embed_dim,
        num_heads=arguments.encoder_attention_heads,
        encoder_layers=arguments.encoder_layers,
        decoder_layers=arguments.decoder_layers,
        dropout=getattr(arguments, "dropout", 0.1),
        attention_dropout=getattr(arguments, "attention_dropout", 0.0),
        activation_dropout=getattr(arguments, "activation_dropout", 0.0),
        activation_function={"swish": "silu"}.get(activation, activation),
        label_smoothing=getattr(arguments, "label_smoothing", 0.1),
        pad_token_id=pad,
        bos_token_id=start,
        eos_token_id=end,
        decoder_start_token_id=end,
        **fields,
    )


def _positions(arguments: argparse.Namespace, state: State, half: str) -> torch.Tensor:
    """The table of positions from the first token on (positions, d_model): learned, or fairseq's sinusoids.

    Those are tensor2tensor's: all sines, then all cosines, of frequencies 10000 ** -(i / (d_model / 2 - 1)), where the
    paper has 10000 ** -(i / (d_model / 2)). No order of the d_model axis makes one of the other, so the table is kept.
    """
    learned = state.get(f"{half}.embed_positions.weight")
    if learned is not None:
        return learned[FIRST_POSITION:]
    count = getattr(arguments, "max_source_positions" if half == "encoder" else "max_target_positions", None) or 1024
    pairs = state["encoder.embed_tokens.weight"].shape[1] // 2
    frequencies = torch.exp(torch.arange(pairs, dtype=torch.float64) * -(math.log(10000) / (pairs - 1)))
    angles = torch.arange(FIRST_POSITION, FIRST_POSITION + count, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def tokenizer_of(dictionary: str | Path, vocab_size: int) -> PreTrainedTokenizerFast:
    """Reads a dictionary, whose lines are a piece and its count, as a tokenizer of pieces between spaces.

    Raises:
        UsageError: If there is no such file, a line is malformed, or it has another size than the model's vocabulary.
    """
    if not Path(dictionary).is_file():
        raise UsageError(f"there is no dictionary {dictionary}")
    pieces = list(SPECIAL_TOKENS)
    try:
        with open(dictionary, encoding="utf-8", newline="\n") as file:  # a piece may hold what else ends a line
            lines = [line.rstrip("\r\n") for line in file]
    except UnicodeDecodeError as error:
        raise UsageError(f"{dictionary} is not UTF-8: {error.reason}, byte {error.start + 1}") from None
    for number, line in enumerate(lines, 1):
        piece, _, count = line.removesuffix(" #fairseq:overwrite").rpartition(" ")
        if not piece or not count.isdigit():
            raise UsageError(f"{dictionary}, line {number}: expected a piece and its count, not {line!r}")
        pieces.append(piece)
    if len(pieces) != vocab_size:
        raise UsageError(f"{dictionary} makes {len(pieces)} tokens, and the model has {vocab_size}: is it its own?")
    tokenizer = Tokenizer(models.WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, SPECIAL_TOKENS.index(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
