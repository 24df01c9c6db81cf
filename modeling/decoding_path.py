"""Which calls of `generate()` the loop of this folder takes; what keeps others from it, in a few words each."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks_of_all
from transformers import GenerationConfig
from transformers.generation import (
    EosTokenCriteria,
    ExponentialDecayLengthPenalty,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    LogitsProcessorList,
    MaxLengthCriteria,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    StoppingCriteriaList,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention import MultiHeadAttention, scaled_dot_product_attention
from .cache_name import CACHE
from .decoder import DecoderLayer
from .embeddings import LearnedPositions
from .encoder import EncoderLayer
from .feed_forward import FeedForward

# Processors that look at each row by itself, so that rows may leave the batch.
PROCESSORS = (
    ExponentialDecayLengthPenalty,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
CRITERIA = (MaxLengthCriteria, EosTokenCriteria)
KINDS = {  # of the modules that decoding takes apart, by the end of their names
    "layers": nn.ModuleList,
    **dict.fromkeys(("self_attention", "encoder_decoder_attention"), MultiHeadAttention),
    "feed_forward": FeedForward,
    **dict.fromkeys(("w_q", "w_k", "w_v", "w_o", "w_1", "w_2", "lm_head"), nn.Linear),
    **dict.fromkeys(("self_attention_norm", "encoder_decoder_attention_norm", "feed_forward_norm"), nn.LayerNorm),
    "embed_tokens": nn.Embedding,
    "positions": LearnedPositions,
}
# Of functions that are nobody's own.
HOMES = ("torch.nn", "transformers.activations", "transformers.generation", "transformers.integrations")
OBSERVERS = "transformers.utils.output_capturing"  # hooks that only look on
PREPARED = ("encoder_outputs", "attention_mask", CACHE, "use_cache")
UNREAD = ("labels",)  # transformers' loop does not read them either; `Seq2SeqTrainer` passes them on


def obstacle_in_request(
    processors: LogitsProcessorList, criteria: StoppingCriteriaList, config: GenerationConfig, asked: dict[str, Any]
) -> str | None:
    """What in the arguments of `generate()` the fast path does not do; None if nothing."""
    for name, value in asked.items():
        if value:
            return name
    for name in ("do_sample", "output_attentions", "output_hidden_states", "cache_implementation", "low_memory"):
        if getattr(config, name):
            return name
    if not config.use_cache:
        return "use_cache=False"
    for one in (*processors, *criteria):
        if type(one) not in PROCESSORS + CRITERIA or not _as_configured(one, config):
            return type(one).__name__
    return None


def _as_configured(one: Any, config: GenerationConfig) -> bool:
    """Whether a criterion is the configuration's own, and not one that a caller put in its place."""
    if type(one) is MaxLengthCriteria:
        return one.max_length == config.max_length
    ends = config._eos_token_tensor
    if type(one) is EosTokenCriteria:
        return ends is not None and torch.equal(one.eos_token_id.cpu(), ends.cpu())
    return True


def obstacle_in_inputs(model_kwargs: dict[str, Any]) -> str | None:
    """What in the model's inputs the fast path does not take; None if nothing."""
    for name, value in model_kwargs.items():
        if name not in PREPARED + UNREAD and value is not None:
            return name
    if not hasattr(model_kwargs["encoder_outputs"], "last_hidden_state"):
        return "encoder_outputs without names"
    if getattr(model_kwargs.get(CACHE), "_is_user_defined", False):  # to go on from, or to be filled
        return CACHE
    mask = model_kwargs.get("attention_mask")
    if mask is not None and not bool(mask.any(-1).all()):
        return "a source that is masked entirely"
    return None


def obstacle_in_source(
    inputs: torch.Tensor, name: str | None, attention_mask: torch.Tensor | None, config: GenerationConfig
) -> str | None:
    """What in the arguments of `generate()` keeps the source from the fused encoder; None if nothing."""
    if getattr(config, "fast", None) is False:  # an assistant's configuration does not have it
        return "fast=False"
    for output in ("output_attentions", "output_hidden_states"):
        if getattr(config, output):
            return output
    if name != "input_ids":
        return name
    if inputs.device.type != "cpu":  # elsewhere there is nothing to gain
        return f"a source on {inputs.device}"
    if attention_mask is not None and (attention_mask.dim() != 2 or not bool(attention_mask[:, 0].all())):
        return "padding on the left"
    return None


