"""What a run will take: arithmetic, time, memory and cost, from its flags and a rate measured or given (§5.2)."""

import itertools
import math
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from transformer2017.configuration import Transformer2017Config, UsageError
from transformer2017.configuration.parameter_counts import count_parameters
from transformer2017.modeling import Transformer2017ForConditionalGeneration
from transformer2017.modeling.freed_memory import keep_freed_memory
from transformer2017.modeling.loss import IGNORED_LABEL
from transformers import set_seed

from . import fine_tuning
from .arguments import RunArguments
from .encoding import TOKENS
from .flag_parser import Parser, ReadableHelp
from .flags import DESCRIPTIONS, Flags
from .memory import memory_of_run
from .prepare import config_of, settle_accumulation, settle_length
from .tokenization import load_tokenizer
from .trainer import Transformer2017Trainer

# Updates whose time is taken, and those before them, at most. A shape of batch takes longer when it is first met,
# which is seldom in a whole run.
MEASURED, UNMEASURED = 24, 16
BURST = 60.0  # seconds after which no more are begun
MADE_UP = 20_000  # pairs to measure on


@dataclass
class BudgetArguments:
    """The corpus, the machine and its price; all flags of `train` on the model and its training stand beside these."""

    pairs: int | None = field(default=None, metadata={"help": "Pairs of the corpus, for runs by --num_train_epochs."})
    source_length: float = field(default=25.0, metadata={"help": "Mean tokens of a source sentence, its end counted."})
    target_length: float = field(default=25.0, metadata={"help": "The same of a target sentence."})
    tokens_per_second: float | None = field(
        default=None, metadata={"help": "Target tokens that a device trains on in a second; measured here if absent."}
    )
    device_flops: float | None = field(
        default=None, metadata={"help": "Or FLOP/s that a device sustains on this model, such as 5e12."}
    )
    devices: int = field(default=1, metadata={"help": "Devices that share an update."})
    price_per_hour: float | None = field(default=None, metadata={"help": "Of one device, in any currency."})

    def check(self) -> None:
        """Raises a sentence for the user where a number is out of its range."""
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise UsageError(f"--{name} must be more than 0, not {value:g}.")
        if self.tokens_per_second and self.device_flops:
            raise UsageError("Give one of --tokens_per_second and --device_flops, or neither.")


@dataclass(frozen=True)
class Budget:
    """A run in numbers."""

    parameters: int
    updates: int
    flops: float  # of all updates, multiplications and additions counted apart
    seconds: float
    memory: float  # bytes of one device
    devices: int = 1
    price_per_hour: float | None = None

    def lines(self) -> list[str]:
        """For the user."""
        hours = self.seconds / 3600
        each = f"{self.seconds / self.updates:.3g} s an update"
        lines = [
            f"parameters  {self.parameters:,}",
            f"arithmetic  {self.flops:.2e} FLOPs in {self.updates:,} updates",
            f"rate        {self.flops / self.seconds / self.devices / 1e9:,.0f} GFLOP/s a device",
            f"time        {hours:.2f} hours, {each}; evaluations and checkpoints not counted",
            f"memory      {self.memory / 2**30:.1f} GiB a device",
        ]
        if self.price_per_hour:
            cost = hours * self.devices * self.price_per_hour
            lines.append(f"cost        {cost:,.2f} for {hours * self.devices:,.2f} device hours")
        return lines


def plan(argv: list[str]) -> Budget:
    """The budget of the run that the flags describe, without its data.

    Raises:
        UsageError: If a flag is at fault.
    """
    keep_freed_memory()
    parser = Parser(
        [BudgetArguments],
        prog="transformer2017 budget",
        usage="transformer2017 budget --FLAG VALUE ...",
        description=DESCRIPTIONS["budget"],
        formatter_class=ReadableHelp,
        allow_abbrev=False,
    )
    own, rest = parser.parse_args_into_dataclasses(argv, True, look_for_args_file=False)
    own.check()
    with tempfile.TemporaryDirectory() as folder:
        flags = Flags([*rest, "--output_dir", folder], verb="budget", beside=vars(own))
        recipe = flags.recipe_for(own.pairs or sys.maxsize)
        arguments = flags.with_recipe(recipe, with_validation=False)
        return _budget(own, arguments)


