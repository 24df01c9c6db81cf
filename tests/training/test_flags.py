"""Flags: which goes before which, and what the machine decides."""

import re
import sys

import pytest
import torch
from transformer2017.cli import main
from transformer2017.configuration import UsageError
from transformer2017.training import device
from transformer2017.training import flags as flags_module
from transformer2017.training.flags import Flags
from transformer2017.training.prepare import make_model, prepare
from transformer2017.training.training_arguments import TrainingArguments


def test_flags_from_a_file_yield_to_the_command_line(flags, tmp_path):
    """A YAML or JSON file of flags comes first on the line."""
    file = tmp_path / "flags.yaml"
    file.write_text("d_model: 64\nwarmup_steps: 7\n")
    arguments = Flags([str(file), *flags(d_model=32)]).with_recipe("paper-base", with_validation=True)
    assert arguments.model.d_model == 32
    assert arguments.training.warmup_steps == 7
    assert arguments.training.adam_beta2 == 0.98


def without(words: list[str], flag: str) -> list[str]:
    place = words.index(flag)
    return words[:place] + words[place + 2 :]


@pytest.mark.parametrize("precision", [{}, {"bf16": "true"}])
def test_a_machine_without_accelerator_needs_no_flag(flags, monkeypatch, precision):
    """transformers refuses --bf16 true there unless it is told --use_cpu."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    arguments = Flags(without(flags(**precision), "--use_cpu")).with_recipe("small-data", with_validation=True)
    assert arguments.training.use_cpu
    assert arguments.training.device.type == "cpu"


@pytest.mark.parametrize("quick", [True, False])
def test_bfloat16_is_the_default_where_it_is_quick(flags, monkeypatch, quick):
    """And float32 wherever the user says so; the recipe line names it."""
    monkeypatch.setattr(flags_module, "bfloat16_is_quick", lambda use_cpu: quick)
    arguments = Flags(flags()).with_recipe("small-data", with_validation=True)
    assert arguments.training.bf16 is quick
    assert ("in bfloat16 over float32 weights" in arguments.describe()) is quick
    arguments = Flags(flags(bf16="false")).with_recipe("small-data", with_validation=True)
    assert not arguments.training.bf16
    assert "in float32" in arguments.describe()


@pytest.mark.parametrize("has_gpu", [True, False])
def test_workers_make_batches_while_a_gpu_works(flags, monkeypatch, has_gpu):
    """On the processor they would take its time; and a number that the user gives stays."""
    monkeypatch.setattr(flags_module, "has_accelerator", lambda: has_gpu)
    monkeypatch.setattr(flags_module.multiprocessing, "get_all_start_methods", lambda: ["fork", "spawn"])
    given = Flags(without(flags(dataloader_num_workers=1), "--use_cpu"))
    assert given._implied(with_validation=True).get("dataloader_num_workers") is None
    implied = Flags(without(flags(), "--use_cpu"))._implied(with_validation=True)
    assert implied.get("dataloader_num_workers") == (2 if has_gpu else None)


@pytest.mark.parametrize("asked", ["no", "bf16", "fp16"])
def test_accelerates_precision_counts_where_no_flag_says_another(flags, monkeypatch, asked):
    """`accelerate launch` hands the mixed_precision of its file on in the environment, which Trainer reads."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    monkeypatch.setattr(flags_module, "bfloat16_is_quick", lambda use_cpu: False)
    training = Flags(flags()).with_recipe("small-data", with_validation=True).training
    assert (training.mixed_precision, training.bf16, training.fp16) == (asked, asked == "bf16", asked == "fp16")
    training = Flags(flags(bf16="false")).with_recipe("small-data", with_validation=True).training
    assert training.mixed_precision == "no"