def obstacle_in_decoder(model: nn.Module) -> str | None:
    """What about the decoder keeps its weights from being taken out of it; None if nothing."""
    parts = {"decoder": model.model.decoder, "lm_head": model.lm_head}
    return _obstacle_around(model) or _obstacle_in(parts) or _embeddings_of_its_own(model, "decoder")


def obstacle_in_encoder(model: nn.Module) -> str | None:
    """The same of the encoder."""
    return _obstacle_in({"encoder": model.model.encoder}) or _embeddings_of_its_own(model, "encoder")


def _embeddings_of_its_own(model: nn.Module, side: str) -> str | None:
    """Decoding reads the matrix that all share (§3.4)."""
    embeddings = getattr(model.model, side).embeddings.embed_tokens
    return None if embeddings.weight is model.model.shared.weight else f"embeddings of the {side}'s own"


def _obstacle_around(model: nn.Module) -> str | None:
    """What the model as a whole does beside encoder and decoder: its subclass's, its hooks', or an adapter's."""
    method = "prepare_inputs_for_generation"
    if _is_replaced(model, method):
        return f"the model has a {method} of its own"
    name = model.config._attn_implementation
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(name, scaled_dot_product_attention)
    if not (_is_beside(attend) or attend.__module__.startswith(HOMES)):
        return f"attention by {name!r}"
    if hooks_of_all._global_forward_hooks or hooks_of_all._global_forward_pre_hooks:
        return "a hook on all modules"
    return _replacement("the model", model) or _replacement("model.model", model.model)


def _obstacle_in(parts: dict[str, nn.Module]) -> str | None:
    """Adapters, quantised layers, hooks and other replacements of a module compute something of their own."""
    if any(part.training for part in parts.values()):
        return "training mode"
    places = {(weight.device, weight.dtype) for part in parts.values() for weight in part.parameters()}
    if len(places) > 1:
        return "weights on several devices or of several types"
    device, dtype = places.pop()
    if device.type == "meta" or (device.type == "cpu" and dtype == torch.float16):
        return f"weights of {dtype} on {device}"
    for prefix, part in parts.items():
        for name, module in part.named_modules(prefix=prefix):
            if fault := _replacement(name, module):
                return fault
    return None


def _replacement(name: str, module: nn.Module) -> str | None:
    """What makes a module more, or something else, than its weights; None if nothing."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    if any(not getattr(hook, "__module__", "").startswith(OBSERVERS) for hook in hooks):
        return f"a hook on {name}"
    if module.training and isinstance(module, nn.Dropout | MultiHeadAttention):
        return f"{name} alone is in training mode"
    if type(module) is not _kind_of(name, module):
        return f"{name} is a {type(module).__name__}"
    if any(type(weight) not in (nn.Parameter, type(None)) for weight in module._parameters.values()):
        return f"weights of {name} that are quantised or sharded"
    return f"{name} has a forward of its own" if _is_replaced(module, "forward") else None


def _kind_of(name: str, module: nn.Module) -> type | None:
    """The type a module must have for decoding to read its weights; its own type if it has no weights."""
    last = name.rpartition(".")[2]
    if last.isdigit():
        return EncoderLayer if name.startswith("encoder") else DecoderLayer
    if last == "dropout" and not isinstance(module, nn.Dropout | nn.Identity):  # which do nothing here
        return nn.Dropout
    return KINDS.get(last, None if module._parameters else type(module))


def _is_replaced(module: nn.Module, method: str) -> bool:
    """Whether a method is a subclass's, or was put in its place: not this folder's, torch's or transformers'."""
    own, written = vars(module), getattr(type(module), method)
    # What accelerate prepares to train in 16 bits is the original under its autocast, which decoding does not need.
    placed = own.get(f"_original_{method}", own.get(method))
    if placed is not None and getattr(placed, "__func__", None) is not written:
        return True
    return not (_is_beside(written) or written.__module__.startswith(HOMES))


def _is_beside(function: Any) -> bool:
    """Whether it is of this folder, which may be a saved model's."""
    return function.__module__.rpartition(".")[0] == __name__.rpartition(".")[0]
