"""The example of fine-tuning, run as its docstring says."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformer2017
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedTokenizerFast

EXAMPLE = Path(__file__).parents[2] / "examples" / "finetune.py"


@pytest.fixture
def folder(tmp_path) -> Path:
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "one", "two", "eins", "zwei"]
    words = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    config = transformer2017.Transformer2017Config(
        vocab_size=8, d_model=32, d_ff=64, num_heads=2, encoder_layers=1, decoder_layers=1, dropout=0.0
    )
    transformer2017.Transformer2017ForConditionalGeneration(config).save_pretrained(tmp_path / "model")
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(tmp_path / "model")
    return tmp_path


def test_it_learns_with_plain_trainer(folder):
    """Under thirty lines; afterwards the folder translates what it was taught, loaded without the package's help."""
    assert len(EXAMPLE.read_text().splitlines()) < 30
    (folder / "source").write_text("one\ntwo\none two\ntwo one\n" * 16)
    (folder / "target").write_text("eins\nzwei\neins zwei\nzwei eins\n" * 16)
    words = [sys.executable, EXAMPLE, folder / "model", folder / "source", folder / "target", folder / "tuned", "150"]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "tuned").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "tuned")
    before = AutoModelForSeq2SeqLM.from_pretrained(folder / "model").eval()
    batch = tokenizer(["one two", "two one"], text_target=["eins zwei", "zwei eins"], return_tensors="pt")
    with torch.no_grad():
        assert model(**batch).loss < 0.7 * before(**batch).loss
    assert (folder / "tuned" / "pipeline_transformer2017.py").is_file()
