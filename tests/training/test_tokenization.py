"""The tokenizer: one vocabulary, exact decoding, and a saved folder that plain AutoTokenizer loads."""

import pytest
from tokenizers import Tokenizer, models
from transformer2017.configuration import UsageError
from transformer2017.training.arguments import TokenizerArguments
from transformer2017.training.tokenization import characters_left_out, is_symbol_table, load_tokenizer, train_tokenizer
from transformers import AutoTokenizer

LINES = [
    "Two dogs run in the snow.",
    "Zwei Hunde laufen im Schnee.",
    "A dog's bowl, 24 cats!",
    "Die Straße ist naß.",
] * 5
TEXTS = ["Two dogs run.", "a  b , c", " lead", "trail ", "漢字 ✓ Straße", "it's 1234!", "tab\there", "<0x41>", "ß"]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("text", TEXTS)
def test_decoding_gives_the_text_back(kind, text, tmp_path):
    """Spaces, punctuation, and characters that training never saw; after saving and loading, too."""
    train_tokenizer(iter(LINES), TokenizerArguments(tokenizer_type=kind), 310, exact=False).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "symbols"])
def test_special_tokens_are_where_the_model_expects_them(kind):
    """<pad> 0, <s> 1, </s> 2, <unk> 3; source and target end in </s>."""
    tokenizer = train_tokenizer(iter(LINES), TokenizerArguments(tokenizer_type=kind), 310, exact=False)
    ids = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert ids == (0, 1, 2, 3)
    assert tokenizer("Two dogs")["input_ids"][-1] == 2
    assert tokenizer(text_target="Two dogs")["input_ids"][-1] == 2


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_vocabulary_larger_than_the_text_supports(kind):
    """The user reads the flag, and the size that is possible, which then works."""
    with pytest.raises(UsageError, match=r"--vocab_size 9000 .*at most (\d+)") as error:
        train_tokenizer(iter(LINES), TokenizerArguments(tokenizer_type=kind), 9000)
    possible = int(str(error.value).split("at most ")[1].split()[0])
    assert len(train_tokenizer(iter(LINES), TokenizerArguments(tokenizer_type=kind), possible)) == possible


def test_training_again_gives_the_same_tokenizer():
    """A run can be repeated with it. Not so with unigram, whose training in threads sums in no fixed order."""
    for kind in ("bpe", "wordpiece", "symbols"):
        first, second = (
            train_tokenizer(iter(LINES), TokenizerArguments(tokenizer_type=kind), 310, exact=False) for _ in "ab"
        )
        assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str(), kind


def test_symbols_are_whole_and_unknown_ones_are_unknown():
    """Letters of a word on one side, phonemes on the other, in one table."""
    arguments = TokenizerArguments(tokenizer_type="symbols", symbol_pattern="[a-z']|[A-Z]+")
    tokenizer = train_tokenizer(iter(["hello", "HH AH L OW"]), arguments, 8000)
    assert is_symbol_table(tokenizer)
    assert tokenizer.convert_ids_to_tokens(tokenizer("hole")["input_ids"]) == ["h", "o", "l", "e", "</s>"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("HH OW")["input_ids"]) == ["HH", "OW", "</s>"]
    assert tokenizer.decode(tokenizer("HH OW L")["input_ids"], skip_special_tokens=True) == "HH OW L"
    assert tokenizer("z")["input_ids"] == [tokenizer.unk_token_id, tokenizer.eos_token_id]


def test_a_tokenizer_without_an_end_is_refused_as_a_file_and_as_a_folder(tmp_path):
    """A model that never sees </s> never learns to stop."""
    tokenizer = train_tokenizer(iter(LINES), TokenizerArguments(), 310, exact=False)
    tokenizer.save_pretrained(tmp_path / "whole")
    assert load_tokenizer(str(tmp_path / "whole" / "tokenizer.json"))("a")["input_ids"][-1] == tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.save_pretrained(tmp_path / "endless")
    for path in (tmp_path / "endless", tmp_path / "endless" / "tokenizer.json"):
        with pytest.raises(UsageError, match="does not end sentences in </s>"):
            load_tokenizer(str(path))


def test_a_tokenizer_that_cannot_encode_is_refused_in_a_sentence(tmp_path):
    Tokenizer(models.WordLevel({"b": 0}, unk_token="c")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UsageError, match="cannot be loaded"):
        load_tokenizer(str(tmp_path / "tokenizer.json"))


def test_a_text_may_hold_symbols_that_are_named_as_special_ones():
    """As text does that other programs have prepared: each has one number, and all lie within the vocabulary."""
    arguments = TokenizerArguments(tokenizer_type="symbols")
    tokenizer = train_tokenizer(iter(["a b <unk>", "b </s> c"]), arguments, 8000)
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert len(tokenizer) == 4 + 3


@pytest.mark.parametrize(("pattern", "sentence"), [("[", "is not a regular expression"), ("[A-Z]", "finds no symbol")])
def test_a_pattern_that_finds_nothing_is_refused(pattern, sentence):
    arguments = TokenizerArguments(tokenizer_type="symbols", symbol_pattern=pattern)
    with pytest.raises(UsageError, match=sentence):
        train_tokenizer(iter(["abc"]), arguments, 8000)


def test_word_pieces_part_a_clause_without_spaces():
    clause = "สวัสดีครับ" * 20
    tokenizer = train_tokenizer(iter([clause] * 5), TokenizerArguments(tokenizer_type="wordpiece"), 100, exact=False)
    assert tokenizer.unk_token_id not in tokenizer(clause)["input_ids"]
    assert tokenizer.decode(tokenizer(clause)["input_ids"], skip_special_tokens=True) == clause


def test_more_characters_than_tokens_are_a_sentence():
    text = ["".join(map(chr, range(0x4E00, 0x4E00 + 500)))]
    with pytest.raises(UsageError, match=r"unigram cannot make 400 tokens of this text .* or bpe"):
        train_tokenizer(iter(text), TokenizerArguments(tokenizer_type="unigram"), 400)


@pytest.mark.parametrize("kind", ["bpe", "symbols"])
def test_a_pair_of_texts_ends_as_one_does(kind):
    """`tokenizer(source, target)` is a slip for `text_target`, and at least no sentence without an end."""
    tokenizer = train_tokenizer(iter(["ab", "a b"]), TokenizerArguments(tokenizer_type=kind), 300, exact=False)
    assert tokenizer("a", "b")["input_ids"][-1] == tokenizer.eos_token_id


def test_characters_that_are_no_symbol_are_counted():
    """As of a reaction whose dots and arrow a pattern of atoms forgets."""
    arguments = TokenizerArguments(tokenizer_type="symbols", symbol_pattern="Cl|Br|[CNO]")
    tokenizer = train_tokenizer(iter(["CC.Br>>CCBr"]), arguments, 100)
    assert characters_left_out(["CC.Br>>CCBr", "C Cl.", ""], tokenizer) == {".": 2, ">": 2}
    whole = train_tokenizer(iter(["CC.Br"]), TokenizerArguments(tokenizer_type="symbols"), 100)
    assert not characters_left_out(["CC.Br >>"], whole)
