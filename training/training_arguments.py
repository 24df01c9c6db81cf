"""The flags of how a model is trained, with the paper's defaults (§5)."""

from dataclasses import dataclass, field

from transformers import Seq2SeqTrainingArguments

LESS_IS_BETTER = ("loss", "perplexity", "wer", "per", "cer", "ter")
# What a run without anything to evaluate on cannot ask for.
WITHOUT_EVALUATION: dict[str, object] = {
    "eval_strategy": "no",
    "load_best_model_at_end": False,
    "early_stopping_patience": None,
}


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
        metadata={"help": "Source tokens, and target tokens, of one update over all devices, on the average (§5.1)."},
    )
    device_batch_tokens: int | None = field(
        default=None,
        metadata={
            "help": "How many of them one device takes at once, an eighth more at most; accumulation makes up the "
            "rest. What fits its memory if absent."
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
    max_minutes: float | None = field(
        default=None, metadata={"help": "End after this many minutes of training, from each start."}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after this many evaluations without a better score."}
    )
    eval_sentences: int = field(
        default=2000, metadata={"help": "Translate at most this many validation sentences while training."}
    )
    max_tokens_beyond_input: int | None = field(
        default=None,
        metadata={
            "help": "An output has at most this many tokens more than its source: 50, as in translation (§6.1), if "
            "absent, or what a --model has; 300 in the paper's parsing (§6.3)."
        },
    )
    sample_outputs: int = field(default=3, metadata={"help": "Translations to show at each evaluation."})

    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Delete the run that the folder holds, and start over."}
    )

    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "true: go on although other flags are given than the run began with. It goes on from its last "
            "whole checkpoint in any case."
        },
    )
    learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "The rate at the end of warm-up; d_model^-0.5 * warmup_steps^-0.5 (§5.3) if absent. With --model "
            "and without this, a tenth of it or of the recipe's."
        },
    )
    lr_scheduler_type: str = field(
        default="inverse_sqrt", metadata={"help": "inverse_sqrt is the paper's (§5.3); or another of transformers'."}
    )
    warmup_steps: float = field(
        default=4000,
        metadata={
            "help": "Updates over which the rate rises (§5.3); below 1, a part of the run, with a --learning_rate."
        },
    )
    muon: bool = field(
        default=False,
        metadata={
            "help": "Muon for the matrices of the layers (Jordan et al., 2024), Adam for all else: more is learned of "
            "an update, which takes longer where d_model is large and batch_tokens few."
        },
    )
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
        metadata={"help": "What makes a checkpoint the best: bleu, chrf, loss, perplexity; of symbols wer or per."},
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
    push_to_hub: bool = field(default=False, metadata={"help": "Upload the finished folder to the Hub."})
    gradient_accumulation_steps: int = field(
        default=1, metadata={"help": "Parts into which a device takes its share of an update of --batch_tokens."}
    )
    hub_strategy: str = field(default="end", metadata={"help": "With --push_to_hub: end, when the model is finished."})
    seed: int = field(default=2017, metadata={"help": "Seed of weights, order of data, and dropout."})

    def __post_init__(self) -> None:
        """Raises ValueError where a number is out of its range."""
        for name in ("batch_tokens", "device_batch_tokens", "eval_sentences"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1, not {value}.")
        if (self.max_tokens_beyond_input or 0) < 0:
            raise ValueError(f"--max_tokens_beyond_input must be at least 0, not {self.max_tokens_beyond_input}.")
        for name in ("save_minutes", "max_minutes"):
            if (minutes := getattr(self, name)) is not None and not minutes > 0:
                raise ValueError(f"--{name} must be more than 0, not {minutes:g}.")
        by_steps = self.eval_strategy == self.save_strategy == "steps" and min(self.save_steps, self.eval_steps) >= 1
        if self.load_best_model_at_end and by_steps and self.save_steps % self.eval_steps:
            raise ValueError(
                f"--save_steps {self.save_steps:g} is no multiple of --eval_steps {self.eval_steps:g}, so the best "
                "weights may be in no checkpoint: change one of them, or give --load_best_model_at_end false."
            )
        if (
            self.greater_is_better is None
            and (self.metric_for_best_model or "").removeprefix("eval_") in LESS_IS_BETTER
        ):
            self.greater_is_better = False  # where transformers knows of the loss alone
        super().__post_init__()
        if self.device_batch_tokens and self.gradient_accumulation_steps == 1:
            self.gradient_accumulation_steps = -(-self.batch_tokens // (self.device_batch_tokens * self.world_size))

    @property
    def n_gpu(self) -> int:
        """GPUs of this process: one at most, as `DataParallel` is slower and would split batches that are cut to fit.

        More take a process each, by `accelerate launch` or `torchrun`.
        """
        return min(super().n_gpu, 1)

    @property
    def is_half(self) -> bool:
        """Whether a step multiplies in 16 bits."""
        return self.bf16 or self.fp16

    @property
    def precision(self) -> str:
        """What a step computes in."""
        half = "bfloat16" if self.bf16 else "float16" if self.fp16 else None
        return f"{half} over float32 weights" if half else "float32"
