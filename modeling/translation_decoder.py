"""Token ids to token ids for many sentences: sorted, batched, refilled, and shared out among workers."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import GenerationConfig

from .decoding_outputs import end_tokens, padded
from .decoding_path import CRITERIA, obstacle_in_decoder, obstacle_in_encoder, obstacle_in_request
from .decoding_ranker import BeamRanker, GreedyRanker, Hypothesis, Ranking
from .decoding_search import Search, Sources
from .decoding_step import DecodingStep, additive_mask
from .decoding_weights import fused_weights
from .freed_memory import keep_freed_memory
from .output_length import named_max_length, new_tokens, with_bound

Batch = list[int]  # indices of sentences
_lock = Lock()
_threads: list[int] = []  # of torch before any workers ran, once for each call that has workers
# Arguments of `generate()` that are no settings of its configuration.
NOT_SETTINGS = (
    "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "assistant_model", "synced_gpus",
    "negative_prompt_ids", "negative_prompt_attention_mask", "custom_generate",
)  # fmt: skip


class Bound(NamedTuple):
    """What bounds an output; its source where neither does (§6.1).

    Attributes:
        new: Tokens behind those that it begins with.
        whole: All of its tokens, its start among them.
    """

    new: int | None = None
    whole: int | None = None


def bound_of(config: GenerationConfig, explicit_max_length: int | None) -> Bound:
    """The bound that `generate()` follows where several are named."""
    if config.max_new_tokens is not None:
        return Bound(new=config.max_new_tokens)
    if explicit_max_length is not None:
        return Bound(whole=explicit_max_length)
    return Bound(new=None if config.max_tokens_beyond_input is not None else config.max_length)


def decoder_of(model: nn.Module, generation: dict[str, Any], **sizes: Any) -> "FileDecoder | BatchDecoder":
    """The quickest decoder that gives what `model.generate(**generation)` gives."""
    obstacle = "another model class"
    if hasattr(model, "_takes_fast_path"):
        obstacle = next((name for name in NOT_SETTINGS if generation.get(name) is not None), None)
        obstacle = obstacle or obstacle_in_encoder(model) or obstacle_in_decoder(model)
        generation = with_bound(generation, model.generation_config)
    if obstacle is None:
        given = generation.get("generation_config")
        others = ("generation_config", *NOT_SETTINGS)
        settings = {name: value for name, value in generation.items() if name not in others}
        config, unknown = model._prepare_generation_config(given, **settings)
        model._validate_model_kwargs(unknown)
        model._prepare_special_tokens(config, True, device=model.device)
        named = [named_max_length(one) for one in (given, model.generation_config) if one is not None]
        bound = bound_of(config, next(filter(None, [generation.get("max_length"), *named]), None))
        config.max_length = bound.whole or 1 + (1 << 30 if bound.new is None else bound.new)
        processors = model._get_logits_processor(config, 1, device=model.device, model_kwargs={})
        criteria = [one for one in model._get_stopping_criteria(config, []) if type(one) not in CRITERIA]
        obstacle = obstacle_in_request(processors, criteria, config, {"fast=False": config.fast is False})
        if obstacle is None and not len(processors):
            return FileDecoder(model, config, bound, **sizes)
    if sizes["int8"]:
        raise ValueError(f"int8 needs the fast path of decoding, which cannot run: {obstacle or 'processors'}.")
    return BatchDecoder(model, generation, sizes["rows"], sizes["batch_tokens"])


def batches_of_like_length(lengths: list[int], most: int, batch_tokens: int) -> Iterator[Batch]:
    """Groups sequences by length, longest first, under a budget of tokens, padding included.

    Args:
        lengths: Tokens of each sequence.
        most: Sequences in a batch at most.
        batch_tokens: Tokens in a batch at most, unless one sequence alone is longer.
    """
    batch: Batch = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) == most or lengths[batch[0]] * (len(batch) + 1) > batch_tokens):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


class BatchDecoder:
    """Batch by batch through `generate()`, for what the fast path does not do."""

    def __init__(self, model: nn.Module, generation: dict[str, Any], rows: int, batch_tokens: int) -> None:
        self.model = model
        self.generation = generation
        configs = [one for one in (generation.get("generation_config"), model.generation_config) if one is not None]
        named = [generation.get("num_beams"), *(one.num_beams for one in configs)]
        self.beams = next(filter(None, named), 1)
        self.most = max(1, rows // self.beams)
        self.batch_tokens = batch_tokens

    @property
    def decoded_by(self) -> str:
        """Which path the last batch took."""
        return getattr(self.model, "decoded_by", None) or "transformers"

    @torch.inference_mode()
    def decode(self, sources: list[list[int]], prompts: list[list[int]] | None = None) -> list[list[Hypothesis]]:
        """The best outputs of each source, in their order."""
        outputs: list[list[Hypothesis]] = [[] for _ in sources]
        for group in by_prompt_length(prompts, len(sources)):
            for batch in batches_of_like_length([len(sources[i]) for i in group], self.most, self.batch_tokens):
                rows = [group[i] for i in batch]
                found = self._decode_batch([sources[i] for i in rows], prompts and [prompts[i] for i in rows])
                for i, hypotheses in zip(rows, found, strict=True):
                    outputs[i] = hypotheses
        return outputs

    def _decode_batch(self, sources: list[list[int]], prompts: list[list[int]] | None) -> list[list[Hypothesis]]:
        device = self.model.device
        given = {
            "input_ids": padded(sources, self.model.config.pad_token_id, device),
            "attention_mask": padded([[1] * len(source) for source in sources], 0, device),
        }
        if prompts is not None and prompts[0]:
            start = self.model.config.decoder_start_token_id
            given["decoder_input_ids"] = torch.tensor([[start, *prompt] for prompt in prompts], device=device)
        asked = {"return_dict_in_generate": True, "output_scores": self.beams > 1}
        found = self.model.generate(**given, **self.generation, **asked)
        scores = found.sequences_scores.tolist() if self.beams > 1 else [None] * len(found.sequences)
        hypotheses = [Hypothesis(row, s, []) for row, s in zip(found.sequences.tolist(), scores, strict=True)]
        each = len(hypotheses) // len(sources)
        return [hypotheses[i : i + each] for i in range(0, len(hypotheses), each)]


class FileDecoder:
    """The fast path over many sentences, in slots that are refilled as sentences finish."""

    decoded_by = "fast"

    def __init__(
        self,
        model: nn.Module,
        config: GenerationConfig,
        bound: Bound,
        *,
        int8: bool,
        workers: int | None,
        rows: int,
        batch_tokens: int,
    ) -> None:
        self.model, self.int8 = model, int8
        self.weights = fused_weights(model, int8=int8)
        self.config = config
        self.bound = bound
        self.positions = model.config.learned_positions
        self.start, self.pad = model.config.decoder_start_token_id, model.config.pad_token_id
        self.beams = config.num_beams
        self.slots = max(1, rows // self.beams)
        self.batch_tokens = batch_tokens
        on_cpu = self.step.device.type == "cpu"
        self.workers = (torch.get_num_threads() if on_cpu else 1) if workers is None else workers

        if on_cpu and self.workers > 1:
            keep_freed_memory()

    @property
    def step(self) -> DecodingStep:
        """What decoding computes with the weights."""
        return self.weights.step

    def decode(self, sources: list[list[int]], prompts: list[list[int]] | None = None) -> list[list[Hypothesis]]:
        """The best outputs of each source, in their order."""
        self.weights = fused_weights(self.model, self.weights, int8=self.int8)  # they may have changed
        outputs: list[list[Hypothesis]] = [[] for _ in sources]
        for group in by_prompt_length(prompts, len(sources)):
            lengths = [len(sources[i]) for i in group]
            like = batches_of_like_length(lengths, self.slots, self.batch_tokens)
            batches = deque([group[i] for i in batch] for batch in like)
            workers = min(self.workers, len(batches))
            if workers <= 1:
                self._work(batches, sources, prompts, outputs)
                continue
            with threads_kept(), ThreadPoolExecutor(workers) as pool:
                jobs = [pool.submit(self._work_alone, batches, sources, prompts, outputs) for _ in range(workers)]
            for job in jobs:
                job.result()
        return outputs

    def _work_alone(self, *job: Any) -> None:
        """A worker's share, on one core: products of this size gain little from a second one."""
        torch.set_num_threads(1)
        self._work(*job)

    @torch.inference_mode()
    def _work(
        self,
        batches: deque[Batch],
        sources: list[list[int]],
        prompts: list[list[int]] | None,
        outputs: list[list[Hypothesis]],
    ) -> None:
        """Takes batches until there are none. Several workers may share them."""
        prompts = prompts or [[]] * len(sources)
        while (batch := take(batches)) is not None:
            prompt = [[self.start, *prompts[i]] for i in batch]
            prompted = len(prompt[0]) > 1
            search = Search(
                self.step, self._ranker, torch.tensor(prompt if prompted else prompt[:1], device=self.step.device)
            )
            supply = self._read(batch, None if prompted else batches, sources, len(prompt[0]))
            for i, hypotheses in search.run(supply, self.config.num_return_sequences):
                outputs[i] = [h._replace(tokens=prompts[i] + h.tokens) for h in hypotheses]

    def _read(
        self, batch: Batch, others: deque[Batch] | None, sources: list[list[int]], begun: int
    ) -> Iterator[Sources]:
        """Encodes a batch and, as they are asked for, those whose sentences can take its places."""
        slots = len(batch)
        while batch is not None:
            yield self._encode(batch, [sources[i] for i in batch], begun)
            # One of more sentences than there are slots has a search of its own.
            batch = None if others is None else take(others, most=slots)

    def _encode(self, batch: Batch, sources: list[list[int]], begun: int) -> Sources:
        ids = padded(sources, self.pad, self.step.device)
        lengths = torch.tensor([len(source) for source in sources], device=self.step.device)
        limits = torch.tensor([self._limit(len(source), begun) for source in sources], device=self.step.device)
        attention_mask = torch.arange(ids.shape[1], device=self.step.device) < lengths.unsqueeze(1)
        mask = additive_mask(attention_mask, self.step.dtype)
        memory = self.step.encode(ids, mask)
        return Sources(batch, self.step.project_source(memory), mask, limits)

    def _limit(self, source_len: int, begun: int) -> int:
        """Tokens that an output may have behind those that it begins with, its start among them."""
        new, whole = self.bound
        if whole is not None and whole <= begun:
            raise ValueError(f"max_length={whole} leaves no room behind a beginning of {begun - 1} tokens: raise it.")
        if whole is not None:
            return whole - begun
        if new is not None:
            return new
        return new_tokens(source_len, self.config.max_tokens_beyond_input, begun, self.positions)

    def _ranker(self, sentences: int, limits: torch.Tensor) -> GreedyRanker | BeamRanker:
        eos = end_tokens(self.config, limits)
        if self.beams == 1:
            return GreedyRanker(sentences, limits, eos, self.step.vocab_size, self.pad)
        ranking = Ranking(self.config.length_penalty, self.config.early_stopping, self.config.ranking)
        return BeamRanker(sentences, limits, eos, self.step.vocab_size, self.beams, ranking)


def by_prompt_length(prompts: list[list[int]] | None, count: int) -> list[Batch]:
    """Groups sentences whose outputs begin with equally many forced tokens, so that these are fed together."""
    if prompts is None:
        return [list(range(count))]
    groups: dict[int, Batch] = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault(len(prompt), []).append(i)
    return list(groups.values())


def take(batches: deque[Batch], most: int | None = None) -> Batch | None:
    """The next batch; None if another worker took the last, or if it has more sentences than that.

    Looked at and taken in one go, so that each worker's batches become no longer: a search has room for its first.
    """
    with _lock:
        if not batches or (most is not None and len(batches[0]) > most):
            return None
        return batches.popleft()


@contextmanager
def threads_kept() -> Iterator[None]:
    """Gives torch its number of threads back when the last call is done whose workers have lowered it.

    It is the whole process's: a thread that is begun meanwhile has as few as a worker, and keeps them.
    """
    with _lock:
        _threads.append(_threads[0] if _threads else torch.get_num_threads())
    try:
        yield
    finally:
        with _lock:
            before = _threads.pop()
            if not _threads:
                torch.set_num_threads(before)
