"""Going on from a trained model: the oracle is that model."""

import pytest
import torch
from transformer2017.cli import main
from transformer2017.configuration import UsageError
from transformer2017.training.arguments import TokenizerArguments
from transformer2017.training.fine_tuning import add_words
from transformer2017.training.tokenization import train_tokenizer
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

SIZES = ("preset", "d_model", "d_ff", "num_heads", "encoder_layers", "decoder_layers", "vocab_size")


def without_sizes(words: list[str]) -> list[str]:
    pairs = zip(words[::2], words[1::2], strict=True)
    return [word for flag, value in pairs if flag[2:] not in SIZES for word in (flag, value)]


def test_a_model_goes_on_with_new_words(flags, tmp_path, capsys):
    """A rate of 0 leaves the weights as they were; new rows begin as the mean of the subwords' and stay tied."""
    assert main(["train", *flags(max_steps=2, save_steps=2, eval_steps=2, dropout=0.15)]) == 0
    words = tmp_path / "words"
    words.write_text("zebra\n\nQuagga\n")
    more = without_sizes(
        flags(
            "tuned", model=tmp_path / "run", add_words=words, learning_rate=0, max_steps=2, save_steps=2, eval_steps=2
        )
    )
    assert main(["train", *more, "--average_checkpoints", "0", "--label_smoothing_factor", "0.3"]) == 0
    cards = [(tmp_path / name / "README.md").read_text(encoding="utf-8") for name in ("run", "tuned")]
    assert "trained from scratch" in cards[0]
    assert f"fine-tuned from {tmp_path / 'run'}" in cards[1]
    old, new = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("run", "tuned"))
    assert new("one zebra zebras Quagga.")["input_ids"] == [
        *old("one", add_special_tokens=False)["input_ids"], len(old),
        *old("zebras", add_special_tokens=False)["input_ids"], len(old) + 1, *old(".")["input_ids"][-2:],
    ]  # fmt: skip
    assert new.decode(new("one zebra Quagga.")["input_ids"], skip_special_tokens=True) == "one zebra Quagga."
    before, after = (AutoModelForSeq2SeqLM.from_pretrained(tmp_path / name) for name in ("run", "tuned"))
    rows = after.get_input_embeddings().weight
    assert after.config.vocab_size == len(new) == len(old) + 2 == len(rows)
    assert after.lm_head.weight is rows
    assert after.config.dropout == before.config.dropout == 0.15  # not the recipe's: nobody asked for another
    assert (before.config.label_smoothing, after.config.label_smoothing) == (0.1, 0.3)
    torch.testing.assert_close(rows[: len(old)], before.get_input_embeddings().weight)
    parts = before.get_input_embeddings().weight[old("zebra", add_special_tokens=False)["input_ids"]]
    torch.testing.assert_close(rows[len(old)], parts.mean(0))

    capsys.readouterr()
    assert main(["train", *more[:-2], "--output_dir", str(tmp_path / "x"), "--preset", "base"]) == 2
    assert "leave out --preset" in capsys.readouterr().err
    words.write_text("good\nCOVID-19\n")
    assert main(["train", *more, "--output_dir", str(tmp_path / "y")]) == 2
    assert "line 2: 'COVID-19' is not one word to this tokenizer" in capsys.readouterr().err


def test_a_model_of_symbols_goes_on_by_its_own_score(flags, tmp_path, capsys):
    """The tokenizer is the model's: no flag says that outputs are symbols, of which BLEU says nothing."""
    few = {"max_steps": 2, "save_steps": 2, "eval_steps": 2, "average_checkpoints": 0}
    symbols = flags(tokenizer_type="symbols", symbol_pattern=r"\w", **few)
    place = symbols.index("--vocab_size")
    assert main(["train", *symbols[:place], *symbols[place + 2 :]]) == 0
    more = without_sizes(flags("tuned", model=tmp_path / "run", **few))
    assert main(["train", *more]) == 0
    assert "Sequence error rate (WER)" in capsys.readouterr().out
    assert main(["train", *more, "--output_dir", str(tmp_path / "x"), "--metric_for_best_model", "bleu"]) == 2
    assert "--metric_for_best_model bleu is no score of this run, which has wer, per, loss" in capsys.readouterr().err


