"""Argos Translate packages out, run by their documented layout: CTranslate2 and SentencePiece."""

import json
import zipfile

import pytest
import transformer2017
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformer2017.configuration import UsageError
from transformer2017.interchange.argos import export_argos, sentencepiece_model
from transformer2017.interchange.report import greedy_translations
from transformer2017.training.fine_tuning import add_words
from transformer2017.training.sentencepiece_model import load_sentencepiece
from transformers import PreTrainedTokenizerFast

ctranslate2 = pytest.importorskip("ctranslate2")
sentencepiece = pytest.importorskip("sentencepiece")

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def subwords(kind: str, lines: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer laid out as those that training makes: words begin with a space, unknown characters are bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True) if kind == "bpe" else models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(True)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    if kind == "bpe":
        trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=SPECIAL + BYTES, show_progress=False)
    else:
        trainer = trainers.UnigramTrainer(
            vocab_size=900, special_tokens=SPECIAL + BYTES, unk_token="<unk>", show_progress=False
        )
    tokenizer.train_from_iterator(lines, trainer)
    description = json.loads(tokenizer.to_str())
    description["model"]["byte_fallback"] = True
    description["added_tokens"] = [token for token in description["added_tokens"] if token["content"] in SPECIAL]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(description)),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


@pytest.fixture
def lines(multi30k) -> list[str]:
    return [line for side in ("en", "de") for line in (multi30k / f"val.{side}").read_text("utf-8").splitlines()]


def test_words_that_were_added_reach_the_package(lines, tmp_path):
    """No merge makes them: SentencePiece would cut them as before, and their rows be lost."""
    (tmp_path / "words").write_text("Zugspitze\n", encoding="utf-8")
    tokenizer = add_words(subwords("bpe", lines), tmp_path / "words")
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(tokenizer))
    for line in ("The Zugspitze is high.", "Zugspitze", *lines[:50]):
        assert processor.encode(line) == tokenizer(line).input_ids[:-1]
    assert "▁Zugspitze" in processor.encode("The Zugspitze", out_type=str)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece_cuts_as_the_tokenizer_does(kind, lines):
    """Real sentences, numbers, punctuation, doubled spaces and characters outside the alphabet."""
    tokenizer = subwords(kind, lines)
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(tokenizer))
    hard = ["A 42-year-old man.", "two  spaces", " leading", "日本 and €", "(quoted) 'words'!", "x"]
    same = 0
    for line in [*lines[:300], *hard]:
        ids = tokenizer(line).input_ids[:-1]
        same += processor.encode(line) == ids
        assert processor.decode(processor.encode(line)) == line
    assert same >= 0.99 * (300 + len(hard)), f"{same} of {300 + len(hard)} cut alike"
    assert [processor.pad_id(), processor.bos_id(), processor.eos_id(), processor.unk_id()] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("rules", ["nmt_nfkc", "nmt_nfkc_cf", "identity"])