def _budget(own: BudgetArguments, arguments: RunArguments) -> Budget:
    training, config = arguments.training, config_of_run(arguments)
    updates = updates_of(own, arguments)
    lengths = (own.source_length, own.target_length)
    sides = tokens_of_update(training.batch_tokens, *lengths)
    flops = flops_of_update(config, *sides, *lengths)
    training.batch_tokens = -(-training.batch_tokens // own.devices)  # of one device
    if training.device_batch_tokens:  # the parts were reckoned as if this process had no others beside it
        training.gradient_accumulation_steps = -(-training.batch_tokens // training.device_batch_tokens)
    training.bpe_dropout = 0.0  # the tokens are made up, and as many as the flags say
    set_seed(training.seed)
    model = Transformer2017ForConditionalGeneration(config)
    if own.tokens_per_second or own.device_flops:
        seconds = sides[1] / own.tokens_per_second if own.tokens_per_second else flops / own.device_flops
        seconds /= own.devices
        memory = memory_of_run(model, training.batch_tokens / training.gradient_accumulation_steps, training.is_half)
    else:
        settle_accumulation(arguments, model)
        seconds = seconds_per_update(Transformer2017Trainer(model, training, train_dataset=_made_up(config, own)))
        memory = peak_bytes(training.device)
    return Budget(
        count_parameters(config), updates, updates * flops, updates * seconds, memory, own.devices, own.price_per_hour
    )


def config_of_run(arguments: RunArguments) -> Transformer2017Config:
    """The model's sizes as training has them: those of --model; or the flags', with the vocabulary of --tokenizer.

    Raises:
        UsageError: If they do not fit together, or there is no such model or tokenizer.
    """
    fine_tuning.refuse_other_sizes(arguments)
    if arguments.model.model is None:
        name = arguments.tokenizer.tokenizer
        return config_of(arguments, **({"vocab_size": len(load_tokenizer(name))} if name else {}))
    tokenizer, config = fine_tuning.tokenizer_of(arguments), fine_tuning.config_to_go_on(arguments)
    if config.model_type != "transformer2017":
        raise UsageError(f"--model {arguments.model.model} is a {config.model_type}, which is not trained here.")
    vars(config).update(fine_tuning.asked_rates(arguments), vocab_size=max(config.vocab_size, len(tokenizer)))
    return config


def updates_of(own: BudgetArguments, arguments: RunArguments) -> int:
    """Those that --max_steps names, or that the epochs make: at least 1, as `Trainer` has it."""
    training = arguments.training
    if training.max_steps > 0:
        return training.max_steps
    if own.pairs is None:
        raise UsageError("A run by epochs needs the size of the corpus: --pairs NUMBER, or --max_steps NUMBER.")
    tokens = own.pairs * max(own.source_length, own.target_length)
    settle_length(arguments, tokens)
    return max(1, math.ceil(training.num_train_epochs * -(-tokens // training.batch_tokens)))


def tokens_of_update(batch_tokens: int, source_length: float, target_length: float) -> tuple[float, float]:
    """Source and target tokens of an update: the longer side fills its budget, the other has its part of it."""
    longest = max(source_length, target_length)
    return batch_tokens * source_length / longest, batch_tokens * target_length / longest


def flops_of_update(
    config: Transformer2017Config,
    source_tokens: float,
    target_tokens: float,
    source_length: float,
    target_length: float,
) -> float:
    """Operations of the matrix products of one update; the backward pass takes twice those of the forward pass."""
    heads, wide = config.num_heads, config.num_heads * (config.d_k + config.d_v)
    kv = config.d_model * wide  # keys and values; as many again for queries and the output
    feed_forward = 2 * config.d_model * config.d_ff
    scores = heads * (config.d_k + config.d_v)  # for each token that is attended to
    encoder = 2 * kv + feed_forward + scores * source_length
    decoder = 3 * kv + feed_forward + scores * (target_length + source_length)
    source = config.encoder_layers * encoder + config.decoder_layers * kv
    target = config.decoder_layers * decoder + config.d_model * config.vocab_size
    return 3 * 2 * (source_tokens * source + target_tokens * target)


def _made_up(config: Transformer2017Config, own: BudgetArguments) -> Dataset:
    """Pairs of tokens drawn at random, whose lengths spread about their means."""
    random = np.random.default_rng(2017)
    means = np.array([own.source_length, own.target_length])
    scale = random.gamma(4, 1 / 4, MADE_UP)  # a pair is long or short on both sides; text spreads about so much
    lengths = [np.clip(random.poisson(scale * mean), 1, 8 * mean).astype(int) for mean in means]
    sides = [[random.integers(4, config.vocab_size, n).tolist() for n in side] for side in lengths]
    columns = dict(zip(TOKENS.names, [*sides, *lengths], strict=True))
    return Dataset(pa.Table.from_pydict(columns, TOKENS))


# Measuring.


def seconds_per_update(trainer: Transformer2017Trainer) -> float:
    """Takes updates as the run will, at a rate of 0, and gives the mean of their seconds."""
    # Only a prepared model multiplies in bfloat16 where the run does.
    model, optimizer = trainer.accelerator.prepare(trainer.model, trainer.create_optimizer())
    batches = _without_end(trainer)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    began = ended = _now(trainer.args.device)
    seconds: list[float] = []
    while len(seconds) < UNMEASURED + MEASURED and (len(seconds) < 3 or ended - began < BURST):
        share = list(itertools.islice(batches, trainer.args.gradient_accumulation_steps))
        tokens = sum((batch["labels"] != IGNORED_LABEL).sum() for batch in share)
        for batch in share:
            trainer.training_step(model, batch, tokens.to(trainer.args.device))
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(_now(trainer.args.device) - ended)
        ended += seconds[-1]
    measured = seconds[min(UNMEASURED, len(seconds) // 3) :]
    return sum(measured) / len(measured)


def _without_end(trainer: Transformer2017Trainer) -> Iterator[dict[str, torch.Tensor]]:
    while True:
        yield from trainer.get_train_dataloader()


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()


def peak_bytes(device: torch.device) -> int:
    """The most memory used so far: of the GPU, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
