"""What makes a training step quick, and changes nothing else: each part computes what the plain form computes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as all_modules
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from .loss import IGNORED_LABEL, label_smoothed_cross_entropy
from .quick_products import HAS_AVX512, product

BITS = 16  # of a random number of dropout: rates are met to 2^-17, and the scale is that of the rate met
TOGETHER = 2**17  # weights: up to here the maps of an attention are quicker as one
SHORT = 64  # tokens: up to here attention is quicker as products than by torch's kernel
REGISTER = 16 if HAS_AVX512 else 8  # float32 numbers that a CPU takes at once
CHUNK = 2**22  # logits that exist at a time where they are not kept: 16 MiB in float32
HOOKS_ON_ALL = (
    all_modules._global_forward_hooks, all_modules._global_forward_pre_hooks,
    all_modules._global_backward_hooks, all_modules._global_backward_pre_hooks,
)  # fmt: skip
GPU_CHUNKS = 16  # so many times as many on a GPU, which small products leave idle


class Dropout(nn.Dropout):
    """`nn.Dropout` (§5.4), whose random numbers are made four at a time on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeroes each number with probability p, and divides the others by 1 - p."""
        dropped = round(self.p * 2**BITS)  # of the 2^BITS values of a random number
        if not self.training or dropped in (0, 2**BITS) or x.device.type != "cpu" or _is_transformed():
            return super().forward(x)
        numbers = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device="cpu").random_(-(2**63), None)
        numbers = numbers.view(torch.int16)
        numbers = numbers[: x.numel()].view(x.shape)
        if x.element_size() > numbers.element_size():
            return _Dropped.apply(x, numbers, dropped)
        return x * _scale_of_kept(numbers, dropped, x.dtype)


def _is_transformed() -> bool:
    """Whether torch looks at what runs to make something else of it: by `torch.compile`, or by `torch.func`."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def _scale_of_kept(numbers: Tensor, dropped: int, dtype: torch.dtype) -> Tensor:
    """0 for what is dropped, and what the others are multiplied by."""
    kept = torch.empty_like(numbers, dtype=dtype)  # compared into at once: no mask of another type is written
    torch.ge(numbers, dropped - 2 ** (BITS - 1), out=kept)
    return kept.mul_(2**BITS / (2**BITS - dropped))


class _Dropped(torch.autograd.Function):
    """Dropout that keeps its random numbers for the way back: less memory than the factors that come of them."""

    @staticmethod
    def forward(x: Tensor, numbers: Tensor, dropped: int) -> Tensor:
        return _scale_of_kept(numbers, dropped, x.dtype).mul_(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.dropped = inputs[2]

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        (numbers,) = ctx.saved_tensors
        scale = _scale_of_kept(numbers, ctx.dropped, d_y.dtype)
        try:
            return scale.mul_(d_y), None, None
        except RuntimeError:  # of several gradients at once, which all have the numbers of the one way forward
            return scale * d_y, None, None


def is_plain(linear: nn.Module) -> bool:
    """Whether calling this map computes x W^T + b and nothing else, with weights that are in memory.

    Not so are an adapter's, a map that is quantised, sharded or compiled, and one with hooks, as pruning has, or with
    a forward of its own: it must be called.
    """
    hooks = linear._forward_hooks, linear._forward_pre_hooks, linear._backward_hooks, linear._backward_pre_hooks
    is_changed = type(linear) is not nn.Linear or "forward" in vars(linear) or any(hooks) or any(HOOKS_ON_ALL)
    return not is_changed and linear.weight.numel() > 0 and not _is_transformed()


def _is_trained_plainly(linear: nn.Linear) -> bool:
    return linear.training and is_plain(linear)


def project(x: Tensor, linear: nn.Linear) -> Tensor:
    """Computes `linear(x)`, in training by the quickest product there is."""
    return product(x, linear.weight, linear.bias) if _is_trained_plainly(linear) else linear(x)


def project_together(x: Tensor, maps: Sequence[nn.Linear]) -> Sequence[Tensor]:
    """Projects (batch, length, d_model) by each map, in training by one product where all are plain and small."""
    if not all(_is_trained_plainly(each) and each.bias is not None for each in maps):
        return [project(x, each) for each in maps]
    if sum(each.weight.numel() for each in maps) > TOGETHER:
        x = _as_in_products(x)  # once, and not for each map
        return [product(x, each.weight, each.bias) for each in maps]
    weight, bias = torch.cat([each.weight for each in maps]), torch.cat([each.bias for each in maps])
    return product(x, weight, bias).split([each.out_features for each in maps], dim=-1)


def _as_in_products(x: Tensor) -> Tensor:
    """In the precision of products under autocast, which would narrow it anew for each, and leaves float64 alone."""
    device = x.device.type
    is_on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)  # "meta" has none
    return x.to(torch.get_autocast_dtype(device)) if is_on and x.dtype != torch.float64 else x


