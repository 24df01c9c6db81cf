"""The training objective: cross-entropy with label smoothing (§5.4)."""

import torch
from torch import nn

IGNORED_LABEL = -100


def label_smoothed_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    smoothing: float,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Averages the cross-entropy against (1 - smoothing) * one-hot + smoothing * uniform over real tokens (§5.4).

    Args:
        logits: (batch, target_len, vocab_size).
        labels: (batch, target_len); -100 marks padding.
        smoothing: Weight of the uniform distribution over the vocabulary, the right token included.
        num_items_in_batch: Real tokens in the whole update, over all accumulated batches and processes, as `Trainer`
            counts them; those of this batch if None.

    Returns:
        The loss in nats per token, a scalar in float32 or wider.
    """
    logits = logits.flatten(0, -2)  # (batch * target_len, vocab_size)
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    labels = labels.flatten().to(logits.device)
    loss = nn.functional.cross_entropy(
        logits, labels, ignore_index=IGNORED_LABEL, label_smoothing=smoothing, reduction="sum"
    )
    if num_items_in_batch is None:
        num_items_in_batch = (labels != IGNORED_LABEL).sum()
    elif torch.is_tensor(num_items_in_batch):
        num_items_in_batch = num_items_in_batch.to(loss.device)
    return loss / num_items_in_batch
