"""What fuzzing found, and what must never be let in: each is refused in one sentence."""

import json

import pytest
from transformer2017.configuration import UsageError
from transformer2017.training.arguments import TokenizerArguments
from transformer2017.training.flag_parser import read_flag_file
from transformer2017.training.readers import Columns, read_dataset, read_pairs_file
from transformer2017.training.tokenization import load_tokenizer, train_tokenizer

COLUMNS = Columns(source_language="en", target_language="de")
UNIT = '<tu><tuv xml:lang="en"><seg>{0}</seg></tuv><tuv xml:lang="de"><seg>b</seg></tuv></tu>'
ENTITY = '<?xml version="1.0"?><!DOCTYPE tmx [{0}]><tmx><body>' + UNIT.format("&e;") + "</body></tmx>"
BOMB = '<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY e "&b;&b;&b;&b;&b;&b;&b;&b;">'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tmx", ENTITY.format('<!ENTITY e "text">')),
        ("a.tmx", ENTITY.format('<!ENTITY e SYSTEM "file:///etc/passwd">')),
        ("a.tmx", ENTITY.format('<!ENTITY e SYSTEM "http://127.0.0.1/e">')),
        ("a.tmx", ENTITY.format(BOMB)),
        ("a.tmx", '<?xml version="1.0" encoding="UTF-0"?><tmx/>'),
        ("a.jsonl", "[" * 100_000),
        ("a.jsonl", '{"en": "\ud800'),
        ("a.csv", "en,de\n" + "x" * (2**24 + 1) + ",b\n"),
        ("a.csv", 'x,"two\nlines"\n1,2\n'),
        ("a.jsonl", '{"two\\u2028lines": "x", "y": "z"}'),
        ("a.parquet", "PAR1 no parquet at all PAR1"),
    ],
    ids=[
        "entity",
        "file",
        "network",
        "bomb",
        "encoding",
        "depth",
        "surrogate",
        "a large cell",
        "names of lines",
        "names of lines too",
        "not Parquet",
    ],
)
def test_a_pairs_file_is_refused_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(UsageError) as refused:
        list(read_pairs_file(tmp_path / name, COLUMNS))
    assert len(str(refused.value).splitlines()) == 1
    assert name in str(refused.value)


@pytest.mark.parametrize(
    "content", ["a: [", "[" * 10_000, "!!python/object/apply:os.system ['true']", "- 1\n", "\x00"]
)
def test_a_file_of_flags_is_refused_in_one_line_and_runs_nothing(tmp_path, content):
    (tmp_path / "flags.yaml").write_text(content)
    with pytest.raises(UsageError) as refused:
        read_flag_file(tmp_path / "flags.yaml")
    assert len(str(refused.value).splitlines()) == 1


def test_a_token_of_an_absurd_number_is_refused_before_memory_is_taken_for_it(tmp_path):
    tokenizer = train_tokenizer(iter(["two dogs run"]), TokenizerArguments(), 280, exact=False)
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    description["model"]["vocab"]["dogs"] = 10**9
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(UsageError, match="numbers a token 1000000000"):
        load_tokenizer(str(tmp_path / "tokenizer.json"))


@pytest.mark.parametrize("streaming", [True, False])
def test_a_damaged_row_of_a_data_set_is_named(tmp_path, streaming):
    """Streamed, it is met when it is read; else when the set is loaded, where the library tells of the cause apart."""
    (tmp_path / "train.jsonl").write_text('{"en": "a dog", "de": "ein Hund"}\n{broken\n', encoding="utf-8")
    with pytest.raises(UsageError, match="JSON parse error"):
        list(read_dataset(str(tmp_path), "train", None, streaming, COLUMNS))
