"""What a configuration accepts, refuses and keeps, and the rows of Table 3."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformer2017 import PRESETS, Transformer2017Config, Transformer2017ForConditionalGeneration
from transformer2017.configuration.parameter_counts import PAPER_MILLIONS, count_parameters, table
from transformers import AutoConfig

# Table 3: N, d_model, d_ff, h, d_k, d_v, dropout, label smoothing.
BASE = (6, 512, 2048, 8, 64, 64, 0.1, 0.1)
TABLE_3 = {
    "base": BASE,
    "A1": (6, 512, 2048, 1, 512, 512, 0.1, 0.1),
    "A2": (6, 512, 2048, 4, 128, 128, 0.1, 0.1),
    "A3": (6, 512, 2048, 16, 32, 32, 0.1, 0.1),
    "A4": (6, 512, 2048, 32, 16, 16, 0.1, 0.1),
    "B1": (6, 512, 2048, 8, 16, 64, 0.1, 0.1),
    "B2": (6, 512, 2048, 8, 32, 64, 0.1, 0.1),
    "C1": (2, 512, 2048, 8, 64, 64, 0.1, 0.1),
    "C2": (4, 512, 2048, 8, 64, 64, 0.1, 0.1),
    "C3": (8, 512, 2048, 8, 64, 64, 0.1, 0.1),
    "C4": (6, 256, 2048, 8, 32, 32, 0.1, 0.1),
    "C5": (6, 1024, 2048, 8, 128, 128, 0.1, 0.1),
    "C6": (6, 512, 1024, 8, 64, 64, 0.1, 0.1),
    "C7": (6, 512, 4096, 8, 64, 64, 0.1, 0.1),
    "D1": (6, 512, 2048, 8, 64, 64, 0.0, 0.1),
    "D2": (6, 512, 2048, 8, 64, 64, 0.2, 0.1),
    "D3": (6, 512, 2048, 8, 64, 64, 0.1, 0.0),
    "D4": (6, 512, 2048, 8, 64, 64, 0.1, 0.2),
    "E": BASE,
    "big": (6, 1024, 4096, 16, 64, 64, 0.3, 0.1),
}


@pytest.mark.parametrize("row", TABLE_3)
def test_presets_are_the_rows_of_table_3(row):
    config = Transformer2017Config.from_preset(row)
    sizes = (config.encoder_layers, config.d_model, config.d_ff, config.num_heads, config.d_k, config.d_v)
    assert (*sizes, config.dropout, config.label_smoothing) == TABLE_3[row]
    assert config.decoder_layers == config.encoder_layers
    assert config.vocab_size == 37000
    assert (config.learned_positions is not None) == (row == "E")


@pytest.mark.parametrize("row", PRESETS)
@pytest.mark.parametrize("bias", [False, True])
def test_parameters_are_those_of_the_formula(row, bias):
    config = Transformer2017Config.from_preset(row, logits_bias=bias)
    with torch.device("meta"):
        model = Transformer2017ForConditionalGeneration(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(config)


@pytest.mark.parametrize("row", PAPER_MILLIONS)
def test_parameters_are_near_the_papers(row):
    """C1 is the row that 37,000 words leave more than 5% below; 41,000 give every figure but that of `big`."""
    papers = PAPER_MILLIONS[row] * 1e6
    assert count_parameters(Transformer2017Config.from_preset(row)) == pytest.approx(
        papers, rel=0.066 if row == "C1" else 0.05
    )
    rounded = round(count_parameters(Transformer2017Config.from_preset(row, vocab_size=41000)) / 1e6)
    assert (rounded == PAPER_MILLIONS[row]) == (row != "big")


def test_the_table_in_the_docs_is_what_the_command_prints():
    printed = subprocess.run(
        [sys.executable, "-m", "transformer2017.configuration.parameter_counts"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.strip() == table()
    assert table() in (Path(__file__).parents[2] / "docs" / "variants.md").read_text(encoding="utf-8")


def test_presets_take_other_fields_and_refuse_unknown_names():
    config = Transformer2017Config.from_preset("B1", vocab_size=99, decoder_layers=2)
    assert (config.vocab_size, config.decoder_layers, config.encoder_layers, config.d_k) == (99, 2, 6, 16)
    with pytest.raises(ValueError, match="no preset 'huge'; choose one of base"):
        Transformer2017Config.from_preset("huge")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"d_model": 0}, "d_model must be a whole number of at least 1, not 0"),
        ({"num_heads": 0}, "num_heads must be"),
        ({"encoder_layers": 0}, "encoder_layers must be"),
        ({"num_heads": "8"}, "num_heads must be a whole number of at least 1, not '8'"),
        ({"d_model": "512"}, "d_model must be"),
        ({"d_model": 100, "num_heads": 7}, "d_model 100 is no multiple of num_heads 7: .* give d_k and d_v"),
        ({"d_model": 4, "num_heads": 8, "d_v": 1}, "d_model 4 is no multiple of num_heads 8"),
        ({"d_model": 100, "num_heads": 8, "d_k": 16}, "no multiple of num_heads 8: .* give d_k and d_v"),
        ({"vocab_size": True}, "vocab_size must be"),
        ({"d_ff": 2.5}, "d_ff must be"),
        ({"dropout": 1.0}, "dropout is a rate from 0"),
        ({"dropout": None}, "dropout is a rate from 0 .*, not None"),
        ({"dropout": "0.1"}, "dropout is a rate from 0 .*, not '0.1'"),
        ({"attention_dropout": -0.1}, "attention_dropout is a rate"),
        ({"label_smoothing": 1.5}, "label_smoothing is a rate"),
        ({"d_model": 7, "d_k": 2, "d_v": 2}, "sine and cosine come in pairs"),
        ({"learned_positions": 0}, "learned_positions must be"),
        ({"learned_positions": "5"}, "learned_positions must be a whole number .*, not '5'"),
        ({"activation_function": "tanh"}, "must be one of relu, gelu, silu"),
        ({"tie_word_embeddings": False}, "makes another model"),
        ({"pad_token_id": None}, "pad_token_id"),
        ({"pad_token_id": 37000}, "pad_token_id must be the number of one of the 37000 tokens, from 0 on, not 37000"),
        ({"decoder_start_token_id": -1}, "decoder_start_token_id must be the number"),
        ({"bos_token_id": 1.5}, "bos_token_id must be the number"),
        ({"eos_token_id": [2, "</s>"]}, "eos_token_id must be the number .*, not '</s>'"),
        ({"logits_bias": "false"}, "logits_bias must be True or False, not 'false'"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder must be True"),
        ({"format_version": "1"}, "format_version must be a whole number"),
        ({"format_version": 2}, "saved in format 2"),
        ({"num_head": 4}, "no field 'num_head'. Did you mean 'num_heads'"),
        ({"droput": 0.2}, "Did you mean 'dropout'"),
        ({"encoder_layer": 2}, "Did you mean 'encoder_layers'"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_a_sentence(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        Transformer2017Config(**fields)


def test_transformers_names_reach_the_papers_symbols():
    config = Transformer2017Config(
        hidden_size=64, intermediate_size=96, num_attention_heads=4, head_dim=8, num_hidden_layers=3, decoder_layers=2
    )
    assert (config.d_model, config.d_ff, config.num_heads, config.d_k, config.d_v) == (64, 96, 4, 8, 16)
    assert (config.num_hidden_layers, config.encoder_layers, config.decoder_layers) == (3, 3, 2)
    decoder = config.get_text_config(decoder=True)  # what transformers makes caches of
    assert (decoder.num_hidden_layers, decoder.hidden_size, decoder.num_attention_heads) == (2, 64, 4)


def test_a_configuration_survives_saving_and_loading(tmp_path):
    config = Transformer2017Config.from_preset(
        "B1", learned_positions=77, activation_function="silu", id2label={0: "a"}
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is Transformer2017Config
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert json.loads((tmp_path / "config.json").read_text())["format_version"] == 1


def test_fields_that_are_not_ours_are_kept(tmp_path):
    """As every config of transformers does, so that tools can add their own."""
    Transformer2017Config(task_specific_note="kept").save_pretrained(tmp_path)
    assert Transformer2017Config.from_pretrained(tmp_path).task_specific_note == "kept"


@pytest.mark.parametrize("name", ["sep_token_id", "cls_token_id", "tie_encoder_decoder", "encoder_layerdrop"])
def test_what_was_saved_loads_though_a_field_is_named_like_one_of_ours(name, tmp_path):
    """Misspellings are looked for where a configuration is made, not where it is read."""
    config = Transformer2017Config()
    setattr(config, name, 3)
    config.save_pretrained(tmp_path)
    assert getattr(AutoConfig.from_pretrained(tmp_path), name) == 3
