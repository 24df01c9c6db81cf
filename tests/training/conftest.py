"""A toy language whose translation a very small model learns: each word has one translation, in the same order."""

import random
from pathlib import Path

import pytest

ENGLISH = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "red",
    "green",
    "blue",
    "dog",
    "cat",
    "bird",
    "house",
    "tree",
    "car",
    "man",
]
GERMAN = [
    "eins",
    "zwei",
    "drei",
    "vier",
    "fünf",
    "sechs",
    "sieben",
    "acht",
    "neun",
    "zehn",
    "rot",
    "grün",
    "blau",
    "Hund",
    "Katze",
    "Vogel",
    "Haus",
    "Baum",
    "Auto",
    "Mann",
]


@pytest.fixture
def corpus(tmp_path) -> dict[str, Path]:
    """Files train.en, train.de, val.en and val.de."""
    return write_corpus(tmp_path)


def write_corpus(folder: Path, pairs: int = 160) -> dict[str, Path]:
    words = random.Random(0)
    files = {}
    for name, count in (("train", pairs), ("val", 12)):
        lines = [[words.randrange(len(ENGLISH)) for _ in range(words.randint(1, 7))] for _ in range(count)]
        for language, vocabulary in (("en", ENGLISH), ("de", GERMAN)):
            file = files[f"{name}.{language}"] = folder / f"{name}.{language}"
            file.write_text("".join(" ".join(vocabulary[i] for i in line) + ".\n" for line in lines), encoding="utf-8")
    return files


@pytest.fixture
def flags(corpus, tmp_path):
    """Makes the words of a command that trains a very small model on the toy corpus."""

    def make(output_dir: str = "run", **more) -> list[str]:
        values = {
            "train_source": corpus["train.en"],
            "train_target": corpus["train.de"],
            "validation_source": corpus["val.en"],
            "validation_target": corpus["val.de"],
            "output_dir": tmp_path / output_dir,
            "preset": "tiny",
            "d_model": 16,
            "d_ff": 16,
            "num_heads": 2,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "vocab_size": 300,
            "batch_tokens": 256,
            "max_steps": 12,
            "eval_strategy": "steps",
            "save_strategy": "steps",
            "eval_steps": 4,
            "save_steps": 4,
            "generation_max_length": 12,
            "logging_steps": 2,
            "sample_outputs": 0,
            "disable_tqdm": "true",
            "use_cpu": "true",
            **more,
        }
        return [word for name, value in values.items() for word in (f"--{name}", str(value))]

    return make
