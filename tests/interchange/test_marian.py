"""MarianMT out and in. The oracle is transformers' own MarianMT."""

import json
import subprocess
import sys

import pytest
import sentencepiece
import torch
import transformer2017
from transformer2017.configuration import UsageError
from transformer2017.interchange.marian import export_marian, import_marian, marian_from, transformer2017_from
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, MarianConfig, MarianMTModel, MarianTokenizer

SOURCE = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 0, 0]])
TARGET = torch.tensor([[1, 11, 12, 13], [1, 14, 15, 16]])
MASK = (SOURCE != 0).long()


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=SOURCE, attention_mask=MASK, decoder_input_ids=TARGET).logits


def tiny_marian(**fields) -> MarianMTModel:
    """A MarianMT as opus-mt has them: silu, a last token that pads and starts, a bias on the logits."""
    sizes = {
        "vocab_size": 60,
        "d_model": 24,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_ffn_dim": 40,
        "decoder_ffn_dim": 40,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "activation_function": "swish",
        "scale_embedding": True,
        "max_position_embeddings": 64,
        "pad_token_id": 59,
        "decoder_start_token_id": 59,
        "eos_token_id": 0,
        "forced_eos_token_id": 0,
    }
    model = MarianMTModel(MarianConfig(**{**sizes, **fields})).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embed_positions" not in name:
                weight.add_(torch.randn_like(weight) * 0.2)
        model.final_logits_bias.normal_()
    return model


@pytest.mark.parametrize("fields", [{}, {"logits_bias": True, "activation_function": "silu"}])
def test_export_is_the_same_function(exportable, fields, tmp_path):
    """A folder that plain transformers loads without any code of ours; logits equal to 1e-5."""
    config = transformer2017.Transformer2017Config(**{**exportable.config.to_dict(), **fields})
    model = transformer2017.Transformer2017ForConditionalGeneration(config).eval()
    model.load_state_dict(exportable.state_dict(), strict=False)
    if config.logits_bias:
        torch.nn.init.normal_(model.lm_head.bias)
    report = export_marian(model, None, tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert type(loaded) is MarianMTModel
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-5, rtol=0)
    assert report.largest_difference <= 1e-5
    assert report.different_translations == 0
    assert not list(tmp_path.glob("*.py"))
    assert not list(tmp_path.glob("*.bin"))


def test_export_loads_without_the_package(exportable, tmp_path):
    """Nobody who uses the export needs to have this package."""
    export_marian(exportable, None, tmp_path)
    code = (
        "import sys; sys.modules['transformer2017'] = None\n"
        "from transformers import AutoModelForSeq2SeqLM; import torch\n"
        f"model = AutoModelForSeq2SeqLM.from_pretrained({str(tmp_path)!r})\n"
        "print(model.generate(torch.tensor([[5, 6, 7, 2]]), num_beams=1, max_new_tokens=6).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = exportable.generate(input_ids=torch.tensor([[5, 6, 7, 2]]), num_beams=1, max_new_tokens=6)
    assert json.loads(done.stdout) == expected.tolist()


def test_what_does_not_travel_is_told(exportable, words, tmp_path):
    """The length of outputs, and the paper's penalty; a longer text than it has positions is cut, if asked."""
    exportable.generation_config.max_tokens_beyond_input, exportable.generation_config.ranking = 50, "paper"
    words.add_tokens("w92")
    report = str(export_marian(exportable, words, tmp_path))
    assert "outputs end after 512 tokens" in report
    assert "ranked by transformers' penalty" in report
    settings = json.loads((tmp_path / "generation_config.json").read_text())
    assert not {"ranking", "max_tokens_beyond_input", "fast"} & settings.keys()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.model_max_length, tokenizer("w1 w2").input_ids) == (1024, words("w1 w2").input_ids)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"  # transformers 4 knows no TokenizersBackend


def test_generation_settings_travel(exportable):
    """Beam and length penalty are those of the model."""
    exportable.generation_config.num_beams = 4
    exportable.generation_config.length_penalty = 0.6
    settings = marian_from(exportable).generation_config
    assert (settings.num_beams, settings.length_penalty) == (4, 0.6)
    assert settings.forced_eos_token_id is None
    assert settings.max_length == 512  # plain transformers knows no bound by the source, and would stop at 20
    exportable.generation_config.max_length = 40
    assert marian_from(exportable).generation_config.max_length == 40


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"d_k": 6}, r"d_k 6 and d_v 8 with d_model 32 and h 4 \(rows B"),
        ({"d_k": 6, "d_v": 6}, "rows B of Table 3"),
        ({"learned_positions": 20}, "learned ones"),
    ],
)
def test_what_marian_cannot_hold_is_refused(fields, reason):
    config = transformer2017.Transformer2017Config(
        vocab_size=97, d_model=32, d_ff=48, num_heads=4, encoder_layers=1, decoder_layers=1, **fields
    )
    with pytest.raises(UsageError, match=reason):
        marian_from(transformer2017.Transformer2017ForConditionalGeneration(config))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"activation_function": "gelu"},
        {"activation_function": "relu", "scale_embedding": False},
        {"max_position_embeddings": 300},
    ],
)
def test_import_is_the_same_function(fields, tmp_path):
    """Logits equal to 1e-5, with a bias, another activation, no scaling of the embedding; greedy output equal."""
    marian = tiny_marian(**fields)
    marian.save_pretrained(tmp_path / "marian")
    report = import_marian(tmp_path / "marian", tmp_path / "ours")
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours")
    assert type(loaded) is transformer2017.Transformer2017ForConditionalGeneration
    torch.testing.assert_close(logits(loaded), logits(marian), atol=1e-5, rtol=0)
    assert report.largest_difference <= 1e-5
    assert report.different_translations == 0
    assert loaded.config.learned_positions is None
    assert loaded.config.decoder_start_token_id == 59


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_import_of_a_model_in_half_precision(dtype, tmp_path):
    """Its table of positions, rounded, is still the formula; the weights, as they were, in float32."""
    marian = tiny_marian(scale_embedding=False).to(dtype)
    marian.save_pretrained(tmp_path / "marian")
    import_marian(tmp_path / "marian", tmp_path / "ours")
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours")
    assert (loaded.config.learned_positions, loaded.dtype) == (None, torch.float32)
    wide = MarianMTModel.from_pretrained(tmp_path / "marian", dtype=torch.float32).eval()
    torch.testing.assert_close(logits(loaded), logits(wide), atol=1e-5, rtol=0)