def quick_on_cpu(attend: Callable) -> Callable:
    """Makes an implementation of attention quick on a CPU: in float32, and as the products of eq. 1 if they are short.

    The gradient in bfloat16 takes 8 times as long as in float32. torch's kernel, made for long sequences, takes two
    to three times as long as products at 8 tokens, as long at 64, and two thirds as long at 256.
    """
    return partial(_attend_quickly, attend)


def _attend_quickly(
    attend: Callable,
    module: nn.Module,
    query: Tensor,  # (batch, heads, target_len, d_k)
    key: Tensor,  # (batch, heads, source_len, d_k)
    value: Tensor,  # (batch, heads, source_len, d_v)
    mask: Tensor | None,  # in the form of the implementation
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    on_cpu, is_short = query.device.type == "cpu", max(query.shape[2], key.shape[2]) <= SHORT
    is_plain_sdpa = attend is sdpa_attention_forward and not _is_transformed()
    if on_cpu and is_short and is_plain_sdpa and not _hides_all(mask):
        wide = torch.promote_types(query.dtype, torch.float32)
        mask = _added_to_scores(module, query, key, mask, wide)
        operands = [each.to(wide, memory_format=torch.contiguous_format) for each in (query, key, value)]
        with torch.autocast("cpu", enabled=False):
            heads = _attend_by_products(module, *operands, mask, **kwargs)
        return heads.to(query.dtype, memory_format=torch.contiguous_format), None
    if not on_cpu or query.dtype != torch.bfloat16:
        return attend(module, query, key, value, mask, **kwargs)
    mask = mask.float() if mask is not None and mask.is_floating_point() else mask
    with torch.autocast("cpu", enabled=False):
        heads, weights = attend(module, query.float(), key.float(), value.float(), mask, **kwargs)
    return heads.to(query.dtype), weights


def _hides_all(mask: Tensor | None) -> bool:
    """Whether some query may see no key: torch's kernel attends to nothing then, and a softmax to all alike."""
    return mask is not None and mask.dtype == torch.bool and not bool(mask.any(-1).all())


def _attend_by_products(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,  # added to the scores
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> Tensor:
    """Eq. 1 (§3.2.1), as `scaled_dot_product_attention` of attention.py has it, but for the rows of its softmax."""
    scores = query @ key.transpose(-2, -1) * scaling  # (batch, heads, target_len, source_len)
    if mask is not None:
        scores = scores + mask
    weights = nn.functional.dropout(_softmax(scores), dropout, module.training)
    return (weights @ value).transpose(1, 2)  # (batch, target_len, heads, d_v)


def _softmax(scores: Tensor) -> Tensor:
    """Over the last axis. For rows shorter than a register torch's kernel takes ten times as long: they are filled."""
    missing = REGISTER - scores.shape[-1]
    if missing <= 0:
        return torch.softmax(scores, dim=-1)
    return torch.softmax(nn.functional.pad(scores, (0, missing), value=-torch.inf), dim=-1)[..., :-missing]


def _added_to_scores(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """What SDPA knows as True for a key to see, or as causality of the module where there is no mask."""
    if mask is None:
        if not module.is_causal or query.shape[2] == 1:  # one query is the last position, which sees all
            return None
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    if mask.is_floating_point():
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def projected_cross_entropy(
    states: Tensor,  # what the output projection reads (batch, target_len, d_model)
    projection: nn.Linear,
    labels: Tensor,
    smoothing: float,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """`label_smoothed_cross_entropy` of the projected states, for training: the logits never exist all at once."""
    labels = labels.to(states.device).flatten()
    real = (labels != IGNORED_LABEL).nonzero().squeeze(-1)
    states = states.flatten(0, 1).index_select(0, real)  # whose gradient is quicker than that of a mask
    states = _as_in_products(states)
    loss = _ProjectedCrossEntropy.apply(states, projection.weight, projection.bias, labels[real], smoothing)
    tokens = len(real) if num_items_in_batch is None else num_items_in_batch
    return loss / torch.as_tensor(tokens, device=loss.device)


class _ProjectedCrossEntropy(torch.autograd.Function):
    """The summed loss of (tokens, d_model), whose gradient is made on the way forward from a chunk's probabilities.

    The gradient of the loss with respect to the logits is softmax(logits) - target. Products are in the precision of
    the states; that of the weights may be wider, and so is their gradient, which no cast on the way back rounds.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, smoothing: float
    ) -> Tensor:
        given, wide = (states, weight, bias, labels), torch.promote_types(states.dtype, torch.float32)
        needed = zip((weight, bias), ctx.needs_input_grad[1:3], strict=True)  # not where the vocabulary is frozen
        as_rows = {"dtype": wide, "memory_format": torch.contiguous_format}
        # The gradient of the weights is made transposed, as (d_model, vocab_size): that product is the quicker.
        d_weight, d_bias = (torch.zeros_like(each.t(), **as_rows) if is_needed else None for each, is_needed in needed)
        d_states = torch.empty_like(states)
        weight, bias = (None if each is None else each.to(states.dtype) for each in (weight, bias))
        vocab_size = len(weight)
        chunk = max(1, CHUNK * (1 if states.device.type == "cpu" else GPU_CHUNKS) // vocab_size)
        loss = -smoothing / vocab_size * _sum_of_logits(states, weight, bias, wide)
        memory = states.new_empty(min(chunk, len(states)), vocab_size, dtype=wide)  # of one chunk after the other
        for x, y, d_x in zip(states.split(chunk), labels.split(chunk), d_states.split(chunk), strict=True):
            right = y.unsqueeze(-1)  # (chunk, 1)
            logits = product(x, weight, bias)  # (chunk, vocab_size)
            probabilities = torch.softmax(logits, dim=-1, dtype=wide, out=memory[: len(x)])
            loss += smoothing * logits.gather(-1, right).sum(dtype=wide) - probabilities.gather(-1, right).log().sum()
            gradient = probabilities.sub_(smoothing / vocab_size)
            gradient.scatter_add_(-1, right, gradient.new_full(right.shape, smoothing - 1))
            gradient_of_weights = gradient.to(weight.dtype)
            d_x.copy_(product(gradient_of_weights, weight.T))
            if d_weight is not None:
                d_weight += product(x.T, gradient_of_weights.T)
            if d_bias is not None:
                d_bias += gradient.sum(0)
        if not loss.isfinite():  # a probability was too small for a number
            loss = _plain_loss(states, weight, bias, labels, smoothing, chunk)
        if d_weight is not None:  # as the weights lie, or whatever adds to it would have to turn it again
            d_weight = d_weight.T.contiguous()
        ctx.save_for_backward(d_states, d_weight, d_bias, *given)
        ctx.smoothing, ctx.chunk = smoothing, chunk
        return loss

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        *gradients, states, weight, bias, labels = ctx.saved_tensors
        if torch.is_grad_enabled():  # these are to be differentiated in turn, and those made on the way are constants
            # Views, so that autograd does not take the weights here for the embeddings, which made the states.
            given = [each if each is None else each.view_as(each) for each in (states, weight, bias)]
            inputs = [each for each, is_needed in zip(given, ctx.needs_input_grad, strict=False) if is_needed]
            loss = _plain_loss(*given, labels, ctx.smoothing, ctx.chunk)
            found = iter(torch.autograd.grad(loss, inputs, create_graph=True))
            gradients = [next(found) if is_needed else None for is_needed in ctx.needs_input_grad[:3]]
        return *(None if each is None else each * d_loss for each in gradients), None, None


def _sum_of_logits(states: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Of all tokens and words, without a logit being made: the sum of products is the product of sums."""
    of_words = (states.sum(0, dtype=dtype) * weight.sum(0, dtype=dtype)).sum()  # autocast would narrow a product by @
    return of_words if bias is None else of_words + len(states) * bias.sum(dtype=dtype)


def _plain_loss(
    states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, smoothing: float, chunk: int
) -> Tensor:
    """The summed loss by the plain form, a chunk at a time."""
    weight, bias = (None if each is None else each.to(states.dtype) for each in (weight, bias))
    return sum(
        label_smoothed_cross_entropy(nn.functional.linear(x, weight, bias), y, smoothing, num_items_in_batch=1)
        for x, y in zip(states.split(chunk), labels.split(chunk), strict=True)
    )