@pytest.mark.parametrize("prefix", [True, False])
def test_a_sentencepiece_model_comes_out_as_it_went_in(kind, rules, prefix, lines, tmp_path):
    """Its rules of normalisation, the space before the first word, and its own words, whose ids must not move."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(tmp_path / "own"),
        vocab_size=800,
        model_type=kind,
        normalization_rule_name=rules,
        add_dummy_prefix=prefix,
        user_defined_symbols=["<2de>"],
        byte_fallback=True,
        minloglevel=2,
    )
    original = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "own.model"))
    tokenizer = load_sentencepiece(str(tmp_path / "own.model"))
    written = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(tokenizer))
    assert written.pad_id() == tokenizer.pad_token_id == original.get_piece_size()  # added, where it has none
    hard = ["ＦＵＬＬ ½ ﬁ", "two  spaces", " a ", "Straße ✓ 日本", "<2de> A man", "e\u0301"]
    for line in [*lines[:200], *hard]:
        assert written.encode(line) == original.encode(line), line


@pytest.mark.parametrize(
    ("normalizer", "reason"),
    [
        (normalizers.Lowercase(), "Lowercase"),
        (normalizers.Replace("a", "b"), "Replace"),
        (normalizers.Replace("-", " "), "Replace"),
        (normalizers.Strip(), "Strip"),  # without joining spaces, which SentencePiece does at the same time
        (normalizers.NFKC(), "NFKC"),
    ],
)
def test_a_tokenizer_that_changes_text_is_refused(normalizer, reason, lines):
    """SentencePiece would read other text than the model was trained on."""
    tokenizer = subwords("bpe", lines[:100])
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizer, backend.normalizer])
    with pytest.raises(UsageError, match=reason):
        sentencepiece_model(tokenizer)


def test_a_tokenizer_without_a_start_token(lines):
    """As that of many a SentencePiece model."""
    tokenizer = subwords("bpe", lines[:100])
    tokenizer.bos_token = None
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(tokenizer))
    assert processor.encode(lines[0]) == tokenizer(lines[0]).input_ids[:-1]


def test_a_tokenizer_without_an_unknown_token_is_refused(lines):
    """SentencePiece reads no model without one."""
    tokenizer = subwords("bpe", lines[:100])
    tokenizer.unk_token = None
    with pytest.raises(UsageError, match="for what it does not know"):
        sentencepiece_model(tokenizer)


def test_a_package_has_the_layout_and_translates(lines, shaken, tmp_path):
    """Unpacked and run as argostranslate runs it, it gives our translations."""
    tokenizer = subwords("bpe", lines)
    config = transformer2017.Transformer2017Config(
        vocab_size=len(tokenizer), d_model=32, d_ff=48, num_heads=4, encoder_layers=2, decoder_layers=2
    )
    model = shaken(transformer2017.Transformer2017ForConditionalGeneration(config))
    sources = [tokenizer(line).input_ids for line in lines[:20]]
    report = export_argos(model, tokenizer, tmp_path, "en", "de", sources=sources)
    assert report.different_translations == 0
    with zipfile.ZipFile(tmp_path / "translate-en_de-1_0.argosmodel") as package:
        names = package.namelist()
        package.extractall(tmp_path / "installed")
    assert {name.split("/")[0] for name in names} == {"translate-en_de-1_0"}
    folder = tmp_path / "installed" / "translate-en_de-1_0"
    assert json.loads((folder / "metadata.json").read_text()) == {
        "package_version": "1.0",
        "argos_version": "1.9.0",
        "from_code": "en",
        "from_name": "English",
        "to_code": "de",
        "to_name": "German",
    }
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.model"))
    translator = ctranslate2.Translator(str(folder / "model"))
    pieces = processor.encode(lines[:20], out_type=str)
    results = translator.translate_batch(pieces, beam_size=1, max_decoding_length=64)
    ours = greedy_translations(model, sources)
    assert [result.hypotheses[0] for result in results] == [tokenizer.convert_ids_to_tokens(row) for row in ours]


def test_argostranslate_installs_it(lines, shaken, tmp_path, monkeypatch):
    """The package itself, where it is installed."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    package = pytest.importorskip("argostranslate.package")
    translate = pytest.importorskip("argostranslate.translate")
    tokenizer = subwords("bpe", lines)
    config = transformer2017.Transformer2017Config(
        vocab_size=len(tokenizer), d_model=32, d_ff=48, num_heads=4, encoder_layers=1, decoder_layers=1
    )
    model = shaken(transformer2017.Transformer2017ForConditionalGeneration(config))
    export_argos(model, tokenizer, tmp_path, "en", "de")
    monkeypatch.setattr(translate.MiniSBDSentencizer, "split_sentences", lambda self, text: [text])  # it downloads
    monkeypatch.setattr(translate.settings, "compute_type", "float32")  # by itself it quantises
    package.install_from_path(tmp_path / "translate-en_de-1_0.argosmodel")
    assert [(p.from_code, p.to_code) for p in package.get_installed_packages()] == [("en", "de")]
    translated = translate.get_translation_from_codes("en", "de").translate(lines[0])
    batch = tokenizer(lines[0], return_tensors="pt")
    search = {"num_beams": 4, "length_penalty": 0.2, "early_stopping": True, "max_new_tokens": 256}  # argostranslate's
    ours = tokenizer.decode(model.generate(**batch, **search)[0], skip_special_tokens=True)
    assert translated == ours.replace("_", " ")


def test_a_tokenizer_of_another_kind_is_refused(words):
    with pytest.raises(UsageError, match="--tokenizer_type bpe or unigram"):
        sentencepiece_model(words)


@pytest.mark.parametrize("code", ["../../x", "/etc", "e n", "", "e"])
def test_a_language_cannot_name_a_file_elsewhere(model, tmp_path, code):
    with pytest.raises(UsageError, match="is not a code"):
        export_argos(model, None, tmp_path / "out", code, "de")
    assert not list(tmp_path.iterdir())