@pytest.mark.parametrize(
    ("asked", "epochs"),
    [
        ({}, 200),  # a toy corpus would need thousands for its rate to rise and fall
        ({"batch_tokens": 32}, 134),  # 30 updates an epoch: 4,000 in 134 epochs
        ({"batch_tokens": 4}, 40),
        ({"batch_tokens": 32, "num_train_epochs": 7}, 7),
    ],
    ids=str,
)
def test_a_small_corpus_gets_more_epochs_unless_the_user_says_how_many(flags, tmp_path, monkeypatch, asked, epochs):
    monkeypatch.setattr("transformer2017.training.data.total", lambda dataset, column: 960)
    words = flags(**asked)
    for flag in ("--max_steps", *([] if "batch_tokens" in asked else ["--batch_tokens"])):
        words = without(words, flag)
    assert prepare(Flags(words), tmp_path / "store").arguments.training.num_train_epochs == epochs


@pytest.mark.parametrize(("one", "other"), [("eval_steps", "save_steps"), ("save_steps", "eval_steps")])
def test_what_is_evaluated_is_saved_where_only_one_is_said(flags, one, other):
    """transformers refuses to keep the best of what is not saved."""
    words = without(without(flags(), "--eval_steps"), "--save_steps")
    arguments = Flags([*words, f"--{one}", "6"]).with_recipe("paper-base", with_validation=True)
    assert getattr(arguments.training, other) == 6


def test_a_warm_up_as_a_part_of_the_run_needs_a_rate(flags, capsys):
    """The paper's rate follows from its number of updates, and would be that of a single one."""
    assert main(["train", *flags(recipe="paper-base", warmup_steps=0.1)]) == 2
    assert "--learning_rate" in capsys.readouterr().err
    assert main(["train", *flags(recipe="paper-base", warmup_steps=0.1, learning_rate=1e-3)]) == 0


def test_a_flag_that_turns_off_is_one_that_was_given(flags):
    """The run's note and the card have it, by the name of what it turns off."""
    assert Flags([*flags(), "--no_drop_broken"]).as_given()["drop_broken"] is False
    assert Flags([*flags(), "--no-drop-broken"]).as_given()["drop_broken"] is False


def test_the_help_of_a_flag_that_turns_off_says_so(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    off = re.findall(r"--no_(\w+)\s+(.+)", capsys.readouterr().out)
    assert off
    assert all(said == f"Switches --{name} off." for name, said in off)


def test_a_file_of_flags_may_name_one_where_several_can_stand(tmp_path):
    file = tmp_path / "flags.yaml"
    file.write_text("train_source: train.en\ntrain_target: [train.de]\ncorpus_weights: 2\n")
    data = Flags([str(file)]).data()
    assert (data.train_source, data.train_target, data.corpus_weights) == (["train.en"], ["train.de"], [2])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("recipe: nonsense", "argument --recipe: invalid choice: 'nonsense'"),
        ("d_model: [64]", "--d_model takes one value, not [64]"),
        ("dropout: [0.1, 0.2]", "--dropout takes one value, not [0.1, 0.2]"),
        ("seed: {a: 1}", "--seed takes one value, not {'a': 1}"),
        ("corpus_weights: [[1]]", "invalid float value: '[1]'"),
        ("d_modle: 64", "Did you mean --d_model?"),
    ],
)
def test_a_file_of_flags_is_checked_as_the_command_line_is(tmp_path, line, said):
    """By one sentence that names the file; some ended in a traceback."""
    file = tmp_path / "flags.yaml"
    file.write_text(f"{line}\n")
    with pytest.raises(UsageError, match=re.escape(said)) as refused:
        Flags([str(file)])
    assert str(refused.value).startswith(f"{file}: ")
    assert "\n" not in str(refused.value)


def test_a_file_of_flags_says_what_words_cannot(tmp_path):
    """None where a flag may have none, and else as if it were not there; a list or mapping where a field takes one."""
    file = tmp_path / "flags.yaml"
    values = "batch_tokens:\nsave_total_limit:\nreport_to: [tensorboard, wandb]\nlr_scheduler_kwargs: {power: 2}\n"
    file.write_text(f"{values}drop_broken: false\nfsdp: false\nhelp:\n")
    flags = Flags([str(file)])
    unsaid = {"save_total_limit": None, "report_to": ["tensorboard", "wandb"], "lr_scheduler_kwargs": {"power": 2}}
    assert flags.as_given() == {**unsaid, "drop_broken": False, "fsdp": False}
    training = flags.with_recipe("paper-big", with_validation=True).training
    assert (training.batch_tokens, training.save_total_limit) == (25000, None)


