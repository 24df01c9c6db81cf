"""Whatever text comes, `translate` gives a line for each line, and `train` counts what it leaves out."""

import io
import json
import resource
import sys
from pathlib import Path

import pytest
import torch
import transformer2017
from transformer2017 import cli
from transformer2017.modeling.documents import in_parts
from transformer2017.modeling.translation import Translator
from transformer2017.training.arguments import DataArguments, TokenizerArguments
from transformer2017.training.cleaning import Cleaner
from transformer2017.training.data import read_pairs
from transformer2017.training.saving import save_model
from transformer2017.training.tokenization import load_tokenizer, train_tokenizer

NAUGHTY = json.loads((Path(__file__).parents[1] / "data" / "naughty_strings.json").read_text())
EVERY = [text for texts in NAUGHTY.values() for text in texts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with random weights, and byte-pair encoding that spells unknown characters in bytes."""
    torch.manual_seed(7)
    lines = ["Two dogs run on the grass.", "Zwei Hunde rennen über das Gras."] * 3
    tokenizer = train_tokenizer(iter(lines), TokenizerArguments(), 330, exact=False)
    config = transformer2017.Transformer2017Config.from_preset(
        "tiny", vocab_size=len(tokenizer), d_model=16, d_ff=16, num_heads=2, encoder_layers=1, decoder_layers=1
    )
    model = transformer2017.Transformer2017ForConditionalGeneration(config)
    model.generation_config.max_new_tokens = 6
    path = tmp_path_factory.mktemp("any") / "model"
    save_model(model, tokenizer, path)
    return path


def translate(capsys, monkeypatch, folder, content: bytes, *more):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))
    code = cli.main(["translate", str(folder), *more])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out, captured.err


def test_every_naughty_string_gives_one_line(folder, capsys, monkeypatch):
    """Among them line separators of Unicode, carriage returns, NUL, and the names of special tokens."""
    content = "".join(text + "\n" for text in EVERY).encode("utf-8", "surrogatepass")
    out, err = translate(capsys, monkeypatch, folder, content)
    assert out.count("\n") == len(EVERY)
    assert "\r" not in out
    for text, line in zip(EVERY, out.split("\n"), strict=False):
        assert not line or text.strip()
    assert f"{len(NAUGHTY['lone surrogates'])} lines are not UTF-8" in err


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"\xef\xbb\xbfTwo dogs.\nA man.\n", 2),
        (b"Two dogs.\r\nA man.\nOne\rline\r\n", 3),
        ("Zwei Stühle\nüber\n".encode("latin-1"), 2),
        ("Two dogs.\nA man.\n".encode("utf-16"), 3),  # the last is half a character
        (b"no end", 1),
        (b"\n\n\n", 3),
        (b"\xff\xfe\xfd\n\x80\n", 2),
        (b"", 0),
    ],
    ids=["BOM", "mixed ends", "Latin-1", "UTF-16", "no end", "empty lines", "no text", "nothing"],
)
def test_any_bytes_give_as_many_lines(folder, capsys, monkeypatch, content, lines):
    out, err = translate(capsys, monkeypatch, folder, content)
    assert out.count("\n") == max(lines, content.count(b"\n"))
    faulty = [i for i, line in enumerate(content.split(b"\n"), 1) if line.decode("utf-8", "replace").encode() != line]
    assert (f"{len(faulty)} lines are not UTF-8 (the first is line {faulty[0]})" in err) if faulty else not err


def test_the_mark_of_byte_order_and_the_ends_change_nothing(folder, capsys, monkeypatch):
    plain = translate(capsys, monkeypatch, folder, b"Two dogs.\nA man.\n")[0]
    assert translate(capsys, monkeypatch, folder, b"\xef\xbb\xbfTwo dogs.\r\nA man.")[0] == plain


@pytest.mark.parametrize(
    "line", ["Two dogs run. " * 7200, "run " * 25_000, "x" * 100_000], ids=["sentences", "words", "one"]
)
def test_a_line_of_100_000_characters(folder, capsys, monkeypatch, line):
    """In parts, told on standard error, between two lines that come out as they do alone; memory stays in bounds."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out, err = translate(capsys, monkeypatch, folder, f"A man.\n{line}\nTwo dogs.\n".encode(), "--num_beams", "1")
    alone = translate(capsys, monkeypatch, folder, b"A man.\nTwo dogs.\n", "--num_beams", "1")[0].split("\n")
    lines = out.split("\n")
    assert [lines[0], lines[2]] == alone[:2]
    assert lines[1]
    assert "line 2 is longer than the 512 tokens that the model takes at once: it was translated in" in err
    unit = 1 if sys.platform == "darwin" else 1024
    # Attention of 100,000 tokens to one another would take 80 GB a head and layer.
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 2**30


def test_parts_are_the_text_and_fit():
    """Cut between sentences first, then between words, then anywhere; joined, they are the text."""
    for text in ("One two. Three four. Five.", "one two three four", "onetwothree", ""):
        for most in (30, 12, 5, 1):
            parts = in_parts(text, lambda part, most=most: len(part) <= most)
            assert "".join(parts) == text
            assert all(len(part) <= most for part in parts)
    assert in_parts("One two. Three four.", lambda part: len(part) <= 12) == ["One two. ", "Three four."]


def test_a_line_in_parts_is_its_parts_joined(folder):
    model = transformer2017.Transformer2017ForConditionalGeneration.from_pretrained(folder).eval()
    translator = Translator(model, load_tokenizer(str(folder)), num_beams=2, longest=12)
    [whole] = translator.translate(["Two dogs run. A man. Two men."])
    assert whole.parts > 1
    parts = in_parts("Two dogs run. A man. Two men.", lambda part: len(translator.tokenizer(part)["input_ids"]) <= 12)
    assert whole.text == " ".join(one.text for one in translator.translate(parts))


def test_training_counts_and_names_what_it_leaves_out(tmp_path):
    """Each naughty string is kept, or left out for a reason that the report counts."""
    texts = [text for text in EVERY if "\n" not in text and text not in NAUGHTY["lone surrogates"]]
    for name in ("en", "de"):
        (tmp_path / name).write_bytes("".join(text + "\n" for text in texts).encode())
    cleaner = Cleaner(DataArguments())
    kept = list(cleaner.clean(read_pairs(tmp_path / "en", tmp_path / "de")))
    assert len(kept) + cleaner.removed.total() == len(texts)
    assert set(cleaner.removed) == {"an empty side", "broken characters"}
    assert all(source.strip() for source, _ in kept)
    report = cleaner.report()
    for reason, count in cleaner.removed.items():
        assert f"{reason}: {count}" in report
