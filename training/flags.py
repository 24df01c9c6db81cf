"""The words of a command line, read in two steps: the data decides which recipe fills in what was not given."""

import dataclasses
import multiprocessing
import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from accelerate import PartialState
from transformer2017.configuration import UsageError, in_a_line

from .arguments import DataArguments, ModelArguments, RunArguments, TokenizerArguments
from .device import bfloat16_is_quick, has_accelerator
from .flag_parser import Parser, ReadableHelp
from .recipes import RECIPES, SMALL_DATA_PAIRS
from .training_arguments import WITHOUT_EVALUATION, TrainingArguments

DESCRIPTIONS = {  # of the verbs that take all the flags of a run
    "train": "Trains a model on aligned text, from scratch or from --model, evaluating it on the way.",
    "doctor": "Looks at the data, flags and model of a run before it begins. The flags are those of `train`.",
    "budget": "Says what a run will take, by its flags: those below, and those of `transformer2017 train`.",
}
# Flags of which one would not be heard beside the other.
RIVALS = (
    ("device_batch_tokens", "gradient_accumulation_steps"),
    ("muon", "optim"),
    ("label_smoothing", "label_smoothing_factor"),
    ("validation_file", "validation_source"),
    ("validation_file", "validation_split"),
    ("validation_source", "validation_split"),
    *(("tokenizer", of_a_new_one) for of_a_new_one in ("tokenizer_type", "vocab_size", "symbol_pattern")),
)
OF_A_DATASET = ("train_split", "validation_split", "dataset_config", "streaming")
UNREAD = (
    "per_device_train_batch_size", "train_sampling_strategy", "dataloader_drop_last", "auto_find_batch_size",
    "sortish_sampler",
)  # fmt: skip


