"""The flags of a run: where the data is, how text becomes tokens, and the model's sizes."""

import dataclasses
import re
import shlex
from dataclasses import dataclass, field

from transformer2017.configuration import PRESETS, Transformer2017Config

from .training_arguments import TrainingArguments

# Fields of the configuration that the tokenizer or the model sets, not the user.
NOT_FLAGS = {
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "decoder_start_token_id",
    "is_encoder_decoder",
    "tie_word_embeddings",
    "use_cache",
    "format_version",
}


@dataclass
class DataArguments:
    """Where the pairs come from, and which of them are left out."""

    _argument_group_name = "data"

    train_source: list[str] | None = field(
        default=None, metadata={"help": "Text to learn from, a sentence a line. Several files are several corpora."}
    )
    train_target: list[str] | None = field(
        default=None, metadata={"help": "Its translation, line by line; as many files as --train_source."}
    )
    train_file: list[str] | None = field(
        default=None, metadata={"help": "Or files that hold both sides: .tsv, .csv, .jsonl, .parquet or .tmx."}
    )
    dataset: str | None = field(
        default=None, metadata={"help": "Or a data set of the Hub, or a local folder of one; its splits are below."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Which configuration of the data set."})
    train_split: str = field(default="train", metadata={"help": "Split of --dataset to learn from."})
    validation_split: str | None = field(default=None, metadata={"help": "Split of --dataset to evaluate on."})
    streaming: bool = field(
        default=False, metadata={"help": "Read --dataset as it comes, without the Hub library's copy in its cache."}
    )
    source_column: str | None = field(default=None, metadata={"help": "Column of the source; `source` if absent."})
    target_column: str | None = field(default=None, metadata={"help": "Column of the target; `target` if absent."})
    corpus_weights: list[float] | None = field(
        default=None,
        metadata={"help": "How often an epoch takes the pairs of each training corpus, in their order; 1 if absent."},
    )
    validation_file: str | None = field(
        default=None, metadata={"help": "A file that holds both sides, to evaluate on."}
    )
    validation_source: str | None = field(default=None, metadata={"help": "Text to evaluate on while training."})
    validation_target: str | None = field(default=None, metadata={"help": "Its translation, line by line."})
    source_language: str | None = field(
        default=None,
        metadata={"help": "Language code, such as en; taken from the file's ending (train.en) if absent."},
    )
    target_language: str | None = field(default=None, metadata={"help": "The same for the target."})
    max_length: int = field(
        default=256, metadata={"help": "Leave out pairs with more tokens than this on either side."}
    )
    max_length_ratio: float | None = field(
        default=None,
        metadata={
            "help": "Leave out pairs of which one side is more than this many times as long as the other, in words."
        },
    )
    drop_broken: bool = field(
        default=True, metadata={"help": "Leave out pairs with replacement or control characters."}
    )
    drop_duplicates: bool = field(default=False, metadata={"help": "Leave out pairs that came before."})
    license: str = field(default="unknown", metadata={"help": "Licence to name in the model card, such as cc-by-4.0."})
    dataset_name: str | None = field(default=None, metadata={"help": "Name of the data for the model card."})
    drop_copies: bool = field(default=False, metadata={"help": "Leave out pairs whose target is their source."})


@dataclass
class TokenizerArguments:
    """How text becomes tokens. The size of the vocabulary is the model's `--vocab_size`."""

    _argument_group_name = "tokenizer"

    tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "An existing tokenizer: a folder, a name on the Hub, a tokenizer.json, or a SentencePiece .model."
        },
    )
    tokenizer_type: str = field(
        default="bpe",
        metadata={
            "help": "What to train: bpe, unigram, wordpiece or symbols.",
            "choices": ["bpe", "unigram", "wordpiece", "symbols"],
        },
    )
    add_words: str | None = field(
        default=None, metadata={"help": "With --model: a file of words, one a line, to add to its vocabulary."}
    )
    symbol_pattern: str = field(
        default=r"\S+",
        metadata={"help": "For symbols: what one symbol is, as a regular expression. \\S makes each character one."},
    )


def _config_fields() -> list[tuple]:
    """The configuration's fields as optional flags, each with the sentence that its docstring has for it."""
    sentences = re.findall(
        r"^        (\w+): (.+?)(?=^        \w+: |^    \w)", Transformer2017Config.__doc__, re.M | re.S
    )
    help_of = {name: " ".join(text.split()) for name, text in sentences}
    return [
        (name, kind | None, field(default=None, metadata={"help": help_of.get(name, "").replace("%", "%%")}))
        for name, kind in Transformer2017Config.__annotations__.items()
        if name not in NOT_FLAGS and name in help_of
    ]


def _overrides(self: "ModelArguments") -> dict[str, object]:
    """The fields that the user gave, which differ from the preset's."""
    given = {name: value for name, value in dataclasses.asdict(self).items() if name not in ("preset", "model")}
    return {name: value for name, value in given.items() if value is not None}


ModelArguments = dataclasses.make_dataclass(
    "ModelArguments",
    [
        (
            "preset",
            str,
            field(
                default="base",
                metadata={
                    "help": "Sizes: a row of the paper's Table 3, or small or tiny. Dropout may be a recipe's.",
                    "choices": list(PRESETS),
                },
            ),
        ),
        (
            "model",
            str | None,
            field(
                default=None,
                metadata={"help": "Go on from this trained model, a folder or a name on the Hub, with its tokenizer."},
            ),
        ),
        *_config_fields(),
    ],
    namespace={
        "_argument_group_name": "model",
        "__doc__": "The model's sizes: a preset, and the configuration's sizes and rates to override it.",
        "overrides": _overrides,
    },
)


@dataclass
class RunArguments:
    """All flags of a run, and the names of those that the user gave."""

    data: DataArguments
    tokenizer: TokenizerArguments
    model: ModelArguments
    training: TrainingArguments
    given: dict[str, object]

    def describe(self) -> str:
        """The recipe in a line."""
        t = self.training
        length = f"{t.max_steps:,} updates" if t.max_steps > 0 else f"at most {t.num_train_epochs:g} epochs"
        rate = f"peak rate {t.learning_rate:g}" if t.learning_rate is not None else "the paper's rate"
        part = 0 < t.warmup_steps < 1
        warmup = f"a warm-up of {t.warmup_steps:.3g} of the run" if part else f"{t.warmup_steps:g} updates of warm-up"
        return (
            f"{t.recipe}: updates of {t.batch_tokens:,} tokens a side, "
            f"{rate} after {warmup}, "
            f"{length}, in {t.precision}"
            + (", by Muon and Adam" if t.muon else "")
            + (f", each in {t.gradient_accumulation_steps} parts" if t.gradient_accumulation_steps > 1 else "")
            + (f", BPE-dropout {t.bpe_dropout:g}" if t.bpe_dropout else "")
            + (
                f", stopping after {t.early_stopping_patience} evaluations without a better score"
                if t.early_stopping_patience
                else ""
            )
        )

    def command_line(self) -> list[str]:
        """The flags that the user gave, as words."""
        words = []
        for name, value in self.given.items():
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *(shlex.quote(str(one)) for one in values)]
        return words
