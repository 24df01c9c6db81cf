"""Marian's own format out. The oracle is CTranslate2's converter of Marian models, and CTranslate2 that runs it."""

import numpy as np
import pytest
import transformer2017
import yaml
from transformer2017.configuration import UsageError
from transformer2017.interchange.marian_npz import export_marian_npz

pytest.importorskip("ctranslate2")


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