class Flags:
    """What the user gave, and what follows from it.

    Args:
        argv: The words; the first may be a YAML or JSON file of flags.
        verb: Of the command, for its help.
        beside: Names of flags that the command has read before, which one here may have been meant for.

    Raises:
        UsageError: If a flag is unknown or its value is of the wrong kind.
    """

    def __init__(self, argv: list[str], verb: str = "train", beside: Iterable[str] = ()) -> None:
        self.argv = list(argv)
        self.parser = Parser(
            [DataArguments, TokenizerArguments, ModelArguments, TrainingArguments],
            prog=f"transformer2017 {verb}",
            usage=f"transformer2017 {verb} [FLAGS.yaml|FLAGS.json] --FLAG VALUE ...",
            description=DESCRIPTIONS[verb],
            formatter_class=ReadableHelp,
            allow_abbrev=False,
        )
        self.parser.beside = list(beside)
        self.not_words: dict[str, object] = {}  # values of a file of flags that no word says
        if self.argv and not self.argv[0].startswith("-"):
            words, self.not_words = self.parser.read_file(Path(self.argv.pop(0)))
            self.argv = words + self.argv  # so that the command line's go before
        self.given = {*self.not_words, *self.parser.fields_of(self.argv)}
        self.parser.set_defaults(**self.not_words)
        self.namespace = self.parser.parse_args(self.argv)

    def data(self) -> DataArguments:
        """Where the data is."""
        names = {one.name for one in dataclasses.fields(DataArguments)}
        return DataArguments(**{name: value for name, value in vars(self.namespace).items() if name in names})

    def output_dir(self) -> Path:
        """Where the run's files go."""
        if not self.namespace.output_dir:
            raise UsageError("Say where the model goes: --output_dir FOLDER.")
        return Path(self.namespace.output_dir)

    @property
    def use_cpu(self) -> bool:
        """Whether the run stays on the processor: where asked, and where there is nothing else."""
        return self.namespace.use_cpu or not has_accelerator()

    def processes(self) -> PartialState:
        """The processes of the run, which wait for one another for as long as --ddp_timeout says."""
        return PartialState(cpu=self.use_cpu, timeout=timedelta(seconds=self.namespace.ddp_timeout))

    def as_given(self) -> dict[str, object]:
        """The flags that the user gave, with their values, but for the secret one: they end up in the model card."""
        return {
            name: value for name, value in vars(self.namespace).items() if name in self.given and name != "hub_token"
        }

    def recipe_for(self, pairs: int) -> str:
        """The recipe asked for, or the one that suits a corpus of that size."""
        return self.namespace.recipe or ("small-data" if pairs < SMALL_DATA_PAIRS else "paper-base")

    def with_recipe(self, recipe: str, with_validation: bool) -> RunArguments:
        """All flags, those not given filled in by the recipe."""
        self.parser.set_defaults(**{**RECIPES[recipe], **self.not_words, "recipe": recipe})
        self.parser.set_defaults(**self._implied(with_validation))
        try:
            *parts, _ = self.parser.parse_args_into_dataclasses(self.argv, True, look_for_args_file=False)
        except (ValueError, TypeError) as error:
            raise UsageError(in_a_line(error, most=400)) from error
        self._refuse_unheard(evaluates=with_validation and parts[-1].eval_strategy != "no")
        self._refuse_impossible()
        arguments = RunArguments(*parts, given=self.as_given())
        if arguments.training.label_smoothing_factor:  # the model's own smoothing acts in its loss
            arguments.model.label_smoothing = arguments.training.label_smoothing_factor
            arguments.training.label_smoothing_factor = 0.0
        if not arguments.training.is_half:
            arguments.training.mixed_precision = "no"  # also where accelerate's file has another: the flag goes before
        return arguments

    def _refuse_unheard(self, evaluates: bool) -> None:
        """Raises where a flag that was given would not be heard, for what others say or leave out."""
        values = vars(self.namespace)
        heard = {name for name in self.given if values[name] is not None and values[name] is not False}
        for one, other in RIVALS:
            if {one, other} <= heard:
                raise UsageError(f"--{one} and --{other} are both given, and only one would be heard: give one.")
        for name in UNREAD:
            if name in heard:
                raise UsageError(
                    f"--{name} is not read: batches are made by --batch_tokens, of sentences of like length."
                )
        for name in OF_A_DATASET:
            if name in heard and not self.namespace.dataset:
                raise UsageError(f"--{name} is of a --dataset: give that too, or leave it out.")
        if "symbol_pattern" in heard and self.namespace.tokenizer_type != "symbols":
            raise UsageError("--symbol_pattern is for --tokenizer_type symbols: give that too, or leave it out.")
        if "vocab_size" in heard and self.namespace.tokenizer_type == "symbols":
            raise UsageError("--tokenizer_type symbols has as many as the text has: leave out --vocab_size.")
        if "early_stopping_patience" in heard and not evaluates:
            raise UsageError("--early_stopping_patience needs a validation set, and another --eval_strategy than no.")

    def _refuse_impossible(self) -> None:
        """Raises where a value cannot be, by itself or beside another."""
        if self.namespace.resume_from_checkpoint not in (None, "", "true", "True", "false", "False"):
            raise UsageError(
                "--resume_from_checkpoint is true or false: a run goes on from its own last whole checkpoint; "
                "--model FOLDER begins from other weights."
            )
        if self.namespace.hub_revision:
            raise UsageError("--hub_revision is not read: the folder becomes the repository's main branch.")
        if self.namespace.save_only_model:
            raise UsageError("--save_only_model: a run could not go on from such checkpoints. Leave it out.")
        count, limit = self.namespace.average_checkpoints, self.namespace.save_total_limit
        if {"average_checkpoints", "save_total_limit"} <= self.given and limit and count > limit:
            raise UsageError(f"--average_checkpoints {count} needs --save_total_limit {count} or more, not {limit}.")

    def _precision(self) -> dict[str, object]:
        """That which accelerate's own file or flags ask for, or what the hardware is quick in."""
        asked = os.environ.get("ACCELERATE_MIXED_PRECISION")
        if asked in {"bf16", "fp16"}:
            return {asked: True}
        return {"bf16": bfloat16_is_quick(self.use_cpu)}

    def _implied(self, with_validation: bool) -> dict[str, object]:
        """What follows from the flags that were given."""
        given, namespace = self.given, self.namespace
        implied: dict[str, object] = {"use_cpu": self.use_cpu}
        if not given & {"bf16", "fp16"}:
            implied |= self._precision()
        forks = multiprocessing.get_all_start_methods()[0] == "fork"  # otherwise a worker takes long to start
        if forks and not self.use_cpu and "dataloader_num_workers" not in given:
            implied["dataloader_num_workers"] = 2  # which make batches while the accelerator works
        if "num_train_epochs" in given and "max_steps" not in given:
            implied["max_steps"] = -1
        if "average_checkpoints" in given and "save_total_limit" not in given:
            most = int(self.parser.get_default("save_total_limit"))
            implied["save_total_limit"] = max(most, namespace.average_checkpoints + 1)
        if "save_total_limit" in given and "average_checkpoints" not in given and namespace.save_total_limit:
            most = int(self.parser.get_default("average_checkpoints"))
            implied["average_checkpoints"] = min(most, namespace.save_total_limit)
        when, how_often = ("eval_strategy", "save_strategy"), ("eval_steps", "save_steps")
        for one, other in (when, when[::-1], how_often, how_often[::-1]):  # the best one is a saved one
            if one in given and other not in given and getattr(namespace, one) not in ("no", "best"):
                implied[other] = getattr(namespace, one)
        if any(name in given and getattr(namespace, name) == "no" for name in when):
            implied["load_best_model_at_end"] = False
        if namespace.save_minutes:  # the best checkpoint would need an evaluation at each
            implied |= {"save_strategy": "no", "load_best_model_at_end": False}
        if not with_validation:
            implied |= WITHOUT_EVALUATION
        return implied
