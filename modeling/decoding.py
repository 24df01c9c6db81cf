"""Decoding behind `generate()`: the loop of this folder where it can run, transformers' own where it cannot.

`generate()` itself is transformers'. It prepares the configuration, the encoder's output, the processors and the
criteria, and then calls `_sample` or `_beam_search`, which are overridden here.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import Cache, GenerationConfig
from transformers.generation import (
    EosTokenCriteria,
    ExponentialDecayLengthPenalty,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    GenerateBeamEncoderDecoderOutput,
    GenerateEncoderDecoderOutput,
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

from .attention import MultiHeadAttention
from .cache_name import CACHE
from .decoder import DecoderLayer
from .decoding_ranker import BeamRanker, GreedyRanker, Hypothesis, Ranking
from .decoding_search import Search, Sources
from .decoding_step import DecodingStep, additive_mask
from .feed_forward import FeedForward
from .output_length import BoundedGenerationMixin

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
PLAIN_MODULES = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Dropout, DecoderLayer, MultiHeadAttention, FeedForward)
OBSERVERS = "transformers.utils.output_capturing"  # hooks that only look on
PREPARED = ("encoder_outputs", "attention_mask", CACHE, "use_cache")

# What this class understands beyond transformers' arguments of `generate()`.
OWN_ARGUMENTS = {"fast": None, "ranking": "transformers", "max_tokens_beyond_input": None}

_steps: WeakKeyDictionary[nn.Module, tuple[tuple, DecodingStep]] = WeakKeyDictionary()


def fingerprint(model: nn.Module) -> tuple:
    """Changes when the weights do: where they lie, how often torch saw them change, and a few of their values.

    The values are for changes that torch does not see, such as those through `.data`.
    """
    weights = list(model.model.decoder.parameters()) + list(model.lm_head.parameters())
    sample = torch.cat([weight.detach().flatten()[:4].float() for weight in weights])
    return (*((w.data_ptr(), w._version, w.dtype) for w in weights), *sample.tolist())


def decoding_step(model: nn.Module) -> DecodingStep:
    """The fused weights of a model, made anew when they have changed."""
    current = fingerprint(model)
    known = _steps.get(model)
    if known is None or known[0] != current:
        known = _steps[model] = (current, DecodingStep(model))
    return known[1]


class Record:
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
        if type(one) not in PROCESSORS + CRITERIA:
            return type(one).__name__
    return None


def obstacle_in_inputs(model_kwargs: dict[str, Any]) -> str | None:
    """What in the model's inputs the fast path does not take; None if nothing."""
    for name, value in model_kwargs.items():
        if name not in PREPARED and value is not None:
            return name
    if getattr(model_kwargs.get(CACHE), "_is_user_defined", False):  # to go on from, or to be filled
        return CACHE
    return None


def obstacle_in_model(model: nn.Module) -> str | None:
    """What about the model keeps its weights from being taken out of it; None if nothing.

    Adapters, quantised layers, hooks and other replacements of a module compute something of their own.
    """
    if model.training:
        return "training mode"
    weights = [*model.model.decoder.parameters(), *model.lm_head.parameters()]
    places = {(weight.device, weight.dtype) for weight in weights}
    if len(places) > 1:
        return "weights on several devices or of several types"
    device, dtype = places.pop()
    if device.type == "meta" or (device.type == "cpu" and dtype == torch.float16):
        return f"weights of {dtype} on {device}"
    for name, module in [("lm_head", model.lm_head), *model.model.decoder.layers.named_modules()]:
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        if any(not getattr(hook, "__module__", "").startswith(OBSERVERS) for hook in hooks):
            return f"a hook on {name}"
        is_read = name.endswith(("w_q", "w_k", "w_v", "w_o", "w_1", "w_2", "norm", "lm_head"))
        if (is_read or any(True for _ in module.parameters(recurse=False))) and type(module) not in PLAIN_MODULES:
            return f"{name} is a {type(module).__name__}"
        if isinstance(module, (DecoderLayer, MultiHeadAttention, FeedForward)) and "forward" in vars(module):
            return f"{name} has a forward of its own"
    return None


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


def prepared_sources(step: DecodingStep, model_kwargs: dict[str, Any], beams: int, limit: int) -> Sources:
    """The sentences that transformers has prepared, without its copies for each beam."""
    memory = model_kwargs["encoder_outputs"].last_hidden_state[::beams]
    attention_mask = model_kwargs.get("attention_mask")
    mask = None if attention_mask is None else additive_mask(attention_mask[::beams], step.dtype)
    limits = torch.full((len(memory),), limit, device=memory.device)
    return Sources(list(range(len(memory))), step.project_source(memory), mask, limits)


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
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows], device=device)


def with_prompts(prompts: torch.Tensor, hypotheses: list[Hypothesis], fill: int) -> torch.Tensor:
    """Outputs behind what they were told to begin with (rows, prompt_len + longest)."""
    return torch.cat((prompts, padded([h.tokens for h in hypotheses], fill, prompts.device)), dim=1)


