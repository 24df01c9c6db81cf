"""Where other formats keep the same weights: their names, and their order of the d_model axis."""

import copy
import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformer2017.configuration import Transformer2017Config, UsageError, in_a_line
from transformer2017.modeling import Transformer2017ForConditionalGeneration
from transformer2017.modeling.output_length import TOKENS_BEYOND_INPUT
from transformers import PreTrainedTokenizerBase

# Ours, then the name that fairseq gave and transformers' Marian and BART kept.
FAIRSEQ_NAMES = {
    "self_attention.w_q": "self_attn.q_proj",
    "self_attention.w_k": "self_attn.k_proj",
    "self_attention.w_v": "self_attn.v_proj",
    "self_attention.w_o": "self_attn.out_proj",
    "self_attention_norm": "self_attn_layer_norm",
    "encoder_decoder_attention.w_q": "encoder_attn.q_proj",
    "encoder_decoder_attention.w_k": "encoder_attn.k_proj",
    "encoder_decoder_attention.w_v": "encoder_attn.v_proj",
    "encoder_decoder_attention.w_o": "encoder_attn.out_proj",
    "encoder_decoder_attention_norm": "encoder_attn_layer_norm",
    "feed_forward.w_1": "fc1",
    "feed_forward.w_2": "fc2",
    "feed_forward_norm": "final_layer_norm",
}
ENCODER_PARTS = [part for part in FAIRSEQ_NAMES if not part.startswith("encoder_decoder_attention")]
POSITIONS = "model.{half}.embeddings.positions.weight"  # learned ones, of the encoder or the decoder
NEVER = -1e4  # added to a logit; in 16 bits too
MAX_POSITIONS = 1024  # of formats that have a table of positions, where ours has a formula
State = dict[str, torch.Tensor]


def layer_parts(encoder_layers: int, decoder_layers: int) -> dict[str, str]:
    """Every linear map and norm of the layers: our name, without `.weight` or `.bias`, to fairseq's and Marian's."""
    return {
        f"model.{half}.layers.{index}.{ours}": f"model.{half}.layers.{index}.{FAIRSEQ_NAMES[ours]}"
        for half, layers, parts in (
            ("encoder", encoder_layers, ENCODER_PARTS),
            ("decoder", decoder_layers, list(FAIRSEQ_NAMES)),
        )
        for index in range(layers)
        for ours in parts
    }


def halves_from_interleaved(d_model: int) -> torch.Tensor:
    """The order in which the interleaved sinusoids of §3.5 become all sines, then all cosines (d_model,).

    `x[..., halves_from_interleaved(d)]` takes our layout to that of the authors' code, of Marian and of MarianMT;
    `x[..., halves_from_interleaved(d).argsort()]` goes back.
    """
    return torch.cat([torch.arange(0, d_model, 2), torch.arange(1, d_model, 2)])


def reorder_d_model(state: State, order: torch.Tensor) -> State:
    """Reorders the d_model axis of every weight of our model, which leaves the model's logits as they are.

    The matrices that read a state of d_model have it as their input axis, those that write one as their output axis;
    norms and the shared embedding have it too. Biases inside attention heads and the feed-forward do not.

    Args:
        state: Weights of `Transformer2017ForConditionalGeneration` by name.
        order: A permutation (d_model,).
    """
    reordered = {}
    for name, weight in state.items():
        part, kind = name.rsplit(".", 1)
        writes = part.endswith((".w_o", ".w_2"))
        if part == "lm_head" and kind == "bias":
            reordered[name] = weight
        elif part.endswith("norm") or (writes and kind == "bias"):
            reordered[name] = weight[order]
        elif writes:
            reordered[name] = weight[order, :]
        elif kind == "weight":
            reordered[name] = weight[:, order]
        else:
            reordered[name] = weight
    return {name: weight.contiguous() for name, weight in reordered.items()}


def with_scaled_embedding(state: State, config: Transformer2017Config) -> State:
    """Makes room for the factor sqrt(d_model) that our embedding always has, for a model that has none.

    The shared matrix shrinks by that factor, and the last norm of the decoder, which only the output projection reads,
    grows by it: both uses of the matrix compute what they did.
    """
    scale = config.d_model**0.5
    last_norm = f"model.decoder.layers.{config.decoder_layers - 1}.feed_forward_norm"
    scaled = {f"{last_norm}.{kind}": state[f"{last_norm}.{kind}"] * scale for kind in ("weight", "bias")}
    return {**state, "model.shared.weight": state["model.shared.weight"] / scale, **scaled}


def with_forbidden_tokens(model: Transformer2017ForConditionalGeneration) -> Transformer2017ForConditionalGeneration:
    """The model with a bias that keeps the tokens from coming which its generation config forbids.

    Other formats do not read that; opus-mt models, which forbid padding, would translate into nothing else. A model
    that forbids none is given back as it is.
    """
    settings = model.generation_config
    forbidden = [words[0] for words in settings.bad_words_ids or [] if len(words) == 1]
    forbidden += settings.suppress_tokens or []
    if not forbidden:
        return model
    config = copy.deepcopy(model.config)
    config.logits_bias = True
    state = model.state_dict()
    bias = state.get("lm_head.bias", torch.zeros(config.vocab_size, dtype=model.dtype)).clone()
    bias[forbidden] = NEVER
    biased = Transformer2017ForConditionalGeneration(config).to(model.dtype).eval()
    load_all_weights(biased, {**state, "lm_head.bias": bias}, ())
    biased.generation_config = settings
    return biased


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Saves a tokenizer by the name of its class that transformers 4 knows as well, whose users read other formats."""
    tokenizer.save_pretrained(folder)
    file = Path(folder, "tokenizer_config.json")
    settings = json.loads(file.read_text(encoding="utf-8"))
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        file.write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")


def why_unreadable(error: Exception) -> str:
    """Why a pickle could not be read, without torch's advice to read it all the same."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, or holds something else than weights"
    return in_a_line(error)


def load_all_weights(model: torch.nn.Module, state: State, tied_or_made: Iterable[str]) -> None:
    """Loads weights by name, and makes sure that none is left over and none is forgotten.

    Args:
        model: Of ours or of transformers'.
        state: Weights by the model's names.
        tied_or_made: Parts of names that the state need not have: they are tied to another, or made by a formula.
    """
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not any(part in name for part in tied_or_made)]
    if missing or unexpected:
        raise RuntimeError(f"weights not loaded: {missing}; weights without a place: {unexpected}")
    model.tie_weights()  # type: ignore[operator]


def own_config(what: str, **fields: Any) -> Transformer2017Config:
    """Makes our configuration of another model's numbers.

    Args:
        what: What the numbers are of, for the user: "fairseq model".

    Raises:
        UsageError: If a number is out of its range.
    """
    try:
        return Transformer2017Config(**fields)
    except ValueError as error:
        raise UsageError(f"This {what} cannot be represented: {error}") from error


def own_model(config: Transformer2017Config, state: State) -> Transformer2017ForConditionalGeneration:
    """Makes our model of weights under our names; the shared matrix stands in `model.shared.weight` alone."""
    model = Transformer2017ForConditionalGeneration(config).eval()
    load_all_weights(model, state, ("lm_head.weight", "embed_tokens"))
    model.generation_config.max_tokens_beyond_input = TOKENS_BEYOND_INPUT  # or generate() stops at 20
    return model
