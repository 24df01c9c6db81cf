"""Decoding behind `generate()`: the loop of this folder where it can run, transformers' own where it cannot.

`generate()` itself is transformers'. It prepares the configuration, the encoder's output, the processors and the
criteria, and then calls `_sample` or `_beam_search`, which are overridden here.
"""

from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import (
    GenerateBeamEncoderDecoderOutput,
    GenerateEncoderDecoderOutput,
    LogitsProcessorList,
    StoppingCriteriaList,
)
from transformers.modeling_outputs import BaseModelOutput

from .cache_name import CACHE
from .decoding_outputs import StepRecord, beam_fill, end_tokens, filled_cache, padded, with_prompts
from .decoding_path import (
    obstacle_in_decoder,
    obstacle_in_encoder,
    obstacle_in_inputs,
    obstacle_in_request,
    obstacle_in_source,
)
from .decoding_ranker import BeamRanker, GreedyRanker, Ranking
from .decoding_search import Search, Sources
from .decoding_step import DecodingStep, additive_mask
from .decoding_weights import decoding_step
from .output_length import BoundedGenerationMixin

# What this class understands beyond transformers' arguments of `generate()`.
OWN_ARGUMENTS = {"fast": None, "ranking": "transformers", "max_tokens_beyond_input": None}


def prepared_sources(step: DecodingStep, model_kwargs: dict[str, Any], beams: int, limit: int) -> Sources:
    """The sentences that transformers has prepared, without its copies for each beam."""
    memory = model_kwargs["encoder_outputs"].last_hidden_state[::beams]
    attention_mask = model_kwargs.get("attention_mask")
    mask = None if attention_mask is None else additive_mask(attention_mask[::beams], step.dtype)
    limits = torch.full((len(memory),), limit, device=memory.device)
    return Sources(list(range(len(memory))), step.project_source(memory), mask, limits)


def _check(config: GenerationConfig) -> None:
    """Raises ValueError where one of our own arguments is none that there is."""
    if config.fast not in (None, True, False):
        raise ValueError(f"fast must be True, False or None, not {config.fast!r}.")
    if config.ranking not in ("transformers", "paper"):
        raise ValueError(f"ranking must be 'transformers' or 'paper', not {config.ranking!r}.")
    beyond = config.max_tokens_beyond_input
    if beyond is not None and (type(beyond) is not int or beyond < 0):
        raise ValueError(f"max_tokens_beyond_input must be a whole number of at least 0, or None, not {beyond!r}.")


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
        _check(config)
        return config, model_kwargs

    def _prepare_text_encoder_decoder_kwargs_for_generation(
        self,
        inputs_tensor: torch.Tensor,
        model_kwargs: dict[str, Any],
        model_input_name: str | None,
        generation_config: GenerationConfig,
    ) -> dict[str, Any]:
        """The encoder's output; on a CPU by the fused weights, where no more than that is asked for."""
        mask = model_kwargs.get("attention_mask")
        obstacle = obstacle_in_source(inputs_tensor, model_input_name, mask, generation_config)
        if obstacle or obstacle_in_encoder(self) or obstacle_in_decoder(self):
            return super()._prepare_text_encoder_decoder_kwargs_for_generation(
                inputs_tensor, model_kwargs, model_input_name, generation_config
            )
        step = decoding_step(self)
        memory = step.encode(inputs_tensor, None if mask is None else additive_mask(mask, step.dtype))
        encoded = BaseModelOutput(memory.to(step.weight.dtype))
        encoded.step = step  # for the search of the same call, which need not look the model over once more
        return {**model_kwargs, "encoder_outputs": encoded}

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
        ) or obstacle_in_inputs(model_kwargs)
        if obstacle is None and not hasattr(model_kwargs["encoder_outputs"], "step"):
            obstacle = obstacle_in_decoder(self)
        self.decoded_by = f"transformers: {obstacle}" if obstacle else "fast"
        is_ranked = config.ranking != "transformers" and (config.num_beams or 1) > 1
        if obstacle and (config.fast or is_ranked):
            wish = "fast=True" if config.fast else f"ranking={config.ranking!r}"
            raise ValueError(f"{wish} needs the fast path of decoding, which cannot run: {obstacle}.")
        return not obstacle

    def _step_for(self, model_kwargs: dict[str, Any]) -> DecodingStep:
        """The fused weights: those that have read the source, if they have."""
        return getattr(model_kwargs["encoder_outputs"], "step", None) or decoding_step(self)

    def _fast_greedy(
        self,
        input_ids: torch.Tensor,
        processors: LogitsProcessorList,
        config: GenerationConfig,
        model_kwargs: dict[str, Any],
    ) -> GenerateEncoderDecoderOutput | torch.Tensor:
        """`_sample` without sampling, on the fast path."""
        step = self._step_for(model_kwargs)
        eos, pad = end_tokens(config, input_ids), config._pad_token_tensor
        pad = 0 if pad is None else int(pad)
        record = StepRecord(config)
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
        step, beams = self._step_for(model_kwargs), config.num_beams
        eos = end_tokens(config, input_ids)
        ranking = Ranking(config.length_penalty, config.early_stopping, config.ranking)
        record = StepRecord(config)
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
