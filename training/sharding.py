"""Models whose weights lie in parts on several processes (FSDP2), where accelerate and torch alone do not do."""

from collections.abc import Iterator
from contextlib import contextmanager

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
    weights = model.state_dict()
    if not any(isinstance(weight, DTensor) for weight in weights.values()):
        return model
    gathered = {
        name: weight.full_tensor() if isinstance(weight, DTensor) else weight for name, weight in weights.items()
    }
    copy = Transformer2017ForConditionalGeneration(model.config)
    set_weights(copy, gathered)
    copy.generation_config = model.generation_config
    return copy.to(model.device)
