"""What the loop of this folder finds, in the form in which transformers' `generate()` gives it."""

from typing import Any

import torch
from torch import nn
from transformers import Cache, GenerationConfig

from .cache_name import CACHE
from .decoding_ranker import Hypothesis


class StepRecord:
    """The scores and logits of each step, where they are asked for."""

    def __init__(self, config: GenerationConfig) -> None:
        asked = config.return_dict_in_generate
        self.scores: tuple[torch.Tensor, ...] | None = () if asked and config.output_scores else None
        self.logits: tuple[torch.Tensor, ...] | None = () if asked and config.output_logits else None
        self.wanted = self.scores is not None or self.logits is not None

    def __call__(self, logits: torch.Tensor, scores: torch.Tensor) -> None:
        """Both (rows, vocab_size)."""
        if self.scores is not None:
            self.scores += (scores.clone(),)
        if self.logits is not None:
            self.logits += (logits.clone(),)


def end_tokens(config: GenerationConfig, input_ids: torch.Tensor) -> torch.Tensor:
    """The ids that end an output, perhaps none."""
    if config._eos_token_tensor is None:
        return input_ids.new_empty(0)
    return config._eos_token_tensor.to(input_ids.device)


def beam_fill(config: GenerationConfig) -> int:
    """What follows a finished hypothesis in transformers' beam search: padding, or the end token where that is 0."""
    if config._eos_token_tensor is None:
        return -1
    pad = config._pad_token_tensor
    return int(pad) if pad is not None and int(pad) else int(config._eos_token_tensor[0])


def filled_cache(model: nn.Module, sequences: torch.Tensor, model_kwargs: dict[str, Any]) -> Cache:
    """The cache that transformers' own loop leaves behind: of all but the last token of greedy outputs.

    Rows leave the fast path as they end, so that it keeps no such cache; one pass over the outputs makes it anew.
    """
    memory = {
        "encoder_hidden_states": model_kwargs["encoder_outputs"].last_hidden_state,
        "encoder_attention_mask": model_kwargs.get("attention_mask"),
    }
    given = {**memory, CACHE: model_kwargs[CACHE], "use_cache": True}
    return getattr(model.model.decoder(sequences[:, :-1], **given), CACHE)


def padded(rows: list[list[int]], fill: int, device: torch.device) -> torch.Tensor:
    """Rows of different lengths as one tensor (rows, longest)."""
    longest = max(map(len, rows))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows], dtype=torch.long, device=device)


def with_prompts(prompts: torch.Tensor, hypotheses: list[Hypothesis], fill: int) -> torch.Tensor:
    """Outputs behind what they were told to begin with (rows, prompt_len + longest)."""
    return torch.cat((prompts, padded([h.tokens for h in hypotheses], fill, prompts.device)), dim=1)
