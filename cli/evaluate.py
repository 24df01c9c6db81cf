"""`transformer2017 evaluate`: sacreBLEU's scores of a model's translations, as JSON."""

import argparse
import json
from pathlib import Path

from transformer2017.configuration import UsageError

GENERATION_FLAGS = ("num_beams", "max_new_tokens")


def run(argv: list[str]) -> int:
    """Translates the source with the model and scores the result against the target."""
    parser = argparse.ArgumentParser("transformer2017 evaluate", description=__doc__)
    parser.add_argument("model", help="a model's folder, or its name on the Hub")
    parser.add_argument(
        "--source", required=True, type=Path, help="text to translate, a sentence a line; - is standard input"
    )
    parser.add_argument("--target", required=True, type=Path, help="its translation, line by line")
    parser.add_argument("--target_language", help="language code; taken from the file's ending (test.de) if absent")
    parser.add_argument("--num_beams", type=int, help="beam size; the model's own (4) if absent")
    parser.add_argument(
        "--max_new_tokens", type=int, help="tokens of an output at most; the model's own bound if absent"
    )
    parser.add_argument("--device", help="cpu, cuda, mps; a GPU if there is one")
    flags = parser.parse_args(argv)
    if str(flags.source) == str(flags.target) == "-":
        raise UsageError("--source and --target cannot both be standard input (-)")
    generation = {name: getattr(flags, name) for name in GENERATION_FLAGS if getattr(flags, name) is not None}
    for name, number in generation.items():
        if number < 1:
            raise UsageError(f"--{name} must be at least 1, not {number}")
    from transformer2017.training.evaluation import evaluate_files

    scores = evaluate_files(flags.model, flags.source, flags.target, flags.target_language, flags.device, **generation)
    print(json.dumps(scores, indent=2, ensure_ascii=False))
    return 0
