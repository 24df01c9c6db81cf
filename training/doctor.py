"""A run looked at before it begins: a batch as text, lengths, unknown words, an overfit, and what it will take."""

import copy
import math
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformer2017.modeling.freed_memory import keep_freed_memory
from transformer2017.modeling.loss import IGNORED_LABEL
from transformers import set_seed

from . import budget, data
from .batching import lengths_of
from .flags import Flags
from .prepare import Prepared, make_model, prepare, settle_accumulation
from .train import describe, say
from .trainer import Transformer2017Trainer

PAIRS = 100  # to overfit
NEAR = 0.1  # nats above the floor that count as learnt
MOST_UPDATES = 400


def examine(argv: list[str]) -> bool:
    """Prints what it finds.

    Returns:
        Whether the run may be begun: the overfit was reached, with finite gradients.
    """
    keep_freed_memory()
    flags = Flags(argv, verb="doctor")
    with tempfile.TemporaryDirectory() as store:
        prepared = prepare(flags, Path(store))
        arguments = prepared.arguments.training
        arguments.output_dir = store
        set_seed(arguments.seed)
        model = make_model(prepared.arguments, prepared.tokenizer)
        settle_accumulation(prepared.arguments, model)
        say(f"model       {describe(model)}")
        say(f"recipe      {prepared.arguments.describe()}")
        show_data(prepared)
        show_batch(prepared, model)
        fresh = copy.deepcopy(model)
        trainer = Transformer2017Trainer(
            model, arguments, prepared.validation, train_dataset=prepared.tokens, processing_class=prepared.tokenizer
        )
        show_budget(trainer, prepared)
        return overfit(fresh.to(arguments.device), prepared, trainer)


def show_data(prepared: Prepared) -> None:
    """Lengths, what is left out, and unknown words."""
    say(f"data        {prepared.corpus.report}{prepared.left_out}")
    for side, lengths in zip(("source", "target"), lengths_of(prepared.tokens), strict=True):
        quarter, half, most, longest = np.percentile(lengths, [25, 50, 99, 100]).astype(int)
        say(f"{side}      tokens a sentence: quartile {quarter}, median {half}, 99% {most}, longest {longest}")
    unknown, total = 0, 0
    for rows in prepared.tokens.iter(1000):
        for ids in (*rows["input_ids"], *rows["labels"]):
            unknown += ids.count(prepared.tokenizer.unk_token_id)
            total += len(ids)
    say(f"unknown     {100 * unknown / total:.3f}% of {total:,} tokens")


def show_batch(prepared: Prepared, model: Any) -> None:
    """A pair as the model gets it: the decoder's input is the labels, shifted right behind the start token (§3.1)."""
    config, row = model.config, prepared.tokens[0]
    labels = torch.tensor([[*row["labels"], IGNORED_LABEL]])
    shifted = model.prepare_decoder_input_ids_from_labels(labels)[0].tolist()
    rows = {"source": row["input_ids"], "decoder in": shifted, "labels": labels[0].tolist()}
    say("a pair      as the model gets it, with one place of padding on the target side")
    for name, ids in rows.items():
        words = ["(ignored)" if i == IGNORED_LABEL else prepared.tokenizer.convert_ids_to_tokens(i) for i in ids]
        say(f"    {name:<11} {' '.join(words)}\n    {'':<11} {' '.join(map(str, ids))}")
    special = {"start": config.decoder_start_token_id, "pad": config.pad_token_id, "end": config.eos_token_id}
    say("    " + ", ".join(f"{name} {i} {prepared.tokenizer.convert_ids_to_tokens(i)}" for name, i in special.items()))


def smoothing_floor(smoothing: float, vocab_size: int) -> float:
    """The least loss that label smoothing allows (§5.4): the entropy of the smoothed distribution, in nats."""
    other = smoothing / vocab_size
    right = 1 - smoothing + other
    return -right * math.log(right) - ((vocab_size - 1) * other * math.log(other) if other else 0.0)


def overfit(model: Any, prepared: Prepared, trainer: Transformer2017Trainer) -> bool:
    """Learns some pairs by heart, without dropout: a model that cannot has a fault, and more data will not mend it."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    count = min(PAIRS, len(prepared.tokens))
    batch = trainer.data_collator([prepared.tokens[i] for i in range(count)])
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    floor = smoothing_floor(model.config.label_smoothing, model.config.vocab_size)
    rate = min(2e-3, 0.4 / model.config.d_model)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98), eps=1e-9)
    # In float16 small gradients would vanish without the scaling that the run has.
    precision = nullcontext if trainer.args.fp16 else trainer.accelerator.autocast
    loss, model = math.inf, model.train()
    for update in range(1, MOST_UPDATES + 1):
        optimizer.param_groups[0]["lr"] = rate * min(1, update / 40)
        with precision():
            value = model(**batch).loss
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not (torch.isfinite(norm) and torch.isfinite(value)):
            say(f"overfit     FAILED: loss {value.item()}, gradient norm {norm.item()} at update {update}")
            return False
        optimizer.step()
        optimizer.zero_grad()
        loss = value.item()
        if loss < floor + NEAR:
            break
    reached = loss < floor + NEAR
    say(
        f"overfit     {'' if reached else 'FAILED: '}{count} pairs, loss {loss:.3f} after {update} updates; "
        f"label smoothing {model.config.label_smoothing:g} allows no less than {floor:.3f}; gradients finite"
    )
    return reached


def show_budget(trainer: Transformer2017Trainer, prepared: Prepared) -> None:
    """Arithmetic, time and memory, from some updates of the run's own batches."""
    config, args = trainer.model.config, trainer.args
    *_, updates = trainer.set_initial_training_values(args, trainer.get_train_dataloader())
    tokens = [data.total(prepared.tokens, f"{side}_length") for side in ("source", "target")]
    lengths = [total / len(prepared.tokens) for total in tokens]
    sides = budget.tokens_of_update(args.batch_tokens, *lengths)
    flops = budget.flops_of_update(config, *sides, *lengths)
    seconds, memory = budget.seconds_per_update(trainer), budget.peak_bytes(args.device)
    found = budget.Budget(
        trainer.model.num_parameters(), updates, updates * flops, updates * seconds, memory, args.world_size
    )
    for line in found.lines():
        say(line)
