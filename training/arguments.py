"""The flags of a run: where the data is, how text becomes tokens, the model's sizes, and how it is trained."""

import dataclasses
import re
import shlex
from dataclasses import dataclass, field

from transformer2017.configuration import PRESETS, Transformer2017Config
from transformers import Seq2SeqTrainingArguments

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
        default=False, metadata={"help": "Read --dataset as it comes, without keeping a copy of it."}
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
                metadata={"help": "Sizes: a row of the paper's Table 3, or small or tiny.", "choices": list(PRESETS)},
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
        "__doc__": "The model's sizes: a preset, and every field of the configuration to override it.",
        "overrides": _overrides,
    },
)


@dataclass
class TrainingArguments(Seq2SeqTrainingArguments):
    """`Seq2SeqTrainingArguments` with the paper's defaults (§5), and what it has no field for."""

    _argument_group_name = "training (every field of Seq2SeqTrainingArguments)"

    recipe: str | None = field(
        default=None,
        metadata={
            "help": "Defaults for all that is not given: paper-base, paper-big or small-data; by corpus if absent.",
            "choices": ["paper-base", "paper-big", "small-data"],
        },
    )
    batch_tokens: int = field(
        default=25000,
        metadata={"help": "Source tokens, and target tokens, of one update over all devices, at most (§5.1)."},
    )
    device_batch_tokens: int | None = field(
        default=None,
        metadata={
            "help": "The most of them that one device takes at once; accumulation makes up the rest. What fits its "
            "memory if absent."
        },
    )
    bpe_dropout: float = field(
        default=0.0,
        metadata={
            "help": "Pass over merges of subwords at this rate while training (Provilkov et al., 2020), so that words "
            "fall into other subwords in each epoch."
        },
    )
    average_checkpoints: int = field(
        default=5,
        metadata={"help": "Average the weights of the last this many checkpoints at the end (§6.1); 0: do not."},
    )
    save_minutes: float | None = field(
        default=None,
        metadata={
            "help": "Write a checkpoint every so many minutes, as the paper every 10 (§6.1), instead of every "
            "save_steps; the last ones are averaged."
        },
    )
    max_minutes: float | None = field(default=None, metadata={"help": "End after this many minutes of training."})
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after this many evaluations without a better score."}
    )
    eval_sentences: int = field(
        default=2000, metadata={"help": "Translate at most this many validation sentences while training."}
    )
    sample_outputs: int = field(default=3, metadata={"help": "Translations to show at each evaluation."})

    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Delete the run that the folder holds, and start over."}
    )

    learning_rate: float | None = field(
        default=None,
        metadata={"help": "The rate at the end of warm-up; d_model^-0.5 * warmup_steps^-0.5 (§5.3) if absent."},
    )
    lr_scheduler_type: str = field(
        default="inverse_sqrt", metadata={"help": "inverse_sqrt is the paper's (§5.3); or another of transformers'."}
    )
    warmup_steps: float = field(default=4000, metadata={"help": "Updates over which the rate rises (§5.3)."})
    adam_beta2: float = field(default=0.98, metadata={"help": "Adam's beta2 (§5.3)."})
    adam_epsilon: float = field(default=1e-9, metadata={"help": "Adam's epsilon (§5.3)."})
    max_grad_norm: float = field(
        default=0.0, metadata={"help": "Clip gradients to this norm; 0: do not, as the paper."}
    )
    max_steps: int = field(
        default=100_000, metadata={"help": "Updates (§5.2); -1: as many as num_train_epochs makes."}
    )
    eval_strategy: str = field(default="steps", metadata={"help": "When to evaluate: no, steps or epoch."})
    eval_steps: float = field(
        default=1000, metadata={"help": "Updates between evaluations; below 1, a part of the run."}
    )
    save_strategy: str = field(
        default="steps", metadata={"help": "When to save a checkpoint: no, steps, epoch or best."}
    )
    save_steps: float = field(
        default=1000, metadata={"help": "Updates between checkpoints; below 1, a part of the run."}
    )
    save_total_limit: int | None = field(default=6, metadata={"help": "Checkpoints to keep; the best one always is."})
    metric_for_best_model: str = field(
        default="bleu",
        metadata={"help": "What makes a checkpoint the best: bleu, chrf, loss; of symbols wer (if absent) or per."},
    )
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "End with the best checkpoint, not the last."}
    )
    generation_num_beams: int | None = field(default=1, metadata={"help": "Beam size of evaluations while training."})
    logging_steps: float = field(default=50, metadata={"help": "Updates between the points of the curves."})
    predict_with_generate: bool = field(
        default=True, metadata={"help": "Translate the validation set at each evaluation."}
    )
    # None stands first because HfArgumentParser needs it there.
    report_to: None | str | list[str] = field(  # noqa: RUF036
        default="none", metadata={"help": "tensorboard, trackio, wandb, ... or none."}
    )
    bf16: bool = field(
        default=False,
        metadata={
            "help": "Multiply in bfloat16 (autocast; weights stay float32). By itself where the hardware does; "
            "false: all in float32."
        },
    )
    ddp_find_unused_parameters: bool = field(
        default=False, metadata={"help": "Not needed: every weight has a gradient in every update."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Not needed: batches hold only what the model takes."}
    )
    hub_strategy: str = field(default="end", metadata={"help": "With --push_to_hub: end, when the model is finished."})
    seed: int = field(default=2017, metadata={"help": "Seed of weights, order of data, and dropout."})

    @property
    def precision(self) -> str:
        """What a step computes in."""
        half = "bfloat16" if self.bf16 else "float16" if self.fp16 else None
        return f"{half} over float32 weights" if half else "float32"


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
        rate = f"peak rate {t.learning_rate:g}" if t.learning_rate else "the paper's rate"
        return (
            f"{t.recipe}: updates of {t.batch_tokens:,} tokens a side, "
            f"{rate} after {t.warmup_steps:g} updates of warm-up, "
            f"{length}, in {t.precision}"
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