def test_checkpoints_that_are_averaged_are_kept(flags):
    assert Flags(flags(average_checkpoints=9)).with_recipe("paper-base", True).training.save_total_limit == 10
    assert Flags(flags(average_checkpoints=3)).with_recipe("paper-base", True).training.save_total_limit == 6
    with pytest.raises(UsageError, match="--average_checkpoints 9 needs --save_total_limit 9 or more, not 4"):
        Flags(flags(average_checkpoints=9, save_total_limit=4)).with_recipe("paper-base", True)


def test_muon_is_told_of(flags):
    """By the line that a run begins with, and its card."""
    assert ", by Muon and Adam" in Flags([*flags(), "--muon"]).with_recipe("small-data", True).describe()
    assert "Muon" not in Flags(flags()).with_recipe("small-data", True).describe()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"device_batch_tokens": 512, "gradient_accumulation_steps": 1},
            "--gradient_accumulation_steps are both given",
        ),
        ({"muon": True, "optim": "adafactor"}, "--muon and --optim are both given"),
        ({"label_smoothing": 0.0, "label_smoothing_factor": 0.2}, "--label_smoothing_factor are both given"),
        ({"validation_file": "a.tsv"}, "--validation_file and --validation_source are both given"),
        ({"dataset": "me/x", "validation_split": "dev"}, "--validation_source and --validation_split are both given"),
        ({"tokenizer": "folder"}, "--tokenizer and --vocab_size are both given"),
        ({"tokenizer_type": "symbols"}, "leave out --vocab_size"),
        ({"symbol_pattern": r"\S"}, "--symbol_pattern is for --tokenizer_type symbols"),
        ({"per_device_train_batch_size": 64}, "is not read: batches are made by --batch_tokens"),
        ({"train_split": "dev"}, "--train_split is of a --dataset"),
        ({"resume_from_checkpoint": "runs/checkpoint-5"}, "--resume_from_checkpoint is true or false"),
    ],
    ids=str,
)
def test_a_flag_that_would_not_be_heard_is_refused(flags, given, told):
    with pytest.raises(UsageError, match=told):
        Flags(flags(**given)).with_recipe("paper-base", True)


def test_patience_needs_something_to_evaluate_on(flags):
    Flags(flags(early_stopping_patience=3)).with_recipe("paper-base", True)
    for more, with_validation in (({}, False), ({"eval_strategy": "no"}, True)):
        with pytest.raises(UsageError, match="--early_stopping_patience needs a validation set"):
            Flags(flags(early_stopping_patience=3, **more)).with_recipe("paper-base", with_validation)


@pytest.mark.parametrize("one", ["eval_strategy", "save_strategy"])
def test_the_best_checkpoint_is_saved_when_it_is_evaluated(flags, one):
    """Of the two strategies one says when, unless both are given; without either there is no best one."""
    words = flags()
    for name in ("eval_strategy", "save_strategy", "eval_steps", "save_steps"):
        place = words.index(f"--{name}")
        del words[place : place + 2]
    by_epochs = Flags([*words, f"--{one}", "epoch"]).with_recipe("paper-base", True).training
    assert (by_epochs.eval_strategy, by_epochs.save_strategy) == ("epoch", "epoch")
    assert by_epochs.load_best_model_at_end
    never = Flags([*words, f"--{one}", "no"]).with_recipe("paper-base", True).training
    assert not never.load_best_model_at_end


@pytest.mark.parametrize("name", ["batch_tokens", "device_batch_tokens", "eval_sentences"])
def test_numbers_that_cannot_be_are_refused(flags, name, capsys):
    assert main(["train", *flags(**{name: 0})]) == 2
    assert f"--{name} must be at least 1, not 0" in capsys.readouterr().err


