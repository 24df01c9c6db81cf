"""State dicts of models around torch's `nn.Transformer` in, where their embeddings and output share one matrix."""

from pathlib import Path

import torch
from transformer2017.configuration import Transformer2017Config, UsageError, in_a_line
from transformer2017.modeling import Transformer2017ForConditionalGeneration
from transformer2017.modeling.embeddings import sinusoidal_encoding

from .layout import State, own_config, own_model, why_unreadable
from .originals import TorchOriginal
from .report import LOGITS_TOLERANCE, Report, logits_of, shifted, sources_or_samples

FINAL_NORM_TOLERANCE = 1e-2  # normalising twice: what epsilon does depends on the weights of the first norm
MARK = "encoder.layers.0.self_attn.in_proj_weight"
NAMES = {
    "encoder": {
        "self_attention": "self_attn",
        "self_attention_norm": "norm1",
        "feed_forward.w_1": "linear1",
        "feed_forward.w_2": "linear2",
        "feed_forward_norm": "norm2",
    },
    "decoder": {
        "self_attention": "self_attn",
        "self_attention_norm": "norm1",
        "encoder_decoder_attention": "multihead_attn",
        "encoder_decoder_attention_norm": "norm2",
        "feed_forward.w_1": "linear1",
        "feed_forward.w_2": "linear2",
        "feed_forward_norm": "norm3",
    },
}


def import_torch(
    path: str | Path,
    output_dir: str | Path,
    *,
    num_heads: int,
    activation_function: str = "relu",
    pad_token_id: int = 0,
    start_token_id: int = 1,
    end_token_id: int = 2,
) -> Report:
    """Reads a state dict that holds an `nn.Transformer` and its embedding, and writes it as a model folder of ours.

    The model is taken to be the paper's: post-norm, embeddings times sqrt(d_model), sinusoids as in §3.5. The file is
    read with `weights_only=True`: it cannot run code.

    Args:
        path: A file that `torch.save(model.state_dict(), path)` wrote.
        output_dir: Made if it is not there.
        num_heads: h, which a state dict does not tell.
        activation_function: "relu" or "gelu".
        pad_token_id: Token of padding.
        start_token_id: Token that starts the decoder.
        end_token_id: Token that ends a sentence.

    Raises:
        UsageError: If the file cannot be read, or the model cannot be represented; the sentence says why.
        RunError: If the logits differ from the original's.
    """
    state = read_state_dict(path)
    report = Report(f"torch import from {path}")
    try:
        config, own = own_state(
            state,
            report,
            num_heads=num_heads,
            activation_function=activation_function,
            pad_token_id=pad_token_id,
            bos_token_id=start_token_id,
            decoder_start_token_id=start_token_id,
            eos_token_id=end_token_id,
        )
        model = own_model(config, own)
        original = TorchOriginal(config, inner_state(state), own)
    except UsageError:
        raise
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"{path} does not hold a whole nn.Transformer: {in_a_line(error)}") from error
    model.save_pretrained(output_dir)
    report.note("taken to be as in the paper: post-norm, embeddings times sqrt(d_model), interleaved sinusoids")
    report.note("compared with torch's nn.Transformer, between embeddings and positions as these")
    sources = sources_or_samples(report, config, None)
    targets = shifted(sources, start_token_id)
    reloaded = Transformer2017ForConditionalGeneration.from_pretrained(output_dir).eval()
    theirs = original.logits(sources, targets)
    with_norm = any(name.endswith(("encoder.norm.weight", "decoder.norm.weight")) for name in state)
    tolerance = FINAL_NORM_TOLERANCE if with_norm else LOGITS_TOLERANCE
    report.compare_logits(zip(logits_of(reloaded, sources, targets, pad_token_id), theirs, strict=True), tolerance)
    report.note("no tokenizer: a state dict has none")
    return report


