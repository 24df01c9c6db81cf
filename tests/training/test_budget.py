"""The arithmetic of a run: the oracles are torch's own count and the paper's figures."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformer2017 import Transformer2017Config, Transformer2017ForConditionalGeneration
from transformer2017.cli import main
from transformer2017.configuration import UsageError
from transformer2017.training.arguments import TokenizerArguments
from transformer2017.training.budget import flops_of_update, plan
from transformer2017.training.saving import save_model
from transformer2017.training.tokenization import train_tokenizer

BATCH = "--device_batch_tokens"


@pytest.mark.parametrize("preset", ["tiny", "B1"])
def test_operations_are_those_that_torch_counts(preset):
    """Of the forward pass, a third of an update."""
    config = Transformer2017Config.from_preset(preset, vocab_size=500, encoder_layers=2, decoder_layers=3)
    config._attn_implementation = "eager"  # torch counts no fused attention on a processor
    model = Transformer2017ForConditionalGeneration(config).eval()
    source, target = torch.full((2, 9), 5), torch.full((2, 7), 6)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model(input_ids=source, attention_mask=torch.ones_like(source), labels=target)
    assert flops_of_update(config, 18, 14, 9, 7) == pytest.approx(3 * counted.get_total_flops(), rel=1e-6)


@pytest.mark.parametrize(
    ("flags", "seconds_a_step", "hours", "flops"),
    [
        ("--preset base --max_steps 100000", 0.4, 12, 3.3e18),
        ("--preset big --max_steps 300000", 1.0, 3.5 * 24, 2.3e19),
    ],
)
def test_the_papers_budget(flags, seconds_a_step, hours, flops):
    """Its seconds a step give its hours, and its FLOPs as it counts them: time, 8 GPUs, 9.5 TFLOP/s (§5.2, Table 2).

    The hours are rounded: 100,000 steps of 0.4 s are 11.1 hours.
    """
    words = f"{flags} --vocab_size 37000 --devices 8 --price_per_hour 2 --use_cpu true"
    budget = plan([*words.split(), "--tokens_per_second", str(25000 / seconds_a_step / 8)])
    assert budget.seconds / 3600 == pytest.approx(hours, rel=0.1)
    assert budget.seconds * 8 * 9.5e12 == pytest.approx(flops, rel=0.1)
    assert budget.flops < flops  # the matrix products alone
    cost = next(line for line in budget.lines() if line.startswith("cost"))
    assert float(cost.split()[1].replace(",", "")) == pytest.approx(budget.seconds / 3600 * 16, abs=0.01)


def test_a_rate_is_measured_where_none_is_given(capsys):
    """By epochs of a corpus: 2,000 pairs of 25 tokens are 98 batches of 512."""
    sizes = "--preset tiny --vocab_size 300 --d_model 16 --d_ff 16 --num_heads 2 --batch_tokens 512"
    assert main(["budget", *sizes.split(), "--pairs", "2000", "--num_train_epochs", "3", "--use_cpu", "true"]) == 0
    shown = capsys.readouterr().out
    assert "FLOPs in 294 updates" in shown
    assert "GFLOP/s a device" in shown


def test_a_small_corpus_is_reckoned_with_the_epochs_that_it_gets(capsys):
    """98 updates an epoch: some 4,000 take 41 epochs, where the recipe says 40."""
    sizes = "--preset tiny --vocab_size 300 --batch_tokens 512 --pairs 2000 --tokens_per_second 1000 --use_cpu true"
    assert main(["budget", *sizes.split()]) == 0
    assert "FLOPs in 4,018 updates" in capsys.readouterr().out


def test_the_model_or_tokenizer_that_flags_name_gives_its_sizes(tmp_path):
    """As in training; more words make a larger vocabulary."""
    tokenizer = train_tokenizer(iter(["Two dogs run."] * 3), TokenizerArguments(), 280, exact=False)
    sizes = {"d_model": 16, "d_ff": 24, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 2}
    model = Transformer2017ForConditionalGeneration(Transformer2017Config(vocab_size=len(tokenizer), **sizes))
    save_model(model, tokenizer, tmp_path / "model")
    (tmp_path / "words").write_text("snow\nman\n")
    flags = ["--max_steps", "5", "--tokens_per_second", "100", "--use_cpu", "true"]
    going_on = [*flags, "--model", str(tmp_path / "model")]
    assert plan(going_on).parameters == model.num_parameters()
    assert plan([*going_on, "--add_words", str(tmp_path / "words")]).parameters == model.num_parameters() + 2 * 16
    anew = [*flags, "--tokenizer", str(tmp_path / "model"), *(str(w) for n, v in sizes.items() for w in (f"--{n}", v))]
    assert plan(anew).parameters == model.num_parameters()
    with pytest.raises(UsageError, match="--model has its own sizes and tokenizer: leave out --preset"):
        plan([*going_on, "--preset", "tiny"])


def test_devices_share_an_update_before_it_is_taken_in_parts():
    """The whole of a device's share, said by flag, takes the memory of a share that no flag parts."""
    words = "--preset tiny --vocab_size 300 --max_steps 5 --tokens_per_second 100 --use_cpu true --devices 8"
    whole, said, halved = (plan([*words.split(), *more]).memory for more in ([], [BATCH, "3125"], [BATCH, "1563"]))
    assert said == whole
    assert halved < whole


def test_a_part_of_an_epoch_is_one_update_at_least():
    words = "--preset tiny --pairs 10 --num_train_epochs 0.01 --tokens_per_second 100 --use_cpu true"
    budget = plan(words.split())
    assert budget.updates == 1
    assert any("updates" in line for line in budget.lines())


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--pairs -1", "--pairs must be more than 0"),
        ("--pairs many", "invalid int value: 'many'"),
        ("--d_modl 4", "There is no flag --d_modl. Did you mean --d_model? All flags: transformer2017 budget --help"),
        ("--pairz 4", "There is no flag --pairz. Did you mean --pairs? All flags: transformer2017 budget --help"),
        ("--num_train_epochs 3", "needs the size of the corpus: --pairs"),
        ("--tokens_per_second 5 --device_flops 5", "Give one of"),
    ],
)
def test_a_users_mistake_is_one_sentence(flags, sentence, capsys):
    assert main(["budget", *flags.split()]) == 2
    assert sentence in capsys.readouterr().err