def test_checkpoints_that_may_miss_the_best_weights_are_refused(flags, capsys):
    """In a sentence that says what to give instead, where transformers' does not."""
    assert main(["train", *flags(save_steps=3, eval_steps=2)]) == 2
    assert "--save_steps 3 is no multiple of --eval_steps 2" in capsys.readouterr().err


def test_a_process_drives_one_gpu(tmp_path):
    """transformers would spread a batch over all of them by DataParallel."""
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert arguments.n_gpu == 0
    arguments._n_gpu = 4
    assert arguments.n_gpu == 1


def test_the_validation_set_is_of_the_corpus_language_where_its_name_says_none(flags, corpus, tmp_path):
    """sacreBLEU's tokeniser follows it."""
    lines = [corpus[f"val.{side}"].read_text(encoding="utf-8").splitlines() for side in ("en", "de")]
    (tmp_path / "val.tsv").write_text("".join(f"{en}\t{de}\n" for en, de in zip(*lines, strict=True)))
    words = without(without(flags(), "--validation_source"), "--validation_target")
    prepared = prepare(Flags([*words, "--validation_file", str(tmp_path / "val.tsv")]), tmp_path / "store")
    assert prepared.validation.target_language == "de"


def test_learned_positions_bound_what_is_learnt_from(flags, tmp_path):
    """Longer pairs are left out, and counted, rather than met in the midst of an epoch."""
    prepared = prepare(Flags(flags(learned_positions=20)), tmp_path / "store")
    assert max(*prepared.tokens["source_length"], *prepared.tokens["target_length"]) <= 20
    assert "pairs with more than 20 tokens on a side left out" in prepared.left_out
    with pytest.raises(UsageError, match="No pair is left: each has more than 2 tokens on a side"):
        prepare(Flags(flags(max_length=2)), tmp_path / "other")


def test_what_is_left_out_of_validation_is_said(flags, corpus, tmp_path):
    """Anew when it is read as it was kept; and nothing where nothing is."""
    assert "validation" not in prepare(Flags(flags()), tmp_path / "all").left_out
    lines = corpus["val.en"].read_text(encoding="utf-8").splitlines()
    corpus["val.en"].write_text("\n".join(["", *lines[1:]]) + "\n", encoding="utf-8")
    for _ in range(2):
        left_out = prepare(Flags(flags()), tmp_path / "kept").left_out
        assert left_out == "; for validation 11 pairs kept, 1 left out (an empty side: 1)"


@pytest.mark.parametrize(("score", "more_is_better"), [("bleu", True), ("eval_wer", False), ("perplexity", False)])
def test_the_best_score_is_the_least_where_it_counts_errors(tmp_path, score, more_is_better):
    """Of a run from Python: transformers takes all but a loss for scores of which more is better."""
    arguments = TrainingArguments(output_dir=str(tmp_path), metric_for_best_model=score, use_cpu=True)
    assert arguments.greater_is_better is more_is_better


def test_no_score_need_be_named(tmp_path):
    assert (
        TrainingArguments(output_dir=str(tmp_path), metric_for_best_model=None, use_cpu=True).greater_is_better
        is False
    )


def test_a_file_of_flags_may_say_no_have_empty_lists_and_small_numbers(tmp_path):
    """YAML takes `no` for false, and 1e-05, as JSON may have it, for text."""
    (tmp_path / "flags.yaml").write_text("eval_strategy: no\ninclude_for_metrics: []\n")
    read = Flags([str(tmp_path / "flags.yaml")]).namespace
    assert (read.eval_strategy, read.include_for_metrics) == ("no", [])
    (tmp_path / "flags.json").write_text('{"learning_rate": 1e-05, "lr_scheduler_kwargs": {"min_lr": 1e-05}}')
    read = Flags([str(tmp_path / "flags.json")]).namespace
    assert (read.learning_rate, read.lr_scheduler_kwargs) == (1e-5, {"min_lr": 1e-5})


