r"""What the width of the first weights is worth: validation loss after some hundred updates, beside MarianMT.

    python benchmarks/initialisation.py --source train.en --target train.de \
        --validation_source val.en --validation_target val.de

Shape s, dropout 0.3, label smoothing 0.1, updates of 1,024 tokens of like lengths, bfloat16 autocast, Adam at a rate
that rises to 0.001 over the first third of the updates and falls to 0. All see the same batches in the same order.
The loss is in nats a token of the validation lines, without smoothing.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformer2017.modeling.freed_memory import keep_freed_memory

from training import Batch, batches_of, learned_tokenizer, marian, ours, read_pairs

DROPOUT, SMOOTHING, RATE, BATCH_TOKENS = 0.3, 0.1, 1e-3, 1024
Draw = Callable[[nn.Module], None]


def glorot(width: float, embedding: float, narrower_with_depth: bool = False) -> Draw:
    """Matrices of `width` times Glorot's deviation, the embedding of `embedding` times d_model^-0.5."""

    def draw(model: nn.Module) -> None:
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "layers" in name:
                layer = 1 + int(name.split("layers.")[1].split(".")[0])
                nn.init.xavier_uniform_(weight, gain=width * (layer**-0.5 if narrower_with_depth else 1))
            elif weight.dim() == 2:
                nn.init.normal_(weight, std=embedding * weight.size(1) ** -0.5)

    return draw


def normal(model: nn.Module) -> None:
    """All matrices from a normal distribution of deviation 0.02, as BERT and MarianMT in transformers."""
    for weight in model.parameters():
        if weight.dim() == 2:
            nn.init.normal_(weight, std=0.02)


def as_it_is(_: nn.Module) -> None:
    """What the model's own class draws."""


CONTESTANTS: dict[str, tuple[Callable[..., nn.Module], Draw]] = {
    "MarianMT": (marian, as_it_is),
    "transformer2017": (ours, as_it_is),
    "the authors' code": (ours, glorot(1.0, 1.0)),
    "narrower with depth": (ours, glorot(1.0, 1.0, narrower_with_depth=True)),
    "normal, 0.02": (ours, normal),
    "matrices 1, embedding a third": (ours, glorot(1.0, 0.32)),
    "matrices 0.7, embedding a half": (ours, glorot(0.7, 0.48)),
    "matrices a half, embedding a third": (ours, glorot(0.5, 0.32)),
    "matrices a third, embedding 1": (ours, glorot(0.32, 1.0)),
}


def smoothed_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The loss of training; MarianMT's own has no smoothing, and ours has it by default."""
    if hasattr(model.config, "label_smoothing"):
        return model(**batch).loss
    labels = batch["labels"]
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}  # no labels: its own loss is not wanted
    logits = model(**given, decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels)).logits.float()
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=SMOOTHING)


@torch.no_grad()
def validation_loss(model: nn.Module, batches: list[Batch]) -> float:
    """Nats a token."""
    model.eval()
    tokens = [int((batch["labels"] >= 0).sum()) for batch in batches]
    losses = [float(model(**batch).loss) for batch in batches]
    model.train()
    return sum(loss * count for loss, count in zip(losses, tokens, strict=True)) / sum(tokens)


def losses(name: str, batches: Iterator[Batch], validation: list[Batch], updates: int) -> list[float]:
    """The validation loss at the half and at the end of the updates."""
    torch.manual_seed(2017)
    make, draw = CONTESTANTS[name]
    model = make("s", DROPOUT).train()
    draw(model)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), eps=1e-9, weight_decay=0, fused=True)
    measured = []
    for update, batch in enumerate(itertools.islice(batches, updates), start=1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(3 * update / updates, 1.5 * (1 - update / updates) + 1e-3)
        with torch.autocast("cpu", torch.bfloat16):
            loss = smoothed_loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if update in (updates // 2, updates):
            measured.append(validation_loss(model, validation))
    return measured


def main() -> None:
    """Prints a line for each contestant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("source", "target", "validation_source", "validation_target"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME")
    options = parser.parse_args()
    keep_freed_memory()
    tokenizer = learned_tokenizer(options.source, options.target)
    batches = batches_of(read_pairs(options.source, options.target, tokenizer), BATCH_TOKENS)
    held_out = read_pairs(options.validation_source, options.validation_target, tokenizer)
    validation = batches_of(held_out, BATCH_TOKENS)
    for name in options.contestants:
        half, end = losses(name, itertools.cycle(batches), validation, options.updates)
        print(f"{name:36} {half:.3f} {end:.3f}", flush=True)


if __name__ == "__main__":
    main()
