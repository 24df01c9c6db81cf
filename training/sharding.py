"""Models whose weights lie in parts on several processes: FSDP2, and DeepSpeed's ZeRO 3."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import nn
from torch.distributed.tensor import DTensor
from transformer2017.modeling import Transformer2017ForConditionalGeneration

from .averaging import set_weights


@contextmanager
def tied_weights_together(model: Transformer2017ForConditionalGeneration) -> Iterator[None]:
    """Has accelerate shard all modules that share the embedding matrix in one group, as torch asks for.

    accelerate 1.15 makes a group of embedding and output projection, and knows nothing of encoder's and decoder's
    embeddings. Where it is told of neither, all of them are in the group of what is in no layer.
    """
    model.get_input_embeddings = model.get_output_embeddings = lambda: None
    try:
        yield
    finally:
        del model.get_input_embeddings, model.get_output_embeddings


def whole(model: Transformer2017ForConditionalGeneration) -> Transformer2017ForConditionalGeneration:
    """The model itself, or a copy with all of its weights where this process has a part of each.

    All processes must call it. A sharded model is computed by all of them in step, or none goes on; a copy
    translates, and is saved, at the pace of one.
    """
    parameters = list(model.parameters())
    by_torch = any(isinstance(parameter, DTensor) for parameter in parameters)
    by_deepspeed = any(hasattr(parameter, "ds_id") for parameter in parameters)
    if not (by_torch or by_deepspeed):
        return model
    copy = Transformer2017ForConditionalGeneration(model.config)
    with _gathered_by_deepspeed(parameters) if by_deepspeed else nullcontext():
        weights = model.state_dict().items()
        set_weights(copy, {name: each.full_tensor() if isinstance(each, DTensor) else each for name, each in weights})
    copy.generation_config = model.generation_config
    return copy.to(model.device)


def _gathered_by_deepspeed(parameters: list[nn.Parameter]) -> AbstractContextManager[None]:
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameters)