def test_threads_that_others_would_hold_up_are_told_of(tmp_path, monkeypatch):
    """Not where there is one, or where the user has told them how to wait."""
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    monkeypatch.setattr(device.psutil, "cpu_percent", lambda interval: 48.0)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(device.torch, "get_num_threads", lambda: 1)
    assert device.others_share(arguments) == 0
    monkeypatch.setattr(device.torch, "get_num_threads", lambda: 2)
    assert device.others_share(arguments) == (0.48 if sys.platform.startswith("linux") else 0)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    assert device.others_share(arguments) == 0


@pytest.mark.parametrize("name", ["save_minutes", "max_minutes"])
def test_minutes_that_are_none_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"--{name} must be more than 0, not -1"):
        TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **{name: -1})


@pytest.mark.parametrize(
    ("given", "warm_up"),
    [
        ({"max_steps": 300}, 75),  # a quarter, where the recipe has 1,000
        ({"max_steps": 300, "warmup_steps": 200}, 200),
        ({"max_steps": 300, "recipe": "paper-base"}, 4000),  # of which the paper's rate is made
        ({"max_steps": 8000}, 1000),
    ],
)
def test_a_warm_up_that_nobody_asked_for_fits_the_run(flags, tmp_path, given, warm_up):
    assert prepare(Flags(flags(**given)), tmp_path / "store").arguments.training.warmup_steps == warm_up


def test_no_more_checkpoints_are_averaged_than_are_kept(flags):
    """Else the average of the last would have an old one, which is kept as the best."""
    words = [*flags(), "--save_total_limit", "2"]
    assert Flags(words).with_recipe("paper-base", with_validation=True).training.average_checkpoints == 2


def test_what_the_vocabulary_lacks_is_told(flags, corpus, tmp_path):
    """Word pieces know half as many characters as they have tokens, and spell no others as bytes."""
    for name in ("train", "val"):
        lines = corpus[f"{name}.de"].read_text().splitlines()
        corpus[f"{name}.de"].write_text("".join(f"{line} {chr(0xAC00 + i)}\n" for i, line in enumerate(lines)))
    words = flags(tokenizer_type="wordpiece", vocab_size=120)
    left_out = prepare(Flags(words), tmp_path).left_out
    assert re.search(r"; \d+ pairs hold what the vocabulary lacks \(<unk>\)", left_out)
    assert re.search(r"; \d+ validation pairs hold what the vocabulary lacks", left_out)
    assert "lacks" not in prepare(Flags(flags()), tmp_path / "bytes").left_out


def test_outputs_may_be_as_long_as_is_asked_for(flags, tmp_path):
    """A tree in brackets is far longer than its sentence: §6.3 has outputs of 300 tokens more than the input."""
    found = prepare(Flags(flags(max_tokens_beyond_input=300)), tmp_path)
    assert make_model(found.arguments, found.tokenizer).generation_config.max_tokens_beyond_input == 300


def test_what_the_run_cannot_tell_is_said(flags, corpus, tmp_path):
    """Of single words BLEU is 0 however good they are, and outputs end 50 tokens after their source would."""
    for name in ("train", "val"):
        lines = len(corpus[f"{name}.en"].read_text().splitlines())
        corpus[f"{name}.en"].write_text("cat\n" * lines)
        corpus[f"{name}.de"].write_text("".join("K" + "a" * (90 if i % 2 else 1) + "\n" for i in range(lines)))
    letters = without(flags(tokenizer_type="symbols", symbol_pattern="[a-zA-Z]"), "--vocab_size")
    found = prepare(Flags(letters), tmp_path / "letters")
    assert "80 targets have over 50 tokens more than their source, where outputs end" in found.left_out
    assert "--max_tokens_beyond_input 88" in found.left_out
    assert found.arguments.training.metric_for_best_model == "wer"
    found = prepare(Flags(without(flags(), "--vocab_size")), tmp_path / "subwords")
    assert "chrF decides which checkpoint is the best" in found.left_out
    assert (found.arguments.training.metric_for_best_model, found.arguments.training.greater_is_better) == (
        "chrf",
        True,
    )
