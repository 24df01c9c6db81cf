"""A model folder that was damaged is found out before it is used; the oracle is the damage itself."""

import json
import shutil
import socket
from pathlib import Path

import pytest
import torch
from transformer2017.cli import main
from transformer2017.configuration import RunError, UsageError
from transformer2017.configuration.manifest import (
    MANIFEST,
    check_folder,
    check_manifest,
    write_manifest,
    write_whole,
    written_whole,
)
from transformer2017.training.arguments import TokenizerArguments
from transformer2017.training.saving import save_model
from transformer2017.training.tokenization import train_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model as `train` leaves it."""
    import transformer2017

    torch.manual_seed(7)
    tokenizer = train_tokenizer(iter(["two dogs run", "a man"]), TokenizerArguments(), 280, exact=False)
    config = transformer2017.Transformer2017Config.from_preset(
        "tiny", vocab_size=len(tokenizer), d_model=16, d_ff=16, num_heads=2, encoder_layers=1, decoder_layers=1
    )
    model = transformer2017.Transformer2017ForConditionalGeneration(config)
    model.generation_config.max_new_tokens = 3
    path = tmp_path_factory.mktemp("model") / "model"
    save_model(model, tokenizer, path, card="# A card\n")
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def commands(model, tmp_path):
    """Every verb that reads a model folder."""
    text = tmp_path / "a.txt"
    text.write_text("two dogs\n")
    return {
        "translate": ["translate", model, text],
        "evaluate": ["evaluate", model, "--source", text, "--target", text],
        "explain": ["explain", model, "a man", "--output", tmp_path / "a.html"],
        "export": ["export", "marian", model, "--output_dir", tmp_path / "exported"],
        "app": ["app", model],
        "train": ["train", "--model", model, "--train_source", text, "--train_target", text,
                  "--output_dir", tmp_path / "new", "--use_cpu", "true"],
    }  # fmt: skip


VERBS = ["translate", "evaluate", "explain", "export", "app", "train"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere", "there is no model folder 'nowhere'"),
        ("./runs/nowhere", "there is no model folder './runs/nowhere'"),
        ("data", "'data' holds no config.json"),
    ],
)
def test_a_name_that_is_no_model_is_told_by_each_verb_at_once(tmp_path, monkeypatch, capsys, verb, name, sentence):
    """A slip of the pen is a missing folder, not a network that cannot be reached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("the network is asked"))
    (tmp_path / "data").mkdir()
    assert main([str(word) for word in commands(name, tmp_path)[verb]]) == 2
    assert sentence in capsys.readouterr().err


def test_a_slip_that_could_be_a_name_of_the_hub_is_told_before_the_hub_is_asked(tmp_path, monkeypatch, caplog):
    """Without a network it is asked for half a minute; a name whose first half is no folder here needs no remark."""
    monkeypatch.chdir(tmp_path)
    check_folder("runs/nowhere")
    assert not caplog.messages
    (tmp_path / "runs").mkdir()
    check_folder("runs/nowhere")
    assert caplog.messages == ["there is no folder 'runs/nowhere' here: the Hub is asked for a model of that name"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_flipped_bit_is_told_by_each_verb(copy, tmp_path, capsys, verb):
    flip(copy / "model.safetensors")
    assert main([str(word) for word in commands(copy, tmp_path)[verb]]) == 2
    told = capsys.readouterr().err.strip()
    assert "model.safetensors has changed (its SHA-256 differs)" in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "modeling_transformer2017.py", "model.safetensors"])
def test_a_file_that_is_cut_missing_or_changed_is_named(copy, file):
    whole = (copy / file).read_bytes()
    for content, told in ((whole[:-7], "bytes instead of"), (None, "is missing"), (whole[:-1] + b"#", "has changed")):
        (copy / file).unlink()
        if content is not None:
            (copy / file).write_bytes(content)
        with pytest.raises(ValueError, match=f"{file} .*{told.split()[-1]}"):
            check_manifest(copy)
        (copy / file).write_bytes(whole)
    check_manifest(copy)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"files": {"../x": {"bytes": 1, "sha256": "0"}}}', "[" * 100_000]
)
def test_a_damaged_manifest_is_told(copy, content):
    (copy.parent / "x").write_text("1")
    (copy / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match="is not as it was saved"):
        check_manifest(copy)


def test_a_damaged_name_is_told_in_one_line(copy):
    """A name is a file's, and may hold anything."""
    (copy / MANIFEST).write_text('{"files": {"a\\nb\\u2028c": {"bytes": 1, "sha256": "0"}}}')
    with pytest.raises(ValueError, match="is missing") as fault:
        check_manifest(copy)
    assert len(str(fault.value).splitlines()) == 1


def test_folders_without_a_manifest_and_edited_cards_load(copy, tmp_path, capsys):
    (copy / "README.md").write_text("# Another card\n")
    assert main([str(word) for word in commands(copy, tmp_path)["translate"]]) == 0
    (copy / MANIFEST).unlink()
    assert main([str(word) for word in commands(copy, tmp_path)["translate"]]) == 0


def test_saving_over_a_folder_takes_the_manifest_that_no_longer_holds(copy):
    from transformer2017 import Transformer2017ForConditionalGeneration

    Transformer2017ForConditionalGeneration.from_pretrained(copy).save_pretrained(copy)
    assert not (copy / MANIFEST).exists()
    check_manifest(copy)


def test_an_import_writes_one_too(folder, tmp_path, capsys):
    assert main(["export", "marian", str(folder), "--output_dir", str(tmp_path / "out")]) == 0
    assert main(["import", "marian", str(tmp_path / "out"), "--output_dir", str(tmp_path / "back")]) == 0
    files = json.loads((tmp_path / "back" / MANIFEST).read_text())["files"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    flip(tmp_path / "back" / "tokenizer.json")
    with pytest.raises(ValueError, match=r"tokenizer.json has changed"):
        check_manifest(tmp_path / "back")


def test_writing_again_follows_the_files(copy):
    flip(copy / "model.safetensors")
    write_manifest(copy)
    check_manifest(copy)


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch):
    """By no name that it has; a traceback told of it before."""
    monkeypatch.chdir(tmp_path)
    for name in (".", "", f"../{tmp_path.name}"):
        with pytest.raises(UsageError, match="name a new one"), written_whole(Path(name)):
            pass
    assert not list(tmp_path.iterdir())


def test_a_link_to_an_empty_folder_is_written_through(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with written_whole(tmp_path / "link") as beside:
        (beside / "file").touch()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").is_file()


def test_the_top_of_a_file_system_and_a_full_disk_are_told(tmp_path, monkeypatch):
    """By whichever library's error: safetensors and tokenizers have their own."""
    with pytest.raises(RunError, match="new could not be written: No space left"), written_whole(tmp_path / "new"):
        raise Exception("Error while serializing: No space left on device (os error 28)")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    with pytest.raises(UsageError, match="name one in it"), written_whole(tmp_path):
        pass


def test_a_file_that_cannot_take_its_place_leaves_nothing_beside_it(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_whole(tmp_path / "taken", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
