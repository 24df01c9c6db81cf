"""The page and the picture of `recurrence.py`."""

from pathlib import Path

from matplotlib.figure import Figure

BANDS = ((1, 9), (10, 12), (13, 16), (17, 99))  # words of the source
KINDS = ("transformer", "recurrent")
LOOKS = {"transformer": ("#1f5fbf", "o"), "recurrent": ("#c2570c", "s")}


def draw(results: dict, path: Path) -> None:
    """The four pictures as one."""
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    (fast, good), (gradient, loss) = figure.subplots(2, 2)
    lengths, depths = list(results["speed"]), list(results["depth"])
    bands = [f"{low}-{high}" for low, high in BANDS]
    for kind in KINDS:
        colour, mark = LOOKS[kind]
        style = {"color": colour, "marker": mark, "label": kind}
        fast.plot(lengths, [row[kind] for row in results["speed"].values()], **style)
        good.plot(bands, [results["quality"][kind].get(band, float("nan")) for band in bands], **style)
        gradient.plot(depths, [results["depth"][d][kind]["first_gradient"] for d in depths], **style)
        loss.plot(depths, [results["depth"][d][kind]["loss"] for d in depths], **style)
    fast.set(xscale="log", title="Training speed", xlabel="tokens in a sentence", ylabel="target tokens per second")
    fast.set_xticks(lengths, [str(n) for n in lengths], minor=False)
    fast.minorticks_off()
    good.set(title="Quality", xlabel="words in the source", ylabel="BLEU")
    gradient.set(yscale="log", title="Gradient at the encoder's first layer", xlabel="layers", ylabel="norm")
    loss.set(title="Loss at the end of training", xlabel="layers", ylabel="nats per token, smoothed")
    for panel in (gradient, loss):
        panel.set_xticks(depths)
    for panel in (fast, good):
        panel.set_ylim(bottom=0)
    fast.legend(frameon=False)
    for panel in (fast, good, gradient, loss):
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=160)


def report(results: dict, picture: str) -> str:
    """The results as a page of the docs."""
    return "\n".join(
        [
            "# Recurrence and attention, measured",
            "",
            *_opening(results),
            "",
            f"![Speed and quality against length; gradient and loss against depth]({picture})",
            "",
            "## What came out as told, and what did not",
            "",
            *verdicts(results),
            "",
            *_speed(results),
            "",
            *_quality(results),
            "",
            *_depth(results),
            "",
        ]
    )


def _opening(results: dict) -> list[str]:
    run, options = results["run"], results["run"]["options"]
    sizes = " and ".join(f"{results['parameters'][kind]:,} ({kind})" for kind in KINDS)
    return [
        "Introductions to the Transformer say that recurrent networks train slowly, forget what is far back, and lose "
        "their gradient. Here both were trained, on the same sentences in the same order (Multi30k, English to "
        "German), with the same vocabulary, optimiser, label smoothing and number of updates, and "
        f"{sizes} parameters. The recurrent model is torch's own LSTM: a bidirectional encoder, a decoder, and "
        'attention between them (Luong et al., 2015, "general").',
        "",
        "```text",
        run["command"],
        "```",
        "",
        f"Made so on {run['day']} in {run['minutes']:.0f} minutes: torch {run['torch']}, {run['threads']} thread on "
        f"a machine of {run['cores']} cores ({run['processor']}; load average {run['load']:.1f} at the end). Other "
        "work falls on both alike where speeds are compared: the two models take turns, update by update. No GPU. "
        f"{options['layers']} layers a stack, d_model {options['d_model']}, {options['vocab_size']:,} subwords, one "
        "seed: differences of a BLEU point are noise.",
    ]


def _speed(results: dict) -> list[str]:
    run = results["run"]
    return [
        "## Training speed against sentence length",
        "",
        "Target tokens per second of a whole update (forward, backward, Adam) on sentences of one length, about 1,024 "
        "tokens a batch at every length: medians of 7, and the median of the 7 ratios."
        + (
            " On so busy a machine a single row may still be off: read the trend."
            if run["load"] > run["cores"]
            else ""
        ),
        "",
        "| tokens in a sentence | transformer | recurrent | ratio |",
        "| --- | --- | --- | --- |",
        *(
            f"| {n} | {row['transformer']:,.0f} | {row['recurrent']:,.0f} | {row['ratio']:.2f} |"
            for n, row in results["speed"].items()
        ),
    ]


