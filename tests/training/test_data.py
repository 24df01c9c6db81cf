"""Reading pairs: what a user's faulty files are answered with, and what cleaning leaves out."""

import dataclasses
import gzip
import shutil

import pytest
from datasets import Dataset, DatasetDict
from transformer2017.configuration import UsageError
from transformer2017.training.arguments import DataArguments
from transformer2017.training.cleaning import Cleaner, length_ratio
from transformer2017.training.data import language_of, read_pairs, training_corpus, weighted
from transformer2017.training.readers import Columns, read_dataset, read_pairs_file
from transformer2017.training.stored_rows import in_batches, store


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


@pytest.mark.parametrize(
    ("source", "target", "ratio"),
    [
        ("one two", "eins zwei drei vier fünf", 5 / 2),
        ("I see two dogs", "我看见两只狗", 14 / 6),
        ("我看见两只狗。", "I see two dogs.", 15 / 7),
        ("Donaudampfschifffahrt", "steam navigation on the Danube", 30 / 21),
        ("yes", "Zwei", 4 / 3),
    ],
)
def test_sides_are_compared_in_words_or_where_one_has_no_spaces_in_characters(source, target, ratio):
    assert length_ratio(source, target) == pytest.approx(ratio)
    (pair,) = Cleaner(DataArguments(max_length_ratio=ratio + 0.01)).clean([(source, target)])
    assert pair == (source, target)
    assert not list(Cleaner(DataArguments(max_length_ratio=ratio - 0.01)).clean([(source, target)]))


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


def test_a_reading_that_fails_leaves_no_note_of_what_was_read_before(tmp_path):
    """Else the run with the old flags would take the rows of the failed one for its own."""
    source, target = written(tmp_path, "a.en", "one\n"), written(tmp_path, "a.de", "eins zwei drei\n")
    arguments = DataArguments(train_source=[str(source)], train_target=[str(target)])
    training_corpus(arguments, tmp_path / "kept")
    with pytest.raises(UsageError, match="No pair"):
        training_corpus(dataclasses.replace(arguments, max_length_ratio=0.1), tmp_path / "kept")
    assert training_corpus(arguments, tmp_path / "kept").pairs["source"][:] == ["one"]


def test_a_changed_data_set_of_a_folder_is_read_again(tmp_path):
    """As plain files are; hidden files and those of a run that lies beside them do not count."""
    arguments = DataArguments(dataset=str(tmp_path / "set"))
    for source in ("one", "another"):
        shutil.rmtree(tmp_path / "set", ignore_errors=True)
        Dataset.from_list([{"source": source, "target": "eins"}]).save_to_disk(str(tmp_path / "set"))
        corpus = training_corpus(arguments, tmp_path / "kept")
        assert not corpus.reused
        assert corpus.pairs["source"][:] == [source]
        (tmp_path / "set" / "run" / "_run").mkdir(parents=True)
        written(tmp_path / "set" / "run", "config.json", "{}"), written(tmp_path / "set", ".note", "")
        assert training_corpus(arguments, tmp_path / "kept").reused


def test_the_report_says_what_weights_take(tmp_path):
    files = [str(written(tmp_path, name, "a dog\tein Hund\na cat\teine Katze\n")) for name in ("a.tsv", "b.tsv")]
    weighed = training_corpus(DataArguments(train_file=files, corpus_weights=[2.5, 0]), tmp_path / "kept")
    assert weighed.report == "4 pairs kept; by --corpus_weights an epoch takes 5"


def test_compressed_text_is_read(tmp_path):
    """With the languages of its name; one that is cut, or not compressed, is named."""
    source = written(tmp_path, "a.en.gz", gzip.compress("\ufeffone\ntwo\n".encode()))
    target = written(tmp_path, "a.de.gz", gzip.compress(b"eins\nzwei\n"))
    corpus = training_corpus(DataArguments(train_source=[str(source)], train_target=[str(target)]), tmp_path / "kept")
    assert corpus.pairs["source"][:] == ["one", "two"]
    assert (corpus.source_language, corpus.target_language) == ("en", "de")
    for damaged in (target.read_bytes()[:-4], target.read_bytes()[:12] + b"\xff" * 9, b"eins\nzwei\n"):
        with pytest.raises(UsageError, match=r"a\.de\.gz cannot be read: \w"):
            list(read_pairs(source, written(tmp_path, "a.de.gz", damaged)))


