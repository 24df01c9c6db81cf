"""A run that was stopped ends as if it had not been: the oracle is the uninterrupted run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformer2017.configuration import RunError, Stopped, UsageError
from transformer2017.training import trainer as trainer_module
from transformer2017.training.checkpoints import last_whole_checkpoint, rotate, state_of
from transformer2017.training.run_folder import RunFolder
from transformer2017.training.train import train
from transformers import TrainerCallback


class Stop(Exception):
    """Stands for a run that is killed."""


def stop_at(update: int, monkeypatch) -> None:
    """Makes the next run end, without warning, in the middle of an update."""

    class StopAt(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            if state.global_step == update:
                raise Stop

    class Stopped(trainer_module.Transformer2017Trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.add_callback(StopAt())

    monkeypatch.setattr("transformer2017.training.train.Transformer2017Trainer", Stopped)


def assert_same_weights(one: Path, other: Path) -> None:
    left, right = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert left.keys() == right.keys()
    for name, weight in left.items():
        assert torch.equal(weight, right[name]), name


@pytest.mark.parametrize("update", [2, 6, 9], ids=["before any checkpoint", "in an epoch", "after two checkpoints"])
def test_same_command_ends_with_the_weights_of_the_uninterrupted_run(flags, monkeypatch, update):
    """Dropout, batch order, optimizer, schedule and the choice of the best checkpoint all go on exactly."""
    whole = train(flags("whole"))
    with monkeypatch.context() as patch:
        stop_at(update, patch)
        with pytest.raises(Stop):
            train(flags("stopped"))
    stopped = train(flags("stopped"))
    assert_same_weights(whole, stopped)
    assert_same_weights(whole / "checkpoint-12", stopped / "checkpoint-12")


def test_subword_dropout_goes_on_exactly(flags, monkeypatch):
    """In the middle of the second epoch: what is drawn follows from seed, epoch and pair."""
    settings = {"bpe_dropout": 0.3, "batch_tokens": 768}
    whole = train(flags("whole", **settings))
    with monkeypatch.context() as patch:
        stop_at(9, patch)
        with pytest.raises(Stop):
            train(flags("stopped", **settings))
    stopped = train(flags("stopped", **settings))
    assert_same_weights(whole, stopped)
    assert 1 < state_of(stopped / "checkpoint-8").epoch < 2


def test_muon_goes_on_exactly(flags, monkeypatch):
    """Its state is a checkpoint's as Adam's is."""
    whole = train(flags("whole", muon=True))
    with monkeypatch.context() as patch:
        stop_at(9, patch)
        with pytest.raises(Stop):
            train(flags("stopped", muon=True))
    assert_same_weights(whole, train(flags("stopped", muon=True)))


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "trainer_state.json", "manifest.json"])
def test_torn_checkpoint_is_passed_over(flags, monkeypatch, capsys, file):
    """A file that was not written to its end is found out, and the checkpoint before it is used."""
    whole = train(flags("whole"))
    with monkeypatch.context() as patch:
        stop_at(9, patch)
        with pytest.raises(Stop):
            train(flags("stopped"))
    torn = whole.with_name("stopped") / "checkpoint-8" / file
    torn.write_bytes(torn.read_bytes()[:-7])
    stopped = train(flags("stopped"))
    assert "checkpoint-8 is torn" in capsys.readouterr().out
    assert_same_weights(whole, stopped)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_update_with_a_checkpoint_of_its_own(flags, monkeypatch, number):
    """Between two checkpoints of the schedule: it is kept aside, so that the average does not count it."""
    whole = train(flags("whole"))

    class Signalled(trainer_module.Transformer2017Trainer):
        def training_step(self, *args, **kwargs):
            if self.state.global_step == 5:
                os.kill(os.getpid(), number)
            return super().training_step(*args, **kwargs)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr("transformer2017.training.train.Transformer2017Trainer", Signalled)
        with pytest.raises(Stopped) as stopped:
            train(flags("stopped"))
    assert stopped.value.number == number
    run = whole.with_name("stopped")
    assert sorted(path.name for path in run.rglob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]
    assert (run / "_run" / "stopped" / "checkpoint-6" / "manifest.json").is_file()
    assert_same_weights(whole, train(flags("stopped")))
    assert not list((run / "_run" / "stopped").iterdir())
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_signal_in_an_epoch_leaves_undone_what_is_due_at_its_end(flags, monkeypatch):
    """Evaluations and checkpoints by the epoch: the run that goes on makes them where the uninterrupted one does."""
    settings = {"eval_strategy": "epoch", "save_strategy": "epoch", "batch_tokens": 768}
    whole = train(flags("whole", **settings))

    class Signalled(trainer_module.Transformer2017Trainer):
        def training_step(self, *args, **kwargs):
            if self.state.global_step == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return super().training_step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("transformer2017.training.train.Transformer2017Trainer", Signalled)
        with pytest.raises(Stopped):
            train(flags("stopped", **settings))
    run = whole.with_name("stopped")
    assert [path.parent.name for path in run.rglob("checkpoint-*")] == ["stopped"]
    assert_same_weights(whole, train(flags("stopped", **settings)))
    checkpoints = [sorted(path.name for path in folder.glob("checkpoint-*")) for folder in (whole, run)]
    assert checkpoints[0] == checkpoints[1]


@pytest.fixture
def worse_and_worse(monkeypatch):
    """The first evaluation is the best."""

    def fall(trainer, model, **generation):
        return {"bleu": 50.0 - trainer.state.global_step}

    monkeypatch.setattr(trainer_module.Transformer2017Trainer, "_validation_scores", fall)


@pytest.mark.parametrize(
    "settings",
    [{"save_total_limit": 1, "eval_steps": 1, "save_steps": 1}, {"save_strategy": "best", "eval_steps": 1}],
    ids=["one checkpoint", "the best ones"],
)
@pytest.mark.usefixtures("worse_and_worse")
def test_a_signals_checkpoint_is_kept_although_another_is_the_best(flags, monkeypatch, tmp_path, settings):
    """Neither the limit nor the strategy may cost the run its way back."""

    class Signalled(trainer_module.Transformer2017Trainer):
        def training_step(self, *args, **kwargs):
            if self.state.global_step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().training_step(*args, **kwargs)

    monkeypatch.setattr("transformer2017.training.train.Transformer2017Trainer", Signalled)
    with pytest.raises(Stopped):
        train(flags("stopped", average_checkpoints=0, **settings))
    last, torn = last_whole_checkpoint(tmp_path / "stopped")
    assert (last.name, torn) == ("checkpoint-6", [])
    assert (tmp_path / "stopped" / "checkpoint-1").is_dir()


def test_a_run_goes_on_at_the_rate_that_is_asked_for_now(flags):
    """A run whose loss is no number is told to lower its rate: that must be heard, with momentum and schedule kept."""
    settings = {"lr_scheduler_type": "linear", "warmup_steps": 2, "weight_decay": 0.1}
    train(flags("run", learning_rate=0.01, max_steps=8, **settings))
    again = flags("run", learning_rate=0.001, max_steps=16, **{**settings, "weight_decay": 0.3})
    folder = train([*again, "--resume_from_checkpoint", "true"])
    rates = {e["step"]: e["learning_rate"] for e in state_of(folder / "checkpoint-16").log_history if "loss" in e}
    assert rates[6] == pytest.approx(0.01 * (8 - 5) / 6)  # of the update itself, which begins with 5 done
    assert rates[10] == pytest.approx(0.001 * (16 - 9) / 14)
    optimizer = torch.load(folder / "checkpoint-16" / "optimizer.pt")
    assert {group["weight_decay"] for group in optimizer["param_groups"]} == {0.3, 0.0}
    assert {float(state["step"]) for state in optimizer["state"].values()} == {16.0}


def test_rotation_does_not_count_what_is_torn(tmp_path):
    """A checkpoint torn by a kill comes after the one just written, which stays."""
    for step, is_torn in ((5, True), (10, False), (15, False), (20, False), (25, True)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if not is_torn:
            (tmp_path / f"checkpoint-{step}" / "manifest.json").write_text("{}")
    rotate(tmp_path, 1, str(tmp_path / "checkpoint-10"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-20", "checkpoint-25"]


def test_a_signals_checkpoint_is_no_less_a_run_to_lose(tmp_path):
    """Other flags do not clear it away, before the first checkpoint of the schedule too."""
    aside = tmp_path / "run" / "_run" / "stopped" / "checkpoint-3"
    with RunFolder(tmp_path / "run") as folder:
        folder.claim({"seed": 1}, overwrite=False, resume=False)
        aside.mkdir(parents=True)
    with RunFolder(tmp_path / "run") as folder, pytest.raises(UsageError, match=r"other flags \(--seed\)"):
        folder.claim({"seed": 2}, overwrite=False, resume=False)
    with RunFolder(tmp_path / "run") as folder:
        folder.claim({"seed": 2}, overwrite=False, resume=True)
    assert aside.is_dir()


def test_a_run_that_goes_on_keeps_its_tokenizer_and_logs_as_it_is_told(flags, corpus, capsys):
    """Where its text has changed meanwhile, too: new subwords would give old weights another meaning."""
    run = train(flags("run"))
    before = (run / "tokenizer.json").read_bytes()
    for side in ("en", "de"):
        with open(corpus[f"train.{side}"], "a", encoding="utf-8") as file:
            file.write("quixotic zephyr quixotic zephyr\n" * 40)
    train(flags("run", max_steps=16, logging_steps=1, resume_from_checkpoint="true"))
    assert "200 pairs kept; read anew, for this run's own tokenizer" in capsys.readouterr().out
    assert (run / "tokenizer.json").read_bytes() == before
    logged = [entry["step"] for entry in state_of(run / "checkpoint-16").log_history if "loss" in entry]
    assert logged == [2, 4, 6, 8, 10, 12, 13, 14, 15, 16]


def test_a_run_that_was_moved_before_it_was_finished_is_finished(flags, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr("transformer2017.training.train.finish", lambda *_: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            train(flags("run"))
    (tmp_path / "run").rename(tmp_path / "moved")
    whole = train(flags("whole"))
    assert_same_weights(whole, train(flags("moved")))


@pytest.mark.usefixtures("worse_and_worse")
def test_a_run_that_was_moved_half_way_finds_its_best_checkpoint(flags, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        stop_at(9, patch)
        with pytest.raises(Stop):
            train(flags("run"))
    (tmp_path / "run").rename(tmp_path / "moved")
    whole, moved = train(flags("whole")), train(flags("moved"))
    best = json.loads((moved / "checkpoint-12" / "trainer_state.json").read_text())["best_model_checkpoint"]
    assert Path(best) == moved / "checkpoint-4"
    assert_same_weights(whole, moved)


def test_a_folder_is_one_runs_at_a_time(tmp_path):
    with RunFolder(tmp_path / "run") as first:
        first.claim({"seed": 1}, overwrite=False, resume=False)
        for overwrite in (False, True):
            with RunFolder(tmp_path / "run") as second, pytest.raises(UsageError, match="Another process is training"):
                second.claim({"seed": 1}, overwrite=overwrite, resume=False)
    with RunFolder(tmp_path / "run") as third:
        third.claim({"seed": 1}, overwrite=False, resume=False)


def test_memory_that_ran_out_is_told_with_a_way_on(flags, monkeypatch):
    """The error is torch's own."""

    class Greedy(trainer_module.Transformer2017Trainer):
        def compute_loss(self, *args, **kwargs):
            if self.state.global_step == 5:
                torch.empty(2**52, dtype=torch.uint8)
            return super().compute_loss(*args, **kwargs)

    monkeypatch.setattr("transformer2017.training.train.Transformer2017Trainer", Greedy)
    with pytest.raises(RunError, match=r"Memory ran out .*--device_batch_tokens.* at update 6.*checkpoint-4"):
        train(flags("run"))


