"""`translate`: a line out for each line in, in order, whatever the lines are."""

import io
import shutil
import subprocess
import sys

import pytest
import torch
import transformer2017
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformer2017 import cli
from transformers import PreTrainedTokenizerFast

WORDS = [f"w{i}" for i in range(93)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model with random weights and a tokenizer of whole words."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    path = tmp_path_factory.mktemp("model")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(path)
    torch.manual_seed(7)
    config = transformer2017.Transformer2017Config(
        vocab_size=97, d_model=32, d_ff=64, num_heads=4, encoder_layers=2, decoder_layers=2
    )
    model = transformer2017.Transformer2017ForConditionalGeneration(config)
    model.generation_config.max_new_tokens = 12
    model.save_pretrained(path)
    return path


def translate(capsys, monkeypatch, words, stdin=""):
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    code = cli.main(["translate", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


LINES = ["w1 w2 w3", "", "w4", "w5 w6 w7 w8 w9 w10 w11", "   ", "w12 w13"]


def test_a_line_out_for_each_line_in_and_empty_for_empty(folder, capsys, monkeypatch):
    code, out, _ = translate(capsys, monkeypatch, [folder], "\n".join(LINES) + "\n")
    outputs = out.split("\n")
    assert code == 0
    assert outputs.pop() == ""
    assert len(outputs) == len(LINES)
    assert [bool(line) for line in outputs] == [bool(line.strip()) for line in LINES]


@pytest.mark.parametrize("beams", [1, 3])
def test_order_and_batching_do_not_change_a_translation(folder, capsys, monkeypatch, beams):
    alone = [translate(capsys, monkeypatch, [folder, "--num_beams", beams], line + "\n")[1] for line in LINES]
    together = translate(
        capsys, monkeypatch, [folder, "--num_beams", beams, "--window", 4, "--batch_tokens", 10], "\n".join(LINES)
    )[1]
    assert together == "".join(alone)


def test_files_and_standard_input_are_read_in_the_order_given(folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "a.txt").write_text("w1 w2\nw3\n", encoding="utf-8")
    mixed = translate(capsys, monkeypatch, [folder, tmp_path / "a.txt", "-"], "w4 w5\n")[1]
    assert mixed == translate(capsys, monkeypatch, [folder], "w1 w2\nw3\nw4 w5\n")[1]


@pytest.mark.parametrize("missing", ["folder", "config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_part_of_a_model_is_named_in_one_sentence(folder, tmp_path, capsys, monkeypatch, missing):
    target = tmp_path / "model"
    if missing != "folder":
        shutil.copytree(folder, target)
        (target / missing).unlink()
    code, out, err = translate(capsys, monkeypatch, [target], "w1\n")
    assert code == 2
    assert out == ""
    assert str(target) in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


def test_a_missing_input_file_is_named(folder, capsys, monkeypatch):
    code, _, err = translate(capsys, monkeypatch, [folder, "no-such-file.txt"])
    assert code == 2
    assert "no-such-file.txt" in err


def test_the_command_itself_translates(folder):
    done = subprocess.run(
        [sys.executable, "-m", "transformer2017", "translate", folder],
        input="w1 w2\n\nw3\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