class FastGenerationMixin(BoundedGenerationMixin):
    """Greedy and beam search on the loop of this folder, behind transformers' `generate()`.

    `generate()` takes, beside transformers' arguments:
        fast: None (the default) takes the fast path wherever it gives what transformers gives; False forces
            transformers' own; True raises where the fast path cannot run.
        ranking: "transformers" divides a hypothesis's log probability by |Y|^length_penalty, "paper" by
            ((5 + |Y|) / 6)^length_penalty (§6.1).
        max_tokens_beyond_input: Bounds the output by the input's length plus this many tokens (§6.1), where no other
            bound is given.

    Attributes:
        decoded_by: After `generate()`: "fast", or "transformers: " and why.
    """

    decoded_by: str | None = None

    def _prepare_generation_config(
        self, generation_config: GenerationConfig | None, **kwargs: Any
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        own = {name: kwargs.pop(name) for name in OWN_ARGUMENTS if name in kwargs}
        config, model_kwargs = super()._prepare_generation_config(generation_config, **kwargs)
        for name, default in OWN_ARGUMENTS.items():
            setattr(config, name, own.get(name, getattr(config, name, default)))
        return config, model_kwargs

    def _sample(
        self,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        streamer: Any = None,
        **model_kwargs: Any,
    ) -> GenerateEncoderDecoderOutput | torch.Tensor:
        """Greedy search; sampling is transformers'."""
        given = (logits_processor, stopping_criteria, generation_config)
        if self._takes_fast_path(*given, model_kwargs, streamer=streamer, synced_gpus=synced_gpus):
            return self._fast_greedy(input_ids, logits_processor, generation_config, model_kwargs)
        return super()._sample(input_ids, *given, synced_gpus=synced_gpus, streamer=streamer, **model_kwargs)

    def _beam_search(
        self,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        **model_kwargs: Any,
    ) -> GenerateBeamEncoderDecoderOutput | torch.Tensor:
        """Beam search; with sampling, transformers'."""
        given = (logits_processor, stopping_criteria, generation_config)
        if self._takes_fast_path(*given, model_kwargs, synced_gpus=synced_gpus):
            return self._fast_beams(input_ids, logits_processor, generation_config, model_kwargs)
        return super()._beam_search(input_ids, *given, synced_gpus=synced_gpus, **model_kwargs)

    def _takes_fast_path(
        self,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        config: GenerationConfig,
        model_kwargs: dict[str, Any],
        **asked: Any,
    ) -> bool:
        """Decides the path, and reports it in `decoded_by`.

        Raises:
            ValueError: If only the fast path could do what is asked, and it cannot run.
        """
        obstacle = (
            "fast=False" if config.fast is False else obstacle_in_request(processors, criteria, config, asked)
        ) or (obstacle_in_inputs(model_kwargs) or obstacle_in_model(self))
        self.decoded_by = f"transformers: {obstacle}" if obstacle else "fast"
        if obstacle and (config.fast or config.ranking != "transformers"):
            wish = "fast=True" if config.fast else f"ranking={config.ranking!r}"
            raise ValueError(f"{wish} needs the fast path of decoding, which cannot run: {obstacle}.")
        return not obstacle

    def _fast_greedy(
        self,
        input_ids: torch.Tensor,
        processors: LogitsProcessorList,
        config: GenerationConfig,
        model_kwargs: dict[str, Any],
    ) -> GenerateEncoderDecoderOutput | torch.Tensor:
        """`_sample` without sampling, on the fast path."""
        step = decoding_step(self)
        eos, pad = end_tokens(config, input_ids), config._pad_token_tensor
        pad = 0 if pad is None else int(pad)
        record = Record(config)
        search = Search(
            step,
            lambda n, limits: GreedyRanker(n, limits, eos, step.vocab_size, pad),
            input_ids,
            processors if len(processors) else None,
            record if record.wanted else None,
        )
        sources = prepared_sources(step, model_kwargs, 1, config.max_length - input_ids.shape[1])
        outputs = dict(search.run(iter([sources])))
        hypotheses = [outputs[name][0] for name in range(len(outputs))]
        sequences = with_prompts(input_ids, hypotheses, pad)
        if not config.return_dict_in_generate:
            return sequences
        cache = filled_cache(self, sequences, model_kwargs)
        steps = {"scores": record.scores, "logits": record.logits, CACHE: cache}
        return GenerateEncoderDecoderOutput(sequences=sequences, **steps)

    def _fast_beams(
        self,
        input_ids: torch.Tensor,
        processors: LogitsProcessorList,
        config: GenerationConfig,
        model_kwargs: dict[str, Any],
    ) -> GenerateBeamEncoderDecoderOutput | torch.Tensor:
        """`_beam_search` without sampling, on the fast path; without the cache of the beams that ran last."""
        step, beams = decoding_step(self), config.num_beams
        eos = end_tokens(config, input_ids)
        ranking = Ranking(config.length_penalty, config.early_stopping, config.ranking)
        record = Record(config)
        search = Search(
            step,
            lambda n, limits: BeamRanker(n, limits, eos, step.vocab_size, beams, ranking),
            input_ids[::beams],
            processors if len(processors) else None,
            record if record.wanted else None,
        )
        sources = prepared_sources(step, model_kwargs, beams, config.max_length - input_ids.shape[1])
        outputs = dict(search.run(iter([sources]), config.num_return_sequences))
        found = [(name, hypothesis) for name in range(len(outputs)) for hypothesis in outputs[name]]
        hypotheses = [hypothesis for _, hypothesis in found]
        rows = torch.tensor([name * beams for name, _ in found], device=input_ids.device)
        sequences = with_prompts(input_ids[rows], hypotheses, beam_fill(config))
        if not config.return_dict_in_generate:
            return sequences
        offsets = [[name * beams + beam for beam in hypothesis.beams] for name, hypothesis in found]
        return GenerateBeamEncoderDecoderOutput(
            sequences=sequences,
            sequences_scores=torch.tensor([h.score for h in hypotheses], device=input_ids.device)
            if config.output_scores
            else None,
            scores=record.scores,
            logits=record.logits,
            beam_indices=padded(offsets, -1, input_ids.device).to(torch.int32),
        )