def test_an_interrupted_write_leaves_no_file(tmp_path):
    """Half a corpus must not be taken for a whole one."""
    from transformer2017.training.data import TEXT

    def rows():
        yield ("a", "b")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store(tmp_path / "pairs.arrow", TEXT, in_batches(rows(), TEXT))
    assert not (tmp_path / "pairs.arrow").exists()


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("train.en", "en"),
        ("a/b.deu", "deu"),
        ("dev.pt_BR", "pt_BR"),
        ("dev.zho-Hans.gz", "zho-Hans"),
        ("x.txt", None),
        ("x.a_b", None),
        (None, None),
    ],
)
def test_language_is_taken_from_the_ending(path, language):
    assert language_of(path) == language


FILES = {
    "a.tsv": "a dog\tein Hund\ncats\tKatzen\n",
    "named.tsv": "id\ttarget\tsource\n1\tein Hund\ta dog\n2\tKatzen\tcats\n",
    "a.csv": 'source,target\na dog,ein Hund\n"cats",Katzen\n',
    "a.jsonl": '{"translation": {"en": "a dog", "de": "ein Hund"}}\n{"en": "cats", "de": "Katzen"}\n',
    "a.tmx": """<tmx version="1.4"><body><tu><tuv xml:lang="en-GB"><seg>a <b>dog</b></seg></tuv>
        <tuv xml:lang="de"><seg>ein Hund</seg></tuv></tu>
        <tu><tuv xml:lang="EN"><seg>cats</seg></tuv><tuv xml:lang="DE"><seg>Katzen</seg></tuv></tu></body></tmx>""",
}


@pytest.mark.parametrize("name", FILES)
def test_each_kind_of_file_gives_its_pairs(tmp_path, name):
    if name.endswith(".tmx"):
        pytest.importorskip("defusedxml")
    columns = Columns(source_language="en", target_language="de")
    pairs = list(read_pairs_file(written(tmp_path, name, FILES[name]), columns))
    assert pairs == [("a dog", "ein Hund"), ("cats", "Katzen")]


def test_parquet_and_local_data_sets_give_their_pairs(tmp_path):
    """With the column `translation` that the Hub's data sets have."""
    rows = Dataset.from_list([{"translation": {"en": "a dog", "de": "ein Hund"}}])
    rows.to_parquet(str(tmp_path / "a.parquet"))
    rows.save_to_disk(str(tmp_path / "set"))
    columns = Columns(source_language="en", target_language="de")
    assert list(read_pairs_file(tmp_path / "a.parquet", columns)) == [("a dog", "ein Hund")]
    assert list(read_dataset(str(tmp_path / "set"), "train", None, False, columns)) == [("a dog", "ein Hund")]


def test_a_first_line_of_names_is_none_of_the_pairs(tmp_path):
    """By the languages too, as in the other kinds of files; names that it lacks are refused, not passed over."""
    file = written(tmp_path, "a.tsv", "id\tde\ten\n1\tein Hund\ta dog\n")
    by_language = Columns(source_language="en", target_language="de")
    by_name = Columns(source="en", target="de")
    assert list(read_pairs_file(file, by_language)) == list(read_pairs_file(file, by_name)) == [("a dog", "ein Hund")]
    with pytest.raises(UsageError, match=r"a\.tsv, line 1 has the columns id, de, en: say which are which"):
        list(read_pairs_file(file, Columns(source="en", target="ger")))


def test_a_data_set_without_splits_stands_for_its_training_split_alone(tmp_path):
    Dataset.from_list([{"source": "a dog", "target": "ein Hund"}]).save_to_disk(str(tmp_path / "set"))
    assert list(read_dataset(str(tmp_path / "set"), "train", None, False, Columns())) == [("a dog", "ein Hund")]
    with pytest.raises(UsageError, match=r"split validation\) cannot be loaded: it was saved as one data set"):
        list(read_dataset(str(tmp_path / "set"), "validation", None, False, Columns()))


