"""The training objective: cross-entropy with label smoothing (§5.4)."""

import torch
from torch import Tensor, nn

IGNORED_LABEL = -100


def label_smoothed_cross_entropy(
    logits: Tensor,  # (batch, target_len, vocab_size)
    labels: Tensor,  # (batch, target_len); -100 marks padding
    smoothing: float,  # weight of the uniform distribution over the vocabulary, the right token included
    num_items_in_batch: Tensor | int | None = None,  # real tokens in the whole update; those of this batch if None
) -> Tensor:
    """Averages the cross-entropy against (1 - smoothing) * one-hot + smoothing * uniform over real tokens (§5.4).

    The tokens of an update are those of all its accumulated batches and processes, as `Trainer` counts them.
    Returns nats per token, a scalar in float32 or wider.
    """
    logits = logits.flatten(0, -2).to(torch.promote_types(logits.dtype, torch.float32))
    goal = {"label_smoothing": smoothing, "ignore_index": IGNORED_LABEL, "reduction": "sum"}
    loss = nn.functional.cross_entropy(logits, labels.flatten().to(logits.device), **goal)
    tokens = (labels != IGNORED_LABEL).sum() if num_items_in_batch is None else num_items_in_batch
    return loss / torch.as_tensor(tokens, device=loss.device)