def read_state_dict(path: str | Path) -> State:
    """Reads a state dict without running any code of its file; numbers in 16 bits become float32.

    Raises:
        UsageError: If it cannot be read so, or the file holds something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # files of any kind of damage raise errors of any kind
        raise UsageError(
            f"{path} cannot be read as a state dict without running code of it: {why_unreadable(error)}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UsageError(f"{path} is no state dict: save it as torch.save(model.state_dict(), path).")
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def own_state(state: State, report: Report, **fields: int | str) -> tuple[Transformer2017Config, State]:
    """The configuration and the weights by our names.

    Raises:
        UsageError: If the model cannot be represented.
    """
    inner = inner_state(state)
    outer = {name: weight for name, weight in state.items() if name.removeprefix(_prefix(state)) not in inner}
    d_model = inner[MARK].shape[1]
    if int(fields["num_heads"]) < 1 or d_model % int(fields["num_heads"]):
        raise UsageError(f"--num_heads {fields['num_heads']} does not divide the model's width of {d_model}.")
    shared, bias = _matrix_and_bias(outer, d_model)
    for flag, field in (("pad", "pad_token_id"), ("start", "decoder_start_token_id"), ("end", "eos_token_id")):
        if not 0 <= int(fields[field]) < len(shared):
            raise UsageError(f"--{flag}_token_id {fields[field]} is none of the {len(shared)} tokens of this model.")
    layers = {
        half: 1 + max(int(name.split(".")[2]) for name in inner if name.startswith(f"{half}.layers."))
        for half in NAMES
    }
    own: State = {"model.shared.weight": shared}
    for half, count in layers.items():
        for index in range(count):
            own.update(_layer(inner, half, index))
        if f"{half}.norm.weight" in inner:
            own.update(_norm_as_layer(own, half, count, inner))
            layers[half] += 1
            report.note(
                f"the norm at the end of the {half}, which the paper has not, became a layer that adds nothing"
            )
    if bias is not None:
        own["lm_head.bias"] = bias
    config = own_config(
        "state dict",
        vocab_size=shared.shape[0],
        d_model=d_model,
        d_ff=inner["encoder.layers.0.linear1.weight"].shape[0],
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        logits_bias=bias is not None,
        **fields,  # type: ignore[arg-type]
    )
    return config, own


def inner_state(state: State) -> State:
    """The weights of the `nn.Transformer` in a state dict, by its own names."""
    prefix = _prefix(state)
    inner = {name.removeprefix(prefix): weight for name, weight in state.items() if name.startswith(prefix)}
    return {name: weight for name, weight in inner.items() if name.startswith(("encoder.", "decoder."))}


def _prefix(state: State) -> str:
    """What stands before the names of the `nn.Transformer`."""
    prefixes = [name.removesuffix(MARK) for name in state if name.endswith(MARK)]
    if len(prefixes) != 1:
        raise UsageError(f"The state dict holds {len(prefixes)} transformers; exactly one entry must end in {MARK}.")
    return prefixes[0]


def _layer(inner: State, half: str, index: int) -> State:
    """The weights of one layer: torch keeps q, k and v in one matrix."""
    own = {}
    for ours, theirs in NAMES[half].items():
        name, source = f"model.{half}.layers.{index}.{ours}", f"{half}.layers.{index}.{theirs}"
        for kind in ("weight", "bias"):
            if theirs.endswith("attn"):
                if f"{source}.in_proj_{kind}" not in inner:
                    raise UsageError(f"The state dict has no {source}.in_proj_{kind}: a bias or a width is unusual.")
                for letter, part in zip("qkv", inner[f"{source}.in_proj_{kind}"].chunk(3), strict=True):
                    own[f"{name}.w_{letter}.{kind}"] = part.clone()
                own[f"{name}.w_o.{kind}"] = inner[f"{source}.out_proj.{kind}"]
            else:
                own[f"{name}.{kind}"] = inner[f"{source}.{kind}"]
    return own


def _norm_as_layer(own: State, half: str, index: int, inner: State) -> State:
    """One more layer, whose sub-layers add nothing and whose last norm is the norm at the end of torch's stack.

    Its other norms do nothing but normalise, which a second time changes only what epsilon (1e-5) does.
    """
    last, layer = f"model.{half}.layers.{index - 1}.", f"model.{half}.layers.{index}."
    made = {}
    for name, weight in own.items():
        if not name.startswith(last):
            continue
        part = name.removeprefix(last)
        if "norm" in part:
            made[layer + part] = torch.ones_like(weight) if part.endswith("weight") else torch.zeros_like(weight)
        elif part.split(".")[1] in ("w_o", "w_2"):
            made[layer + part] = torch.zeros_like(weight)
        else:
            made[layer + part] = weight.clone()
    return {
        **made,
        **{f"{layer}feed_forward_norm.{kind}": inner[f"{half}.norm.{kind}"] for kind in ("weight", "bias")},
    }


def _matrix_and_bias(outer: State, d_model: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The one matrix of both embeddings and the output, and the output's bias, from what is around the transformer."""
    matrices, bias = {}, None
    for name, weight in outer.items():
        if _is_sinusoids(weight, d_model):
            continue
        if weight.dim() == 2 and weight.shape[1] == d_model:
            matrices[name] = weight
        elif weight.dim() == 1 and bias is None:
            bias = weight
        else:
            raise UsageError(
                f"The state dict holds {name} {tuple(weight.shape)}, which has no place in the paper's model."
            )
    if not matrices:
        raise UsageError(
            f"The state dict holds no embedding: a matrix (vocabulary, {d_model}) beside the transformer."
        )
    first, *others = matrices.values()
    if any(other.shape != first.shape or not torch.equal(other, first) for other in others):
        raise UsageError(
            f"{' and '.join(matrices)} differ; the paper's model shares one matrix between both embeddings and the "
            "output (§3.4)."
        )
    return first, bias if bias is not None and bias.any() else None


def _is_sinusoids(weight: torch.Tensor, d_model: int) -> bool:
    """Whether a buffer is a table of §3.5's sinusoids, in any of the usual shapes."""
    table = weight.squeeze()
    if table.dim() != 2 or table.shape[1] != d_model or not table.is_floating_point():
        return False
    return torch.allclose(table.double(), sinusoidal_encoding(torch.arange(len(table)), d_model), atol=1e-3)