def test_a_trained_model_goes_on_gently(flags, tmp_path, capsys):
    """At a new model's rate a trained one forgets: a tenth of the recipe's, or of §5.3's; a given one stays."""
    few = {"max_steps": 2, "save_steps": 2, "eval_steps": 2, "average_checkpoints": 0}
    assert main(["train", *flags(**few)]) == 0
    paper = 16**-0.5 * 400**-0.5  # §5.3 at d_model 16 and 400 updates of warm-up: 0.0125
    schedule = {"recipe": "paper-base", "warmup_steps": 400}
    for rate, more in ((1.5e-4, {}), (paper / 10, schedule), (0.003, {"learning_rate": 0.003, **schedule})):
        capsys.readouterr()
        name = f"tuned-{rate:g}"
        assert main(["train", *without_sizes(flags(name, model=tmp_path / "run", **few, **more))]) == 0
        assert f"peak rate {rate:g} after" in capsys.readouterr().out
        peak = float(torch.load(tmp_path / name / "checkpoint-2" / "scheduler.pt")["base_lrs"][0])
        assert abs(peak - rate) < 1e-9
    more = without_sizes(flags("part", model=tmp_path / "run", recipe="paper-base", warmup_steps=0.1, **few))
    assert main(["train", *more]) == 2
    assert "needs a --learning_rate" in capsys.readouterr().err


def test_words_need_a_model(flags, capsys):
    assert main(["train", *flags(add_words="words")]) == 2
    assert "give --model FOLDER too" in capsys.readouterr().err
    assert main(["train", *without_sizes(flags("other", model="nowhere"))]) == 2
    assert "there is no model folder 'nowhere'" in capsys.readouterr().err


def test_only_a_line_feed_ends_a_line_of_words(tmp_path):
    """A symbol may hold U+0085, which `str.splitlines` cuts at."""
    arguments = TokenizerArguments(tokenizer_type="symbols", symbol_pattern="[^ ]+")
    tokenizer = train_tokenizer(iter(["a b"]), arguments, 300)
    (tmp_path / "words").write_text("c\x85d\n", encoding="utf-8")
    assert len(add_words(tokenizer, tmp_path / "words")) == 4 + 3


def test_a_word_that_a_symbol_table_reads_as_another_is_refused(tmp_path):
    """Zinc would be aromatic nitrogen."""
    arguments = TokenizerArguments(tokenizer_type="symbols", symbol_pattern="Cl|[CNOn]")
    tokenizer = train_tokenizer(iter(["CNn"]), arguments, 300)
    (tmp_path / "words").write_text("Cl\nZn\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 2: 'Zn' is not one word to this tokenizer, which reads it as n"):
        add_words(tokenizer, tmp_path / "words")


def test_a_run_does_not_go_on_with_other_words(flags, tmp_path, capsys):
    """The file of --add_words was changed in between: rows would belong to other words."""
    few = {"max_steps": 2, "save_steps": 2, "eval_steps": 2, "average_checkpoints": 0}
    assert main(["train", *flags(**few)]) == 0
    words = tmp_path / "words"
    words.write_text("zebra\n")
    more = without_sizes(flags("tuned", model=tmp_path / "run", add_words=words, **few))
    assert main(["train", *more]) == 0
    words.write_text("zebra\nquagga\n")
    longer = [*more, "--max_steps", "4", "--resume_from_checkpoint", "true"]
    assert main(["train", *longer]) == 2
    assert "checkpoint-2 has a vocabulary of 301, and the run now one of 302" in capsys.readouterr().err
