"""Makes docs/tour.md and its pictures: the article's terms, each with its code and what a trained model computes.

python docs/make_tour.py runs/en-de "Two young men play guitar on a stage."
"""

import argparse
from pathlib import Path

from transformer2017.cli.loading import load
from transformer2017.inspection import Explanation, Stop, explain, figures

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
INTRODUCTION = """\
# A guided tour

You have read an introduction to the Transformer: recurrent networks are slow and forget; attention asks queries of
keys and gathers values; heads look in different ways; the decoder is masked; cross-attention joins the two halves; a
softmax gives the next word. Here is each of those in a model of this package: what it is, where it is in the code, and
a picture of what the model computed for one sentence.

This page was made by

```bash
python docs/make_tour.py MODEL "{text}"
```

and the same with your own model, your own sentence and every layer and head is one command away:

```bash
transformer2017 explain MODEL "{text}" --output attention.html
```

The model that drew these pictures has {layers} layers in each stack, d_model {d_model} and {heads} heads; it
translated the sentence as "{translation}". The pictures show layer 1.

Why attention at all? [Recurrence and attention, measured](recurrence.md) puts what introductions say of recurrent
networks to the test, and reports it as it came.
"""


def main() -> None:
    """Writes the page and the pictures beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a model")
    parser.add_argument("sentence")
    arguments = parser.parse_args()
    explanation = explain(*load(arguments.model), arguments.sentence)
    PICTURES.mkdir(exist_ok=True)
    facts = explanation.model_facts
    start = INTRODUCTION.format(
        text=explanation.text,
        translation=explanation.translation,
        layers=facts["encoder_layers"],
        d_model=facts["d_model"],
        heads=facts["num_heads"],
    )
    stops = [describe(number, stop) for number, stop in enumerate(explanation.walk, start=1)]
    (HERE / "tour.md").write_text("\n".join([start, *stops, end(explanation)]), encoding="utf-8")


def describe(number: int, stop: Stop) -> str:
    """One stop: term, what it is, its code, its pictures."""
    lines = [
        f"## {number}. {stop.text.term} ({stop.text.korean}, {stop.text.section})",
        "",
        stop.text.says.replace("<", "&lt;"),
        "",
    ]
    for line in stop.lines:
        lines += [f"In [{line.file}](../{line.file}):", "", "```python", line.code, "```", ""]
    for index, shown in enumerate(stop.exhibits):
        name = f"{stop.text.key}-{index + 1}.png"
        picture(figures.exhibit(shown), name)
        lines += [f"![{shown.name}](pictures/{name})", "", f"Shape: {shown.shape}.", ""]
    return "\n".join(lines)


def end(explanation: Explanation) -> str:
    """All heads of a layer, lines, and the alignment: what the walk, which shows one head, leaves out."""
    last = len(explanation.cross_attention)
    picture(figures.head_grid(explanation, "cross", last), "heads.png")
    picture(figures.attention_lines(explanation, "encoder", last), "lines.png")
    picture(figures.alignment(explanation), "tour-alignment.png")
    picture(figures.next_word(explanation, 2), "next-word.png")
    return "\n".join(
        [
            "## All heads at once",
            "",
            f"Cross-attention of layer {last}: rows are the words that are written, columns the source. "
            "Each head looks in its own way.",
            "",
            "![Heads of cross-attention](pictures/heads.png)",
            "",
            "The encoder's last layer as lines, as in the paper's Figures 3 to 5: from each query (below) to the keys "
            "(above), one colour for each head, darker where the weight is larger:",
            "",
            "![Lines between words](pictures/lines.png)",
            "",
            f"The mean of the heads of cross-attention in layer {max(1, last - 1)} comes nearest to an alignment of "
            "words (circles: the heaviest of each row):",
            "",
            "![Alignment](pictures/tour-alignment.png)",
            "",
            "And at the second step, which other words could have come:",
            "",
            "![Next word](pictures/next-word.png)",
            "",
        ]
    )


def picture(figure: object, name: str) -> None:
    """Saves a picture of the docs, small enough to be kept."""
    figure.savefig(PICTURES / name, dpi=90, bbox_inches="tight")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