def _quality(results: dict) -> list[str]:
    options, bands = results["run"]["options"], [f"{low}-{high}" for low, high in BANDS]
    lines = [
        "## Quality against sentence length",
        "",
        f"BLEU (sacreBLEU, 13a) of greedy search on test_2016_flickr after {options['updates']:,} updates of "
        f"{options['batch_tokens']:,} target tokens, all and by words of the source. Each model has the best of the "
        f"rates {', '.join(f'{rate:g}' for rate in options['rates'])}, by training loss in trials of "
        f"{options['trial_updates']} updates. Loss: of the last tenth of the updates. Seconds: of the processor.",
        "",
        "| | all | " + " | ".join(bands) + " | loss | seconds | rate |",
        "| --- |" + " --- |" * (len(BANDS) + 4),
        f"| sentences | {sum(results['sentences'].values()):,} | "
        + " | ".join(f"{results['sentences'].get(band, 0):,}" for band in bands)
        + " | | | |",
    ]
    for kind in KINDS:
        own = results["quality"][kind]
        bleu = [f"{own.get(band, float('nan')):.1f}" for band in ["all", *bands]]
        lines.append(f"| {kind} | {' | '.join(bleu)} | {own['loss']:.3f} | {own['seconds']:.0f} | {own['rate']:g} |")
    return lines


def _depth(results: dict) -> list[str]:
    options = results["run"]["options"]
    lines = [
        "## Gradient and loss against depth",
        "",
        f"d_model {options['depth_d_model']}, no dropout, rate 0.001 for both, {options['depth_updates']} updates of "
        f"{options['batch_tokens'] // 2:,} target tokens; parameters are matched at each depth. Gradient: the norm "
        "over all weights of the encoder's first layer, at the first update (the picture) and the median of all "
        "updates. Loss: the mean of the last tenth of the updates. The LSTM layers have no residual connections; the "
        "Transformer's normalise after the sum, and their weights begin half as wide as Glorot's, as in every "
        "model of this package.",
        "",
        "| layers | first gradient: transformer | recurrent | median gradient: transformer | recurrent "
        "| loss: transformer | recurrent |",
        "| --- |" + " --- |" * 6,
    ]
    for layers, found in results["depth"].items():
        measures = ("first_gradient", "usual_gradient", "loss")
        numbers = [f"{found[kind][what]:.3g}" for what in measures for kind in KINDS]
        lines.append(f"| {layers} | {' | '.join(numbers)} |")
    return lines


def verdicts(results: dict) -> list[str]:
    """Says of each claim whether these figures bear it out."""
    ratios = {n: row["ratio"] for n, row in results["speed"].items()}
    lengths, depths = sorted(ratios), sorted(results["depth"])
    quality, shallow, deep = results["quality"], results["depth"][depths[0]], results["depth"][depths[-1]]
    first, last = (
        quality["transformer"].get(f"{a}-{b}", 0) - quality["recurrent"].get(f"{a}-{b}", 0)
        for a, b in (BANDS[0], BANDS[-1])
    )
    kept = {kind: deep[kind]["first_gradient"] / shallow[kind]["first_gradient"] for kind in KINDS}
    best = {kind: min(depths, key=lambda d, kind=kind: results["depth"][d][kind]["loss"]) for kind in KINDS}
    gain = {kind: shallow[kind]["loss"] - deep[kind]["loss"] for kind in KINDS}
    return [
        f"- Recurrence trains more slowly: {_word(ratios[lengths[-1]] > 1)}. The Transformer runs at "
        f"{ratios[lengths[0]]:.2f} times the recurrent model's speed at {lengths[0]} tokens a sentence, and "
        f"{ratios[lengths[-1]]:.2f} times at {lengths[-1]}; the same updates on the corpus took the recurrent model "
        f"{quality['recurrent']['seconds'] / quality['transformer']['seconds']:.2f} times the processor time."
        " One thread has nothing to run side by side, which is where "
        "the Transformer's advantage is said to lie; and its attention grows with the square of the length. The ratio "
        "is the machine's, too: docs/README.md has that of another one.",
        f"- Recurrence forgets in long sentences: {_word(last - first > 1 and last > 1)}. The Transformer's lead in "
        f"BLEU is {first:+.1f} on the shortest sentences and {last:+.1f} on the longest. The recurrent model attends "
        "too, and these sentences are short.",
        f"- Recurrence loses its gradient with depth: {_word(kept['recurrent'] < 0.1 * kept['transformer'])}. From "
        f"{depths[0]} to {depths[-1]} layers the gradient at the first layer is multiplied by "
        f"{kept['transformer']:.2g} in the Transformer and by {kept['recurrent']:.2g} in the recurrent model. "
        "This tells of residual connections as much as of recurrence: the Transformer's layers have them, these LSTM "
        "layers do not. The loss over time steps, which introductions mean, was not measured.",
        f"- A deeper stack learns more: in the Transformer {_word(gain['transformer'] > 0)}, in an LSTM without "
        f"residual connections {_word(gain['recurrent'] > 0)}. From "
        f"{depths[0]} to {depths[-1]} layers, after the same few updates, the loss changes by "
        f"{-gain['transformer']:+.2f} in the Transformer and by {-gain['recurrent']:+.2f} in the "
        "recurrent model; it is lowest "
        f"at {best['transformer']} layers in the Transformer and at {best['recurrent']} in the recurrent model.",
    ]


def _word(true: bool) -> str:
    return "yes" if true else "not shown here"
