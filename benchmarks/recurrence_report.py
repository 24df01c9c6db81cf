"""The page and the picture of `recurrence.py`."""

import platform
from datetime import datetime, timezone
from pathlib import Path

import torch
from matplotlib.figure import Figure

BANDS = ((1, 9), (10, 12), (13, 16), (17, 99))  # words of the source


def draw(results: dict, path: Path) -> None:
    """The four pictures as one."""
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    (fast, good), (gradient, loss) = figure.subplots(2, 2)
    for kind, colour, mark in (("transformer", "#1f5fbf", "o"), ("recurrent", "#c2570c", "s")):
        style = {"color": colour, "marker": mark, "label": kind}
        fast.plot(list(results["speed"]), [row[kind] for row in results["speed"].values()], **style)
        bands = [f"{low}-{high}" for low, high in BANDS]
        good.plot(bands, [results["quality"][kind].get(band, 0) for band in bands], **style)
        depths = list(results["depth"])
        gradient.plot(depths, [results["depth"][d][kind]["first_gradient"] for d in depths], **style)
        loss.plot(depths, [results["depth"][d][kind]["loss"] for d in depths], **style)
    fast.set(xscale="log", title="Training speed", xlabel="tokens in a sentence", ylabel="target tokens per second")
    good.set(title="Quality", xlabel="words in the source", ylabel="BLEU")
    gradient.set(yscale="log", title="Gradient at the encoder's first layer, first update", xlabel="layers")
    loss.set(title="Loss at the end of training", xlabel="layers", ylabel="nats per token, smoothed")
    fast.legend(frameon=False)
    for panel in (fast, good, gradient, loss):
        panel.spines[["top", "right"]].set_visible(False)
    fast.set_ylim(bottom=0)
    figure.savefig(path, dpi=160)


def report(results: dict, picture: str, command: str) -> str:
    """The results as a page of the docs."""
    kinds = ("transformer", "recurrent")
    sizes = ", ".join(f"{kind} {results['parameters'][kind]:,}" for kind in kinds)
    lines = [
        "# Recurrence and attention, measured",
        "",
        f"Made by `{command}` on {datetime.now(timezone.utc):%Y-%m-%d}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads of a {platform.machine()} processor. Multi30k, English to German. "
        f"Parameters: {sizes}.",
        "",
        f"![Speed and quality against length; gradient and loss against depth]({picture})",
        "",
        "## Training speed against sentence length",
        "",
        "Target tokens per second, forward and backward, the same number of tokens in each batch; medians of 5.",
        "",
        "| tokens in a sentence | transformer | recurrent | ratio |",
        "| --- | --- | --- | --- |",
        *(
            f"| {n} | {row['transformer']:,.0f} | {row['recurrent']:,.0f} | "
            f"{row['transformer'] / row['recurrent']:.2f} |"
            for n, row in results["speed"].items()
        ),
        "",
        "## Quality against sentence length",
        "",
        "BLEU by greedy search after the same updates; bands of words in the source.",
        "",
        "| | " + " | ".join(["all", *(f"{low}-{high}" for low, high in BANDS)]) + " | loss | seconds | rate |",
        "| --- |" + " --- |" * (len(BANDS) + 4),
    ]
    for kind in kinds:
        own = results["quality"][kind]
        bleu = [f"{own.get(band, float('nan')):.1f}" for band in ["all", *(f"{a}-{b}" for a, b in BANDS)]]
        lines.append(f"| {kind} | {' | '.join(bleu)} | {own['loss']:.3f} | {own['seconds']:.0f} | {own['rate']:g} |")
    lines += ["", "## Gradient and loss against depth", ""]
    lines += [
        "| layers | gradient: transformer | recurrent | loss: transformer | recurrent |",
        "| --- |" + " --- |" * 4,
    ]
    for layers, found in results["depth"].items():
        numbers = [f"{found[kind][what]:.3g}" for what in ("first_gradient", "loss") for kind in kinds]
        lines.append(f"| {layers} | {' | '.join(numbers)} |")
    return "\n".join([*lines, "", "## What came out as told, and what did not", "", *verdicts(results), ""])


def verdicts(results: dict) -> list[str]:
    """Says of each claim whether these figures bear it out."""
    speeds = {n: row["transformer"] / row["recurrent"] for n, row in results["speed"].items()}
    shortest, longest = min(speeds), max(speeds)
    depths = sorted(results["depth"])
    found = []
    slower = speeds[longest] > 1
    found.append(
        f"- Recurrence is slower on long sentences: {'yes' if slower else 'no'}. The Transformer runs at "
        f"{speeds[shortest]:.2f} times the recurrent model's speed at {shortest} tokens and {speeds[longest]:.2f} "
        f"times at {longest}."
    )
    gaps = [
        results["quality"]["transformer"].get(f"{a}-{b}", 0) - results["quality"]["recurrent"].get(f"{a}-{b}", 0)
        for a, b in (BANDS[0], BANDS[-1])
    ]
    found.append(
        f"- Recurrence forgets in long sentences: {'yes' if gaps[1] > max(0, gaps[0]) else 'not shown here'}. The "
        f"Transformer's lead in BLEU is {gaps[0]:+.1f} on the shortest sentences and {gaps[1]:+.1f} on the longest."
    )
    for what, name in (("first_gradient", "The gradient at the first layer"), ("loss", "The loss")):
        ends = {
            kind: [results["depth"][d][kind][what] for d in (depths[0], depths[-1])] for kind in results["parameters"]
        }
        said = "; ".join(f"{kind} from {a:.3g} to {b:.3g}" for kind, (a, b) in ends.items())
        found.append(f"- {name}, from {depths[0]} to {depths[-1]} layers: {said}.")
    return found