def test_loss_that_is_not_a_number_stops_the_run(flags, monkeypatch):
    """The user reads why, and the last good checkpoint is left."""

    class Broken(trainer_module.Transformer2017Trainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            return loss * float("nan") if self.state.global_step == 5 and self.model.training else loss

    monkeypatch.setattr("transformer2017.training.train.Transformer2017Trainer", Broken)
    with pytest.raises(RunError, match=r"loss of update 6 is nan.*checkpoint-4"):
        train(flags("run"))


def test_full_disk_stops_the_run(flags, monkeypatch, tmp_path):
    """What was half written is gone, and the last good checkpoint is left."""
    save = torch.save

    def full(value, file, *args, **kwargs):
        if "checkpoint-8" in str(file) and "optimizer" in str(file):
            raise OSError(28, "No space left on device")
        save(value, file, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"checkpoint-8 could not be written .*No space left.*checkpoint-4"):
        train(flags("run"))
    assert not (tmp_path / "run" / "checkpoint-8").exists()


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [4, 8])
def test_killed_process_ends_with_the_weights_of_the_uninterrupted_run(flags, tmp_path, checkpoint):
    """SIGKILL, as soon as a checkpoint's first file is there, so that it may be torn; then the same command again."""
    command = [sys.executable, "-m", "transformer2017", "train"]
    # A score that stays at 0 would end the run early, before the last checkpoint that is compared.
    steps = {"max_steps": 40, "average_checkpoints": 0, "early_stopping_patience": 100}
    subprocess.run([*command, *flags("whole", **steps)], check=True, timeout=300)
    killed = subprocess.Popen([*command, *flags("killed", **steps)])
    awaited = tmp_path / "killed" / f"checkpoint-{checkpoint}" / "model.safetensors"
    end = time.monotonic() + 300
    while not awaited.exists() and time.monotonic() < end:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    subprocess.run([*command, *flags("killed", **steps)], check=True, timeout=300)
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")
    assert_same_weights(tmp_path / "whole" / "checkpoint-40", tmp_path / "killed" / "checkpoint-40")
