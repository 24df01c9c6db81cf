"""What a run shows while it trains: a bar, the scores, sample translations, and curves at the end."""

import numbers
import sys
import time
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerState


class ProgressBar(TrainerCallback):
    """A bar with loss, rate and time left, on a terminal; each evaluation leaves a line, everywhere."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Opens the bar, at the update that the run resumes from."""
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="train",
                unit="update",
                dynamic_ncols=True,
                mininterval=0.5,
                disable=not sys.stderr.isatty(),
            )

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Moves on by one update."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Shows loss and rate on the bar, or in a line of their own where there is none."""
        if self.bar is None or not logs or "loss" not in logs:
            return
        said = f"loss {logs['loss']:.3f}" + (f", rate {logs['learning_rate']:.2g}" if "learning_rate" in logs else "")
        if self.bar.disable:
            self.bar.write(f"update {state.global_step:,} of {state.max_steps:,}: {said}")
        else:
            self.bar.set_postfix_str(said, refresh=False)

    def on_evaluate(
        self, args: Any, state: TrainerState, control: Any, metrics: dict[str, float], **kwargs: Any
    ) -> None:
        """Leaves a line with the scores."""
        if self.bar is not None:
            scores = ", ".join(
                f"{name.removeprefix('eval_')} {value:.2f}"
                for name, value in metrics.items()
                if name.startswith("eval_") and isinstance(value, numbers.Number)
            )
            self.bar.write(f"update {state.global_step:,} (epoch {state.epoch or 0:.1f}): validation {scores}")

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Closes the bar."""
        if self.bar is not None:
            self.bar.close()


class SampleTranslations(TrainerCallback):
    """Shows what the model makes of the first validation sentences."""

    def __init__(self, trainer: Any, count: int) -> None:
        self.trainer = trainer
        self.count = count

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Prints source, reference and translation."""
        if not (state.is_world_process_zero and self.trainer.last_translations):
            return
        validation = self.trainer.validation.part(args.eval_sentences)
        rows = zip(validation.sources, validation.references, self.trainer.last_translations, strict=True)
        for source, references, translation in list(rows)[: self.count]:
            tqdm.write(f"    source      {source}\n    reference   {references[0]}\n    translation {translation}")


class TokensPerSecond(TrainerCallback):
    """Adds the rate of real target tokens to the logs, measured between two logs without evaluations and saving."""

    def __init__(self) -> None:
        self.tokens = 0
        self.seconds = 0.0
        self.began = 0.0

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Stops the clock."""
        self.seconds += time.perf_counter() - self.began

    def count(self, tokens: int) -> None:
        """Adds the target tokens of an update."""
        self.tokens += tokens

    def take(self) -> float:
        """The rate since it was last taken."""
        rate = self.tokens / self.seconds if self.seconds else 0.0
        self.tokens, self.seconds = 0, 0.0
        return rate


CURVES = {
    "loss": "training loss",
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_second": "target tokens per second",
    "eval_loss": "validation loss",
}


def draw_curves(log_history: list[dict[str, Any]], score: str, file: Path) -> None:
    """Draws the run's curves over its updates.

    Args:
        log_history: As in the trainer's state.
        score: The validation score to draw, such as bleu.
        file: The picture to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = {**CURVES, f"eval_{score}": f"validation {score}"}
    figure = Figure(figsize=(12, 6), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(2, 3).flat, names.items(), strict=False):
        points = [(entry["step"], entry[key]) for entry in log_history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), linewidth=1.2, marker="." if len(points) < 60 else None)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("update", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))  # or numbers of five digits run together
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
