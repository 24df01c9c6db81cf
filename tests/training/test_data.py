"""Reading pairs: what a user's faulty files are answered with, and what cleaning leaves out."""

import pytest
from transformer2017.configuration import UsageError
from transformer2017.training.arguments import DataArguments
from transformer2017.training.cleaning import Cleaner
from transformer2017.training.data import in_batches, language_of, read_pairs, store, training_corpus


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("source", "target", "sentence"),
    [
        ("a\nb\n", "x\n", r"a\.en has 2 lines and a\.de has 1"),
        ("", "", r"empty"),
        (b"a\nb\n\xff\n", "x\ny\nz\n", r"a\.en, line 3: byte 1 is not UTF-8"),
    ],
)
def test_faulty_files_are_named(tmp_path, monkeypatch, source, target, sentence):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "a.en", source), written(tmp_path, "a.de", target)
    from pathlib import Path

    with pytest.raises(UsageError, match=sentence):
        list(read_pairs(Path("a.en"), Path("a.de")))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.en cannot be read: No such file"):
        list(read_pairs(tmp_path / "nowhere.en", tmp_path / "nowhere.de"))


def test_only_a_line_feed_ends_a_line(tmp_path):
    """Other separators of Unicode stay in the text, as for wc and paste; a byte order mark and CR LF do not."""
    source = written(tmp_path, "a.en", "\ufeffone\u2028still one\r\ntwo\x85\n")
    target = written(tmp_path, "a.de", "eins\nzwei")
    assert list(read_pairs(source, target)) == [("one\u2028still one", "eins"), ("two\x85", "zwei")]


def test_cleaning_counts_what_it_leaves_out():
    pairs = [
        ("a dog", "ein Hund"),
        ("a dog", "ein Hund"),
        ("Berlin", "Berlin"),
        ("", "leer"),
        ("one two", "eins zwei drei vier fünf sechs sieben"),
        ("broken \ufffd", "kaputt"),
    ]
    cleaner = Cleaner(DataArguments(drop_duplicates=True, drop_copies=True, max_length_ratio=3))
    assert list(cleaner.clean(pairs)) == [("a dog", "ein Hund")]
    assert cleaner.removed == {
        "a duplicate": 1,
        "target a copy of the source": 1,
        "an empty side": 1,
        "one side over 3 times as long": 1,
        "broken characters": 1,
    }


def test_a_changed_file_is_read_again(tmp_path):
    """What is kept in the run's folder is used only while the files are as they were."""
    source, target = written(tmp_path, "a.en", "one\n"), written(tmp_path, "a.de", "eins\n")
    arguments = DataArguments(train_source=[str(source)], train_target=[str(target)])
    assert not training_corpus(arguments, tmp_path / "kept").reused
    assert training_corpus(arguments, tmp_path / "kept").reused
    written(tmp_path, "a.en", "another\n")
    again = training_corpus(arguments, tmp_path / "kept")
    assert not again.reused
    assert again.pairs["source"][:] == ["another"]


def test_an_interrupted_write_leaves_no_file(tmp_path):
    """Half a corpus must not be taken for a whole one."""
    from transformer2017.training.data import TEXT

    def rows():
        yield ("a", "b")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store(tmp_path / "pairs.arrow", TEXT, in_batches(rows(), TEXT.names))
    assert not (tmp_path / "pairs.arrow").exists()


@pytest.mark.parametrize(("path", "language"), [("train.en", "en"), ("a/b.deu", "deu"), ("x.txt", None), (None, None)])
def test_language_is_taken_from_the_ending(path, language):
    assert language_of(path) == language