def test_a_split_that_a_saved_data_set_lacks_is_answered_with_those_it_has(tmp_path):
    rows = Dataset.from_list([{"source": "a dog", "target": "ein Hund"}])
    DatasetDict({"train": rows, "dev": rows}).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(UsageError, match=r"split train\[:10%\]\) cannot be loaded: its splits are train, dev"):
        list(read_dataset(str(tmp_path / "set"), "train[:10%]", None, False, Columns()))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_of_the_hub_gives_its_pairs_whole_or_streamed(tmp_path, monkeypatch, streaming):
    """A folder as the Hub would give it, read by the same `load_dataset`; many rows, in their order."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"translation": {"en": f"dog {n}", "de": f"Hund {n}"}} for n in range(3000)]
    (tmp_path / "pairs").mkdir()
    Dataset.from_list(rows).to_parquet(str(tmp_path / "pairs" / "train.parquet"), batch_size=500)
    columns = Columns(source_language="en", target_language="de")
    read = read_dataset(str(tmp_path / "pairs"), "train", None, streaming, columns)
    assert list(read) == [(f"dog {n}", f"Hund {n}") for n in range(3000)]


def test_external_entities_are_refused(tmp_path):
    """A translation memory must not read other files of the machine."""
    pytest.importorskip("defusedxml")
    (tmp_path / "secret").write_text("secret")
    entity = f'<!DOCTYPE tmx [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]>'
    path = written(tmp_path, "a.tmx", entity + FILES["a.tmx"].replace("cats", "&x;"))
    with pytest.raises(UsageError, match=r"a\.tmx is not a TMX file that can be read"):
        list(read_pairs_file(path, Columns(source_language="en", target_language="de")))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.tsv", "one\n", r"a\.tsv, line 1: .*a tab"),
        ("a.tsv", "0.9\ta dog\tein Hund\n", r"a\.tsv, line 1 has 3 cells, .*first line, .*--source_column"),
        ("a.tsv", "a dog\tein Hund\na\tb\tc\n", r"a\.tsv, line 2 has 3 cells"),
        ("a.tsv", "id\tsource\ttarget\n1\ta\tb\n2\tc\n", r"a\.tsv, line 3 has 2 cells, and line 1 has 3"),
        ("a.tsv", "source\ttarget\nHello\tworld\tHallo\n", r"a\.tsv, line 2 has 3 cells, and line 1 has 2"),
        ("a.csv", "source,target\nHello, world,Hallo Welt\n", r"a\.csv, line 2 has not the 2 cells of line 1"),
        ("a.csv", "source,target\nA dog\n", r"a\.csv, line 2 has not the 2 cells of line 1"),
        ("a.tsv", "en\tde\na dog\tein Hund\n", r"a\.tsv, line 1 may be a pair .*--source_language .* en and de if"),
        ("a.csv", "english,german\na,b\n", r"a\.csv, line 2 has the columns english, german: .*--source_column"),
        ("a.jsonl", '{"translation": {"en": "a", "de": "b"}}\n', r"columns translation, en, de: .*--source_language"),
        ("a.jsonl", '\n{"source": "a", "target": ["b"]}\n', r"a\.jsonl, line 2, column target: .* it is a list"),
        ("a.jsonl", '{"source": true, "target": "b"}\n', r"a\.jsonl, line 1, column source: .* it is a bool"),
        ("a.jsonl", "{\n", r"a\.jsonl, line 1 is not JSON"),
        ("a.parquet", "no", r"a\.parquet is not Parquet"),
        ("a.docx", "", r"a\.docx: --train_file takes"),
    ],
)
def test_a_faulty_file_is_named(tmp_path, name, content, sentence):
    with pytest.raises(UsageError, match=sentence):
        list(read_pairs_file(written(tmp_path, name, content), Columns()))


def test_a_number_is_its_digits_and_nothing_an_empty_side(tmp_path):
    """A 0 is no empty side, and None no word."""
    file = written(tmp_path, "a.jsonl", '{"source": 0, "target": 1.5}\n{"source": "a", "target": null}\n')
    assert list(read_pairs_file(file, Columns())) == [("0", "1.5"), ("a", "")]


def test_a_row_without_text_is_named(tmp_path):
    rows = Dataset.from_list([{"source": "a dog", "target": ["ein Hund"]}])
    rows.to_parquet(str(tmp_path / "a.parquet"))
    rows.save_to_disk(str(tmp_path / "set"))
    with pytest.raises(UsageError, match=r"a\.parquet, row 1, column target: text is needed, and it is a list"):
        list(read_pairs_file(tmp_path / "a.parquet", Columns()))
    with pytest.raises(UsageError, match=r"set, row 1, column target: text is needed"):
        list(read_dataset(str(tmp_path / "set"), "train", None, False, Columns()))


def test_a_first_line_of_short_words_is_a_pair_where_the_languages_are_said(tmp_path):
    file = written(tmp_path, "a.tsv", "dog\tpes\n")
    assert list(read_pairs_file(file, Columns(source_language="en", target_language="cs"))) == [("dog", "pes")]


def test_the_mark_up_of_a_translation_memory_is_no_text(tmp_path):
    """Its codes hold that of the document (TMX 1.4b); what stands between and behind them, and in `hi`, is text."""
    pytest.importorskip("defusedxml")
    segment = '<bpt i="1">&lt;b&gt;<sub>note</sub></bpt>a <hi>dog</hi><ept i="1">&lt;/b&gt;</ept> runs<ph>%s</ph>.'
    unit = f'<tu><tuv xml:lang="en"><seg>{segment}</seg></tuv><tuv xml:lang="de"><seg>b</seg></tuv></tu>'
    file = written(tmp_path, "a.tmx", f"<tmx><body>{unit}</body></tmx>")
    assert list(read_pairs_file(file, Columns(source_language="en", target_language="de"))) == [("a dog runs.", "b")]


def test_white_space_of_a_translation_memory_is_that_of_its_layout(tmp_path):
    """Lines and indents of the file are spaces; a space that does not break is a part of the text, as elsewhere."""
    pytest.importorskip("defusedxml")
    unit = (
        '<tu><tuv xml:lang="en"><seg>\n  10\u00a0% of\n  {0}</seg></tuv><tuv xml:lang="de"><seg>{0}</seg></tuv></tu>'
    )
    file = written(tmp_path, "a.tmx", f"<tmx><body>{''.join(unit.format(i) for i in range(2000))}</body></tmx>")
    found = list(read_pairs_file(file, Columns(source_language="en", target_language="de")))
    assert found == [(f"10\u00a0% of {i}", str(i)) for i in range(2000)]


def test_half_a_character_of_json_is_a_lost_one(tmp_path):
    """Training leaves such a pair out as broken; validation, which leaves nothing out, can store it."""
    file = written(tmp_path, "a.jsonl", '{"source": "a \\ud83d b", "target": "c"}\n')
    assert list(read_pairs_file(file, Columns())) == [("a \ufffd b", "c")]


def test_units_that_lack_a_language_are_counted(tmp_path):
    """As pairs with an empty side; where no unit has it, the sentence names those that there are."""
    pytest.importorskip("defusedxml")
    french = '<tu><tuv xml:lang="en"><seg>dog</seg></tuv><tuv xml:lang="fr-CA"><seg>chien</seg></tuv></tu>'
    file = written(tmp_path, "a.tmx", FILES["a.tmx"].replace("</body>", f"{french}</body>"))
    arguments = DataArguments(train_file=[str(file)], source_language="en", target_language="de")
    report = "2 pairs kept, 1 left out (an empty side: 1)"
    assert training_corpus(arguments, tmp_path / "kept").report == report
    with pytest.raises(UsageError, match=r"a\.tmx has no nl: .* from de, en, en-gb, fr, fr-ca\."):
        list(read_pairs_file(file, Columns(source_language="en", target_language="nl")))


@pytest.mark.parametrize(("weight", "count"), [(1, 10), (2, 20), (0.5, 5), (1.5, 15), (0.1, 1), (0.3, 3), (0, 0)])
def test_corpora_are_mixed_by_weight(weight, count):
    assert len(list(weighted([("a", "b")] * 10, weight))) == count


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ([0.0], "--corpus_weights are all 0"),
        ([0.1], "No pair of .* is left: 2 pairs kept, of which --corpus_weights takes none"),
        ([float("inf")], "give a number from 0 for each of the 1 corpora"),
    ],
)
def test_weights_that_leave_no_pair_are_refused(tmp_path, weights, sentence):
    """They ended in an error of Python's once the vocabulary was made, or never."""
    file = written(tmp_path, "a.tsv", "a dog\tein Hund\ncats\tKatzen\n")
    with pytest.raises(UsageError, match=sentence):
        training_corpus(DataArguments(train_file=[str(file)], corpus_weights=weights), tmp_path / "store")
