"""The verb explain, as a user runs it."""

from pathlib import Path

import pytest
import torch
import transformer2017
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformer2017.cli import main
from transformers import PreTrainedTokenizerFast


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A model over whole words with random weights."""
    words = ["<pad>", "<s>", "</s>", "<unk>", "two", "dogs", "run", "zwei", "Hunde"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    path = tmp_path_factory.mktemp("model")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(path)
    torch.manual_seed(5)
    sizes = {"d_model": 16, "d_ff": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    config = transformer2017.Transformer2017Config(vocab_size=len(words), **sizes)
    model = transformer2017.Transformer2017ForConditionalGeneration(config)
    model.generation_config.max_new_tokens = 3
    model.save_pretrained(path)
    return str(path)


def test_it_writes_a_page_and_figures(folder, tmp_path, capsys):
    page, figures = tmp_path / "page.html", tmp_path / "figures"
    assert (
        main(["explain", folder, "two dogs", "--output", str(page), "--figures", str(figures), "--format", "svg"]) == 0
    )
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    names = {path.name for path in figures.iterdir()}
    for kind in ("encoder", "decoder", "cross"):
        assert {f"{kind}-layer1-head2.svg", f"{kind}-layer1-lines.svg", f"{kind}-layer1-heads.svg"} <= names
    assert {"alignment.svg", "next-word-step1.svg"} <= names
    assert str(page) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere", "two dogs"], "there is no model folder 'nowhere'"),
        (["MODEL", " "], "no sentence"),
        (["MODEL", "two", "--layer", "7"], "no layer 7"),
        (["MODEL", "two", "--layer", "0"], "layers 1 to 1, and no layer 0"),
        (["MODEL", "two", "--num_beams", "1", "--length_penalty", "0.5"], "--length_penalty ranks beams"),
        (["MODEL", "two", "--output", "/nowhere/at/all.html"], "there is no folder"),
    ],
)
def test_faults_are_told_in_a_sentence_and_exit_with_2(folder, words, told, capsys):
    assert main(["explain", *(folder if word == "MODEL" else word for word in words)]) == 2
    assert told in capsys.readouterr().err


def test_a_failed_page_leaves_no_file(folder, tmp_path):
    assert main(["explain", folder, " ", "--output", str(tmp_path / "page.html")]) == 2
    assert list(Path(tmp_path).iterdir()) == []
