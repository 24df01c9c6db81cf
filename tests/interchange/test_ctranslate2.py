"""CTranslate2 out. The oracle is CTranslate2 itself, running what was written."""

import pytest
import transformer2017
from transformer2017.configuration import RunError, UsageError
from transformer2017.interchange.ctranslate2 import QUANTIZATIONS, export_ctranslate2, tokens_by_id
from transformer2017.interchange.report import greedy_translations, sample_sources

ctranslate2 = pytest.importorskip("ctranslate2")


@pytest.mark.parametrize(
    "fields", [{}, {"activation_function": "gelu", "logits_bias": True}, {"learned_positions": 80}]
)
def test_the_same_model_in_float32(words, shaken, fields, tmp_path):
    """Log probabilities and greedy translations are ours, with every option that a model may have."""
    config = transformer2017.Transformer2017Config(
        vocab_size=len(words), d_model=32, d_ff=48, num_heads=4, encoder_layers=3, decoder_layers=2, **fields
    )
    model = shaken(transformer2017.Transformer2017ForConditionalGeneration(config))
    report = export_ctranslate2(model, words, tmp_path)
    assert report.largest_difference < 1e-4
    assert report.different_translations == 0
    translator = ctranslate2.Translator(str(tmp_path))
    sources = sample_sources(config)
    tokens = tokens_by_id(words, config.vocab_size)
    results = translator.translate_batch(
        [[tokens[i] for i in s] for s in sources], beam_size=1, max_decoding_length=64
    )
    ours = [[tokens[i] for i in translation] for translation in greedy_translations(model, sources)]
    assert [result.hypotheses[0] for result in results] == ours
    assert len({tuple(translation) for translation in ours}) > 1  # it did not say the same thing to everything


def test_a_token_that_the_model_forbids_does_not_come(exportable, words, tmp_path):
    """As opus-mt models forbid padding: by ids that must not come, which other formats do not read."""
    words.add_tokens("w92")
    likely = max(token for row in greedy_translations(exportable, sample_sources(exportable.config)) for token in row)
    exportable.generation_config.bad_words_ids = [[likely]]
    report = export_ctranslate2(exportable, words, tmp_path)
    assert report.different_translations == 0
    assert not exportable.config.logits_bias
    pieces = [[f"w{token - 4}" for token in row[:-1]] + ["</s>"] for row in sample_sources(exportable.config)]
    found = ctranslate2.Translator(str(tmp_path)).translate_batch(pieces, beam_size=4, max_decoding_length=30)
    assert f"w{likely - 4}" not in {piece for one in found for piece in one.hypotheses[0]}


def test_rules_of_search_that_do_not_travel_are_no_fault(exportable, words, tmp_path):
    words.add_tokens("w92")
    exportable.generation_config.update(no_repeat_ngram_size=2, repetition_penalty=1.3)
    assert export_ctranslate2(exportable, words, tmp_path).different_translations == 0


def test_sentences_beyond_the_table_of_positions_are_not_compared(exportable, words, tmp_path):
    words.add_tokens("w92")
    report = export_ctranslate2(exportable, words, tmp_path, sources=[[5, 6, 2], [5] * 1500 + [2]])
    assert "not compared: 1 sentences longer than its 1024 positions" in str(report)


def test_few_learned_positions_are_told(words, shaken, tmp_path):
    """CTranslate2 goes beyond them if it is not told."""
    config = transformer2017.Transformer2017Config(
        vocab_size=len(words),
        d_model=32,
        d_ff=48,
        num_heads=4,
        encoder_layers=1,
        decoder_layers=1,
        learned_positions=40,
    )
    model = shaken(transformer2017.Transformer2017ForConditionalGeneration(config))
    assert "give max_decoding_length=40" in str(export_ctranslate2(model, words, tmp_path))
    sentence = [["w1", "</s>"]]
    found = ctranslate2.Translator(str(tmp_path)).translate_batch(sentence, max_decoding_length=40)
    assert found[0].hypotheses


def test_a_tokenizer_without_a_start_token(words, shaken, tmp_path):
    """As MarianMT's: CTranslate2 loads what is written."""
    words.bos_token = None
    config = transformer2017.Transformer2017Config(
        vocab_size=len(words), d_model=32, d_ff=48, num_heads=4, encoder_layers=3, decoder_layers=2
    )
    model = shaken(transformer2017.Transformer2017ForConditionalGeneration(config))
    assert export_ctranslate2(model, words, tmp_path).different_translations == 0


def test_int8(words, shaken, tmp_path):
    """Quantised weights make a smaller folder, which runs; the model that was exported keeps its own."""
    config = transformer2017.Transformer2017Config(
        vocab_size=len(words), d_model=128, d_ff=256, num_heads=4, encoder_layers=2, decoder_layers=2
    )
    model = shaken(transformer2017.Transformer2017ForConditionalGeneration(config))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    report = export_ctranslate2(model, words, tmp_path / "int8", "int8")
    assert "int8" in str(report)
    assert 1e-4 < report.largest_difference < 1  # of log probabilities: said, and allowed
    assert report.different_translations <= 8  # of 16; random weights have many near ties
    assert all(weight.equal(before[name]) for name, weight in model.state_dict().items())
    export_ctranslate2(model, words, tmp_path / "float32")
    sizes = [(tmp_path / kind / "model.bin").stat().st_size for kind in ("int8", "float32")]
    assert sizes[0] < 0.7 * sizes[1]  # the tables of positions stay float32


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_every_quantization_is_written_and_compared_on_any_processor(words, shaken, tmp_path, quantization):
    """Also one in which this processor cannot compute."""
    config = transformer2017.Transformer2017Config(
        vocab_size=len(words), d_model=32, d_ff=48, num_heads=4, encoder_layers=1, decoder_layers=1
    )
    model = shaken(transformer2017.Transformer2017ForConditionalGeneration(config))
    report = export_ctranslate2(model, words, tmp_path, quantization)
    assert report.largest_difference < 1


def test_what_it_cannot_hold_is_refused(words, tmp_path):
    config = transformer2017.Transformer2017Config(
        vocab_size=len(words), d_model=32, d_ff=48, num_heads=4, d_k=6, encoder_layers=1, decoder_layers=1
    )
    model = transformer2017.Transformer2017ForConditionalGeneration(config)
    with pytest.raises(UsageError, match="rows B of Table 3"):
        export_ctranslate2(model, words, tmp_path)
    with pytest.raises(UsageError, match="--quantization must be one of float32, int8"):
        export_ctranslate2(model, words, tmp_path, "int7")


def test_a_wrong_export_is_noticed(words, shaken, tmp_path, monkeypatch):
    """The comparison at the end can fail: here positions begin at 9 on the way out."""
    import transformer2017.interchange.ctranslate2 as room

    config = transformer2017.Transformer2017Config(
        vocab_size=len(words), d_model=32, d_ff=48, num_heads=4, encoder_layers=1, decoder_layers=1
    )
    model = shaken(transformer2017.Transformer2017ForConditionalGeneration(config))
    monkeypatch.setattr(
        room, "_positions", lambda config, half: room.sinusoidal_encoding(room.torch.arange(9, 99), 32)
    )
    with pytest.raises(RunError, match="went wrong: its log probabilities differ by"):
        export_ctranslate2(model, words, tmp_path)