def test_import_of_weights_that_are_not_whole(tmp_path):
    """transformers would fill them up with random ones."""
    marian = tiny_marian()
    state = marian.state_dict()
    del state["model.decoder.layers.2.fc2.weight"]
    marian.save_pretrained(tmp_path / "marian", state_dict=state)
    with pytest.raises(UsageError, match=r"layers\.2\.fc2\.weight is missing"):
        import_marian(tmp_path / "marian", tmp_path / "ours")


def test_import_of_positions_that_are_no_sinusoids():
    """A table in the checkpoint that is not the formula becomes learned positions, and nothing is lost."""
    marian = tiny_marian()
    with torch.no_grad():
        for half in (marian.model.encoder, marian.model.decoder):
            half.embed_positions.weight.normal_()
    model = transformer2017_from(marian)
    assert model.config.learned_positions == 64
    torch.testing.assert_close(logits(model), logits(marian), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"decoder_ffn_dim": 44}, "encoder_ffn_dim 40 and decoder_ffn_dim 44"),
        ({"decoder_attention_heads": 2}, "encoder_attention_heads 4 and decoder_attention_heads 2"),
        ({"share_encoder_decoder_embeddings": False}, "separate vocabularies"),
        ({"activation_function": "tanh"}, "the activation 'tanh'"),
        ({"normalize_before": True}, "normalize_before"),
    ],
)
def test_what_ours_cannot_hold_is_refused(fields, reason):
    with pytest.raises(UsageError, match=reason):
        transformer2017_from(tiny_marian(**fields))


@pytest.mark.parametrize(
    ("name", "value"), [("dropout", 1e20), ("eos_token_id", None), ("pad_token_id", 10**9), ("eos_token_id", [0, 1])]
)
def test_a_configuration_that_cannot_be_is_refused(name, value):
    """What transformers' own configuration lets pass must not end in a traceback of ours."""
    marian = tiny_marian()
    setattr(marian.config, name, value)
    with pytest.raises(UsageError, match=name):
        transformer2017_from(marian)


def test_out_and_in_again_gives_the_same_weights(exportable):
    """The two permutations are inverse."""
    again = transformer2017_from(marian_from(exportable))
    for name, weight in exportable.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


def test_import_of_something_else(tmp_path, config):
    """Before the Hub is asked, and before any weights are loaded."""
    transformer2017.Transformer2017ForConditionalGeneration(config).save_pretrained(tmp_path / "own")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").touch()
    for name, told in (
        ("own", "cannot be read as a MarianMT model: its config.json says that it is a transformer2017"),
        ("empty", "holds no config.json"),
        ("text", "there is no model folder"),
        ("nowhere", "there is no model folder"),
    ):
        with pytest.raises(UsageError, match=told):
            import_marian(tmp_path / name, tmp_path / "ours")


@pytest.fixture
def opus_folder(tmp_path, multi30k):
    """A folder as opus-mt has them: two SentencePiece models, one vocabulary, a MarianMT."""
    folder = tmp_path / "opus-mt-en-de"
    folder.mkdir()
    pieces = []
    for side, name in (("source", "en"), ("target", "de")):
        lines = (multi30k / f"val.{name}").read_text(encoding="utf-8").splitlines()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_prefix=str(folder / side), vocab_size=400, minloglevel=2
        )
        (folder / f"{side}.model").rename(folder / f"{side}.spm")
        processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.spm"))
        pieces += [processor.id_to_piece(index) for index in range(3, processor.get_piece_size())]
    vocabulary = ["</s>", "<unk>", *dict.fromkeys(pieces), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(vocabulary)}))
    last = len(vocabulary) - 1
    tiny_marian(vocab_size=len(vocabulary), pad_token_id=last, decoder_start_token_id=last).save_pretrained(folder)
    MarianTokenizer(
        str(folder / "source.spm"), str(folder / "target.spm"), str(folder / "vocab.json")
    ).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_import_brings_the_tokenizer(opus_folder, tmp_path, multi30k):
    """`AutoTokenizer` reads sentences of the imported folder as it did those of the Marian folder, on both sides."""
    import_marian(opus_folder, tmp_path / "ours")
    before, after = AutoTokenizer.from_pretrained(opus_folder), AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert isinstance(after, MarianTokenizer)
    source = (multi30k / "test_2016_flickr.en").read_text(encoding="utf-8").splitlines()[:20]
    target = (multi30k / "test_2016_flickr.de").read_text(encoding="utf-8").splitlines()[:20]
    assert after(source, text_target=target) == before(source, text_target=target)
    marian = MarianMTModel.from_pretrained(opus_folder).eval()
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").eval()
    batch = before(source, return_tensors="pt", padding=True)
    outputs = [model.generate(**batch, num_beams=2, max_new_tokens=12) for model in (marian, ours)]
    assert after.batch_decode(outputs[1]) == before.batch_decode(outputs[0])
