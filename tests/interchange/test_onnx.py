"""ONNX out. The oracle is our model in torch; what is compared with it runs in onnxruntime."""

import pytest
import torch
import transformer2017
from transformer2017.configuration import UsageError
from transformer2017.interchange.onnx import OnnxModel, export_onnx, stepwise_logits
from transformer2017.interchange.report import greedy_translations, logits_of, padded, sample_sources, shifted

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch's exporter, about its own future


def test_onnxruntime_computes_the_same(model, words, tmp_path):
    """Logits, with heads of unusual widths, through the cache; other batch sizes and lengths than at export."""
    report = export_onnx(model, None, tmp_path)
    assert report.largest_difference < 1e-4
    assert report.different_translations == 0
    exported = OnnxModel(tmp_path)
    for sources in ([[5, 6, 7, 8, 9, 10, 11, 2]], sample_sources(model.config)[:3]):
        targets = shifted(sources, 1)
        ours, theirs = logits_of(model, sources, targets, 0), stepwise_logits(exported, sources, targets, 0)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(other, one, atol=1e-4, rtol=0)
    assert model.config._attn_implementation == "sdpa"  # as it was before


def test_a_token_that_the_model_forbids_does_not_come(model, words, tmp_path):
    likely = max(token for row in greedy_translations(model, sample_sources(model.config)) for token in row)
    model.generation_config.suppress_tokens = [likely]
    report = export_onnx(model, words, tmp_path)
    assert report.different_translations == 0
    source = padded([[5, 6, 7, 2]], 0)
    assert likely not in OnnxModel(tmp_path).greedy(source, 20)[0]
    assert (tmp_path / "generation_config.json").is_file()


def test_int8(words, shaken, tmp_path):
    """Smaller, runs, and says mostly the same."""
    config = transformer2017.Transformer2017Config(
        vocab_size=len(words), d_model=64, d_ff=128, num_heads=4, encoder_layers=1, decoder_layers=1
    )
    model = transformer2017.Transformer2017ForConditionalGeneration(config).eval()
    report = export_onnx(model, words, tmp_path, "int8")
    assert 1e-4 < report.largest_difference < 1
    assert report.different_translations <= 12  # of 16, by random weights
    with pytest.raises(UsageError, match="float32 or int8"):
        export_onnx(model, words, tmp_path, "int4")


def test_a_start_token_that_is_the_end_token_ends_nothing(model, words, tmp_path):
    """As fairseq has it."""
    model.config.decoder_start_token_id = model.config.eos_token_id = 2
    model.generation_config.update(decoder_start_token_id=2)
    export_onnx(model, None, tmp_path)
    source = {"input_ids": torch.tensor([[5, 6, 7, 2]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    expected = model.generate(**source, num_beams=1, do_sample=False, max_new_tokens=6)
    assert OnnxModel(tmp_path).greedy(source, 6) == expected.tolist()
    assert expected.shape[1] > 2
