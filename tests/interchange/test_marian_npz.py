"""Marian's own format out. The oracle is CTranslate2's converter of Marian models, and CTranslate2 that runs it."""

import numpy as np
import pytest
import transformer2017
import yaml
from tokenizers import Tokenizer, models
from transformer2017.configuration import UsageError
from transformer2017.interchange.marian_npz import export_marian_npz
from transformers import PreTrainedTokenizerFast

pytest.importorskip("ctranslate2")
from ctranslate2.converters.marian import load_vocab


@pytest.mark.parametrize("fields", [{}, {"activation_function": "silu", "logits_bias": True}])
def test_ctranslate2_reads_it_and_translates_alike(words, shaken, fields, tmp_path):
    """Though Marian starts from a zero vector and has a table of positions, translations are ours."""
    config = transformer2017.Transformer2017Config(
        vocab_size=len(words), d_model=32, d_ff=48, num_heads=4, encoder_layers=3, decoder_layers=2, **fields
    )
    model = shaken(transformer2017.Transformer2017ForConditionalGeneration(config))
    if config.logits_bias:
        model.lm_head.bias.data.normal_()
    report = export_marian_npz(model, words, tmp_path)
    assert report.largest_difference < 1e-4
    assert report.different_translations == 0
    vocabulary = yaml.safe_load((tmp_path / "vocab.yml").read_text(encoding="utf-8"))
    assert (vocabulary["</s>"], vocabulary["<unk>"], len(vocabulary)) == (0, 1, len(words))
    assert yaml.safe_load((tmp_path / "decoder.yml").read_text())["models"] == ["model.npz"]
    with np.load(tmp_path / "model.npz", allow_pickle=False) as stored:  # no pickle in it
        assert stored["encoder_l3_self_Wq"].shape == (32, 32)
        assert stored["decoder_l2_ffn_W1"].shape == (32, 48)
        assert stored["decoder_l2_context_Wo_ln_scale"].shape == (1, 32)


PIECES = [
    *[
        "\t",
        " ",
        " a",
        "a ",
        '"',
        "'",
        "''",
        "'a'",
        '"a"',
        ":",
        "a: 1",
        "#",
        " #",
        "\\",
        "\\x41",
        "\\t",
        "t",
        "~",
        "yes",
        "no",
    ],
    *[
        "null",
        "? a",
        "- a",
        "&a",
        "*a",
        "!a",
        "%",
        "@",
        "`",
        "[",
        "{",
        "|",
        ">",
        "1",
        "1.5",
        "<0x0A>",
        "é",
        "ß",
        "日本",
        "▁",
        "▁t",
    ],
    *["\u00a0", "\u3000", "🙂"],
]
CONTROLS = ["\n", "\r", "\x00", "\x1b"]  # each a whole piece: a vocabulary made of text can have these


def _tokenizer(pieces: list[str]) -> PreTrainedTokenizerFast:
    """Of these pieces as whole words; only its vocabulary is used."""
    names = ["<pad>", "<s>", "</s>", "<unk>", *pieces]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture
def tiny(shaken):
    def make(tokenizer: PreTrainedTokenizerFast) -> transformer2017.Transformer2017ForConditionalGeneration:
        config = transformer2017.Transformer2017Config(
            vocab_size=len(tokenizer), d_model=32, d_ff=48, num_heads=4, encoder_layers=1, decoder_layers=1
        )
        return shaken(transformer2017.Transformer2017ForConditionalGeneration(config))

    return make


def test_pieces_that_yaml_could_mistake_keep_their_ids(tiny, tmp_path):
    """A vocabulary of text has quotes, tabs, colons and the like; CTranslate2's own parser takes "\\t" for a t."""
    tokenizer = _tokenizer([*PIECES, *CONTROLS])
    sources = [[token, 2] for token in range(3, len(tokenizer))]
    report = export_marian_npz(tiny(tokenizer), tokenizer, tmp_path, sources)
    assert report.largest_difference < 1e-4
    assert not any("misreads" in line for line in report.lines)
    expected = ["</s>", "<unk>", "<pad>", "<s>", *PIECES, *CONTROLS]
    assert load_vocab(str(tmp_path / "vocab.yml")) == expected
    assert list(yaml.safe_load((tmp_path / "vocab.yml").read_text(encoding="utf-8")).items()) == [
        (name, index) for index, name in enumerate(expected)
    ]


def test_what_ctranslate2_misreads_is_said_and_right_in_yaml(tiny, tmp_path):
    tokenizer = _tokenizer(["t", "a\nt", 'b"\\\n', "ant"])
    report = export_marian_npz(tiny(tokenizer), tokenizer, tmp_path, [[4, 5, 6, 7, 2]])
    assert report.largest_difference < 1e-4
    assert any("in them: 2, which CTranslate2's converter misreads" in line for line in report.lines)
    stored = yaml.safe_load((tmp_path / "vocab.yml").read_text(encoding="utf-8"))
    assert list(stored)[4:] == ["t", "a\nt", 'b"\\\n', "ant"]


def test_another_token_by_the_name_of_the_end_is_refused(words, tiny, tmp_path):
    words.eos_token = "w0"
    model = tiny(words)
    model.config.eos_token_id = words.eos_token_id
    with pytest.raises(UsageError, match="has </s> as another token"):
        export_marian_npz(model, words, tmp_path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"d_k": 4}, "rows B"),
        ({"learned_positions": 20}, "one table of positions"),
        ({"activation_function": "gelu"}, "another function"),
    ],
)
def test_what_marian_cannot_hold_is_refused(words, fields, reason, tmp_path):
    config = transformer2017.Transformer2017Config(
        vocab_size=len(words), d_model=32, d_ff=48, num_heads=4, encoder_layers=1, decoder_layers=1, **fields
    )
    with pytest.raises(UsageError, match=reason):
        export_marian_npz(transformer2017.Transformer2017ForConditionalGeneration(config), words, tmp_path)
