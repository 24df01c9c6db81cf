"""The whole path on a toy language: files in, a model folder out, and what is refused."""

import itertools
import json

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformer2017.cli import main
from transformer2017.training import clock
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig


@pytest.fixture
def run(flags, tmp_path):
    assert main(["train", *flags()]) == 0
    return tmp_path / "run"


def test_the_folder_is_a_model_with_its_card(run, corpus, capsys, tmp_path, monkeypatch):
    """It loads, has the paper's way of decoding, a card that the Hub can read, and can be scored and averaged."""
    model = AutoModelForSeq2SeqLM.from_pretrained(run)
    assert AutoTokenizer.from_pretrained(run)("one two")["input_ids"][-1] == model.config.eos_token_id
    for folder in (run, run / "checkpoint-12"):  # `Trainer` turns it off: a loop of one's own would have no cache
        assert AutoConfig.from_pretrained(folder).use_cache
    generation = GenerationConfig.from_pretrained(run)
    assert (generation.num_beams, generation.length_penalty, generation.max_tokens_beyond_input) == (4, 0.6, 50)
    card = ModelCard.load(run / "README.md")
    assert card.data.language == ["en", "de"]
    assert card.data.pipeline_tag == "translation"
    assert {(one.metric_type, one.dataset_type) for one in card.data.eval_results} == {
        ("bleu", "validation-set"),
        ("chrf", "validation-set"),
    }
    (row,) = (line for line in card.text.splitlines() if line.startswith("| BLEU"))
    assert r"nrefs:1\|case:mixed" in row
    assert row.replace(r"\|", "").count("|") == 4  # the signature stays in its cell
    assert "{{" not in card.text
    assert (run / "curves.png").stat().st_size > 10_000
    assert (run / "modeling_transformer2017.py").is_file()
    assert (run / "checkpoint-12" / "modeling_transformer2017.py").is_file()

    capsys.readouterr()
    files = ["--source", str(corpus["val.en"]), "--target", str(corpus["val.de"])]
    assert main(["evaluate", str(run), *files]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["sentences"] == 12
    assert "version:" in scores["bleu_signature"]
    with corpus["val.en"].open() as text:
        monkeypatch.setattr("sys.stdin", text)
        assert main(["evaluate", str(run), "--source", "-", "--target", str(corpus["val.de"])]) == 0
    assert json.loads(capsys.readouterr().out) == {**scores, "source": "-"}
    assert main(["evaluate", str(run), "--source", "-", "--target", "-"]) == 2
    assert "cannot both be standard input" in capsys.readouterr().err

    averaged = tmp_path / "averaged"
    assert main(["average", str(run), "--last", "3", "--output_dir", str(averaged)]) == 0
    checkpoints = [load_file(run / f"checkpoint-{step}" / "model.safetensors") for step in (4, 8, 12)]
    for name, weight in load_file(averaged / "model.safetensors").items():
        torch.testing.assert_close(weight, torch.stack([one[name] for one in checkpoints]).mean(0))

    # The same command again has nothing to do; another is told where the folder stands.
    left = []
    monkeypatch.setattr("transformer2017.training.train.leave_other_processes", lambda: left.append("group"))
    assert main(["train", *run_flags(run)]) == 0
    assert "is finished" in capsys.readouterr().out
    assert left == ["group"]
    assert main(["train", *run_flags(run), "--dropout", "0.2"]) == 2
    assert "holds a run with other flags (--dropout)" in capsys.readouterr().err


@pytest.mark.parametrize(("kept", "chosen"), [(0, False), (3, True)], ids=["the last update", "an average"])
def test_the_card_says_that_weights_were_chosen_where_they_were(flags, tmp_path, kept, chosen):
    """By the scores that it shows; those of the last update alone are no choice."""
    assert main(["train", *flags(load_best_model_at_end="false", average_checkpoints=kept)]) == 0
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert ("by which the weights\nwere chosen" in card) is chosen
    assert "validation set" in card


def run_flags(run):
    given = json.loads((run / "_run" / "flags.json").read_text())["flags"]
    words = []
    for name, value in given.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def test_a_start_that_failed_on_its_data_does_not_block_the_folder(flags, tmp_path, capsys):
    """Nothing was learnt, so the corrected command may have the folder."""
    folder, missing = tmp_path / "run", tmp_path / "missing.de"
    wrong = [*flags(folder), "--train_target", str(missing)]
    assert main(["train", *wrong]) == 2
    assert str(missing) in capsys.readouterr().err
    assert main(["train", *flags(folder), "--max_steps", "1"]) == 0


def test_a_foreign_folder_is_left_alone(flags, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    assert main(["train", *flags(overwrite_output_dir="false")]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"vocab_size": 9000}, "--vocab_size 9000 is more than this text supports"),
        ({"train_source": "nowhere.en"}, "nowhere.en cannot be read"),
        ({"batch_tokenz": 5}, "There is no flag --batch_tokenz. Did you mean --batch_tokens?"),
        ({"d_model": 17, "num_heads": 1}, "sine and cosine come in pairs"),
        ({"max_steps": "many"}, "--max_steps"),
        ({"hub_revision": "v2"}, "the folder becomes the repository's main branch"),
        ({"save_only_model": "true"}, "a run could not go on from such checkpoints"),
        ({"preset": "huge"}, "invalid choice: 'huge'"),
        ({"validation_target": "nowhere.de"}, "nowhere.de cannot be read"),
    ],
)
def test_a_users_mistake_is_one_sentence(flags, capsys, change, sentence):
    """Exit code 2, and no traceback."""
    assert main(["train", *flags(**change)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_checkpoints_by_the_clock(flags, tmp_path, monkeypatch, capsys):
    """As the paper's (§6.1): every so many minutes, whatever the updates; the last ones are averaged."""
    minute = itertools.count(0, 60)  # each look at the clock, once an update, is a minute after the one before
    monkeypatch.setattr(clock.time, "monotonic", lambda: next(minute))
    by_the_clock = {"save_minutes": 3, "max_minutes": 8, "save_strategy": "no"}
    assert main(["train", *flags(**by_the_clock, average_checkpoints=2, max_steps=99)]) == 0
    saved = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "run").glob("checkpoint-*"))
    assert saved == [3, 6, 8]
    shown = capsys.readouterr().out
    assert "update 8 of 99: ends here, by --max_minutes 8" in shown
    assert "last update: BLEU" in shown
    assert "average of the last 2 checkpoints: BLEU" in shown


def test_tensorboard_gets_the_curves(flags, tmp_path, monkeypatch):
    """By the usual `report_to`, and with them what this package adds: tokens a second, BLEU and chrF."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    assert main(["train", *flags(report_to="tensorboard")]) == 0
    board = accumulator.EventAccumulator(str(tmp_path / "board")).Reload()
    steps = {name: [event.step for event in board.Scalars(name)] for name in board.Tags()["scalars"]}
    for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second"):
        assert steps[f"train/{name}"] == [2, 4, 6, 8, 10, 12], name
    for name in ("loss", "perplexity", "bleu", "chrf"):
        assert steps[f"eval/{name}"] == [4, 8, 12], name
