"""SentencePiece models: the oracle is SentencePiece."""

import random

import pytest
from transformer2017.configuration import UsageError
from transformer2017.training.fine_tuning import add_words
from transformer2017.training.tokenization import load_tokenizer
from transformers import AutoTokenizer

sentencepiece = pytest.importorskip("sentencepiece")
pytest.importorskip("google.protobuf")
LINES = ["Two dogs run in the snow.", "Zwei Hunde laufen im Schnee.", "A dog's bowl, 24 cats!", "Straße und Maße"]


def trained(folder, kind, **settings):
    letters = random.Random(0)
    words = ["".join(letters.choices("abcdefgäß", k=letters.randint(1, 7))) for _ in range(300)]
    lines = [" ".join(letters.choices(words, k=8)) for _ in range(300)] + LINES * 5
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "x"), vocab_size=400, model_type=kind,
        hard_vocab_limit=False, minloglevel=2, **settings,
    )  # fmt: skip
    return str(folder / "x.model"), lines


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_tokens_are_those_of_sentencepiece(tmp_path, kind, byte_fallback):
    """On every line, after saving and loading too; a token for padding is added."""
    path, lines = trained(tmp_path, kind, byte_fallback=byte_fallback)
    load_tokenizer(path).save_pretrained(tmp_path / "saved")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    original = sentencepiece.SentencePieceProcessor(model_file=path)
    assert tokenizer(lines)["input_ids"] == [[*ids, original.eos_id()] for ids in original.encode(lines)]
    assert tokenizer.decode(tokenizer(LINES[0])["input_ids"], skip_special_tokens=True) == LINES[0]
    assert tokenizer.pad_token_id == original.get_piece_size()


def test_what_cannot_be_converted_is_refused(tmp_path):
    path, _ = trained(tmp_path, "char")
    with pytest.raises(UsageError, match="of words or characters"):
        load_tokenizer(path)
    (tmp_path / "no.model").write_bytes(b"no")
    with pytest.raises(UsageError, match="no SentencePiece model"):
        load_tokenizer(str(tmp_path / "no.model"))


def test_a_damaged_table_of_characters_is_refused(tmp_path):
    """`tokenizers` would walk out of the table and abort: a panic, which no `except Exception` catches."""
    path, _ = trained(tmp_path, "bpe", normalization_rule_name="nmt_nfkc")
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString((tmp_path / "x.model").read_bytes())
    whole = model.normalizer_spec.precompiled_charsmap
    load_tokenizer(path)("Ｔｗｏ ﬁsh")  # the whole table is taken
    for damaged in (whole[: len(whole) // 2], whole[:4] + bytes([0xFF] * 64) + whole[68:], whole[:400], b"\x00"):
        model.normalizer_spec.precompiled_charsmap = damaged
        (tmp_path / "x.model").write_bytes(model.SerializeToString())
        with pytest.raises(UsageError, match=r"table of characters|no SentencePiece model"):
            load_tokenizer(path)


def test_words_are_added_behind_a_padding_token_that_came_last(tmp_path):
    """Its number is taken, though it is none of the model's words."""
    path, lines = trained(tmp_path, "bpe")
    before = load_tokenizer(path)
    pad, size = before.pad_token_id, len(before)
    (tmp_path / "words").write_text("zebra\nquagga\n")
    after = add_words(load_tokenizer(path), tmp_path / "words")
    assert after.pad_token_id == pad == size - 1
    assert after("zebra quagga", add_special_tokens=False)["input_ids"] == [size, size + 1]
    assert after(lines)["input_ids"] == before(lines)["input_ids"]
    after.save_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert saved.pad_token_id == pad
    assert saved("zebra quagga")["input_ids"] == after("zebra quagga")["input_ids"]
