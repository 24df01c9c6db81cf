"""`transformer2017 export` and `import`, from the command's words to its report and exit code."""

import pytest
import transformer2017
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformer2017.cli import VERBS, main
from transformers import AutoModelForSeq2SeqLM, MarianMTModel, PreTrainedTokenizerFast


@pytest.fixture
def folder(tmp_path):
    tokens = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{index}" for index in range(40))]
    words = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    config = transformer2017.Transformer2017Config(
        vocab_size=len(tokens), d_model=32, d_ff=48, num_heads=4, encoder_layers=2, decoder_layers=2
    )
    transformer2017.Transformer2017ForConditionalGeneration(config).save_pretrained(tmp_path / "model")
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(tmp_path / "model")
    (tmp_path / "text").write_text("w1 w2 w3\n\nw9 w8\n")
    return tmp_path


def test_out_to_marian_and_in_again(folder, capsys):
    """Both ways end with a report of what was compared."""
    words = [str(folder / "model"), "--output_dir", str(folder / "marian"), "--source", str(folder / "text")]
    assert main(["export", "marian", *words]) == 0
    said = capsys.readouterr().out
    assert said.startswith("marian export\n")
    assert said.endswith(f"written to {folder / 'marian'}\n")
    assert "logits of 2 sentences: largest difference" in said
    assert "translations of 2 sentences (greedy): 2 equal" in said
    assert type(AutoModelForSeq2SeqLM.from_pretrained(folder / "marian")) is MarianMTModel
    assert main(["import", "marian", str(folder / "marian"), "--output_dir", str(folder / "again")]) == 0
    assert "logits of 16 sentences: largest difference" in capsys.readouterr().out
    again = AutoModelForSeq2SeqLM.from_pretrained(folder / "again").state_dict()
    before = AutoModelForSeq2SeqLM.from_pretrained(folder / "model").state_dict()
    assert all(weight.equal(again[name]) for name, weight in before.items())


def test_an_exported_folder_keeps_its_tokenizer(folder):
    """The words of the command in, the words of the model out, by plain transformers."""
    from transformers import AutoTokenizer

    assert main(["export", "marian", str(folder / "model"), "--output_dir", str(folder / "marian")]) == 0
    tokenizer = AutoTokenizer.from_pretrained(folder / "marian")
    assert tokenizer("w1 w2").input_ids == [5, 6, 2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["export", "marian", "MODEL", "--output_dir", "MODEL"], "exists and is not an empty folder"),
        (["export", "marian", "nowhere", "--output_dir", "NEW"], "no model folder 'nowhere'"),
        (["export", "marian", "MODEL", "--output_dir", "NEW", "--quantization", "int8"], "float32 only"),
        (["export", "argos", "MODEL", "--output_dir", "NEW"], "--source_language and --target_language"),
        (["export", "marian", "MODEL", "--output_dir", "NEW", "--source", "nothing"], "'nothing' cannot be read"),
        (["import", "marian", "MODEL", "--output_dir", "MODEL"], "exists and is not an empty folder"),
        (["import", "fairseq", "nothing.pt", "--output_dir", "NEW"], "there is no file nothing.pt"),
        (["import", "torch", "TEXT", "--output_dir", "NEW"], "give --num_heads"),
    ],
)
def test_mistakes_are_one_sentence(folder, words, sentence, capsys):
    """Exit code 2, the sentence on standard error, no traceback."""
    places = {"MODEL": folder / "model", "NEW": folder / "new", "TEXT": folder / "text"}
    assert main([str(places.get(word, word)) for word in words]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


def test_an_import_that_fails_leaves_nothing(folder, monkeypatch):
    """Neither the folder nor the one beside it that was being written."""
    marian = folder / "marian"
    assert main(["export", "marian", str(folder / "model"), "--output_dir", str(marian)]) == 0
    before = sorted(folder.iterdir())

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformer2017.cli.import_.write_manifest", fail)
    assert main(["import", "marian", str(marian), "--output_dir", str(folder / "again")]) == 1
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_its_verb_and_fits_eighty_columns(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: transformer2017 {verb} ")
    assert max(map(len, shown.splitlines())) <= 80
    assert main(["--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
