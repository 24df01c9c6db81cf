"""One run, stage by stage: data, tokenizer, tokens, model, training, averaging, the model's folder."""

import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from safetensors import SafetensorError
from transformer2017.configuration import RunError, Stopped, in_a_line
from transformer2017.modeling import Transformer2017ForConditionalGeneration
from transformer2017.modeling.freed_memory import keep_freed_memory
from transformers import set_seed
from transformers.utils.logging import disable_progress_bar

from . import averaging, card, checkpoints, data, device, hub, saving, stopping
from .arguments import RunArguments
from .evaluation import ValidationSet, translate_lines
from .flags import Flags
from .prepare import Prepared, make_model, prepare, settle_accumulation
from .progress import draw_curves
from .run_folder import RunFolder
from .sharding import whole
from .signals import StopOnSignal, StopSignals
from .trainer import Transformer2017Trainer
from .training_arguments import LESS_IS_BETTER


def train(argv: list[str]) -> Path:
    """Trains a model as the flags say.

    Returns:
        The model's folder, which is the run's.
    """
    keep_freed_memory()
    disable_progress_bar()  # those of transformers, one for each file it writes
    flags = Flags(argv)
    with StopSignals() as signals, RunFolder(flags.output_dir()) as folder:
        run(flags, folder, signals)
    return folder.path


def run(flags: Flags, folder: RunFolder, signals: StopSignals) -> None:
    """The stages, in a folder that is locked from its claim on."""
    with flags.processes().main_process_first():
        prepared = None if claim(folder, flags) else prepare(flags, folder.store, goes_on=folder.has_learnt)
    if prepared is None:
        tell_of_finished(folder, flags)
        leave_other_processes()
        return
    corpus, arguments, tokenizer, tokens = prepared.corpus, prepared.arguments, prepared.tokenizer, prepared.tokens

    upload = hub.Upload(arguments.training)
    set_seed(arguments.training.seed)
    model = make_model(arguments, tokenizer)
    say(f"data        {corpus.report}{prepared.left_out}")
    say(f"tokens      {data.total(tokens, 'target_length'):,} target tokens, a vocabulary of {len(tokenizer):,}")
    settle_accumulation(arguments, model, folder.store / "parts.json")
    say(f"model       {describe(model)}")
    say(f"recipe      {arguments.describe()}")
    if idle := device.idle_gpus(arguments.training):
        say(f"devices     {idle} more GPUs lie idle: torchrun --nproc_per_node {idle + 1} -m transformer2017 train")
    if (share := device.others_share(arguments.training)) > 0.25:
        say(f"threads     others take {share:.0%} of the processor: GOMP_SPINCOUNT=1000 before the command may help")
    trainer = Transformer2017Trainer(
        model, arguments.training, prepared.validation, train_dataset=tokens, processing_class=tokenizer
    )
    trainer.add_callback(StopOnSignal(trainer, signals))
    fit(trainer, folder)
    if signals.received:
        leave_other_processes()
        raise Stopped(signals.received, "stopped, with a checkpoint: the same command goes on from it")
    trainer.model = whole(trainer.model)
    leave_other_processes()  # the one that goes on alone may take longer than others wait for it
    if trainer.is_world_process_zero():
        scores = choose_weights(trainer, arguments)
        finish(trainer, prepared, scores, folder, upload.repo_id if upload.wanted else None)
        if upload.wanted:
            say(f"uploaded: {upload.push(folder.path)}")


def leave_other_processes() -> None:
    """Ends what the processes of a run talk by: left to the interpreter's end, its threads may abort the process."""
    PartialState().destroy_process_group()


def say(line: str) -> None:
    """Tells the user, once however many processes there are."""
    if PartialState().is_main_process:
        print(line, flush=True)


def claim(folder: RunFolder, flags: Flags) -> bool:
    """Makes the folder this run's; whether the run is finished already."""
    if PartialState().is_main_process:
        resume = flags.namespace.resume_from_checkpoint not in (None, "", "false", "False")
        folder.claim(flags.as_given(), overwrite=flags.namespace.overwrite_output_dir, resume=resume)
    return folder.is_finished


def tell_of_finished(folder: RunFolder, flags: Flags) -> None:
    """Says where the model of a finished run is, and uploads it if that is asked for now."""
    say(f"This run is finished; its model is in {folder.path}. To train it anew: --overwrite_output_dir.")
    if flags.namespace.push_to_hub and PartialState().is_main_process:
        upload = hub.Upload(flags.namespace)
        card.readdress(folder.path / "README.md", upload.repo_id)
        say(f"uploaded: {upload.push(folder.path)}")


def describe(model: Transformer2017ForConditionalGeneration) -> str:
    """The model's size in a line."""
    c = model.config
    return (
        f"{c.encoder_layers}+{c.decoder_layers} layers, d_model {c.d_model}, d_ff {c.d_ff}, {c.num_heads} heads, "
        f"dropout {c.dropout:g}: {model.num_parameters() / 1e6:.1f}M parameters"
    )


def fit(trainer: Transformer2017Trainer, folder: RunFolder) -> None:
    """Trains, from the last whole checkpoint if there is one, and ends with the best weights where asked."""
    checkpoint, torn = checkpoints.last_whole_checkpoint(folder.path)
    for one in torn:
        say(f"{one} is torn and is not used.")
    if checkpoint is None:
        trainer.train()
        return
    checkpoints.refuse_other_vocabulary(checkpoint, trainer.model.config.vocab_size)
    state = checkpoints.state_of(checkpoint)
    *_, max_steps = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    if not stopping.is_over(state, trainer.args, max_steps):
        say(f"going on from {checkpoint}")
        trainer.train(resume_from_checkpoint=str(checkpoint))
        return
    trainer.state = state
    best = checkpoints.best_of(folder.path, state) if trainer.args.load_best_model_at_end else None
    trainer._load_from_checkpoint(str(best or checkpoint))


def choose_weights(trainer: Transformer2017Trainer, arguments: RunArguments) -> dict[str, Any]:
    """Takes the average of the last checkpoints (§6.1), unless it does worse on the validation set.

    Returns:
        The validation scores with beam search, what the weights are, and whether they were chosen by such scores.
    """
    model, validation, count = trainer.model, trainer.validation, arguments.training.average_checkpoints
    averaged = None
    if count > 1 and len(checkpoints.checkpoints_of(Path(arguments.training.output_dir))) > 1:
        paths = averaging.last_checkpoints(Path(arguments.training.output_dir), count)
        averaged = averaging.average_weights(paths)
        count = len(paths)
    if validation is None:
        if averaged is not None:
            averaging.set_weights(model, averaged)
        return {"weights": f"average of the last {count} checkpoints" if averaged is not None else "last update"}
    single = {name: weight.clone() for name, weight in model.state_dict().items()}
    best = trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint
    label = "best checkpoint" if best else "last update"
    chosen = bool(best) or averaged is not None
    scores = {"weights": label, "chosen": chosen, **final_scores(trainer, validation)}
    say(f"{label}: {card.one_line(scores)}")
    if averaged is None:
        return scores
    averaging.set_weights(model, averaged)
    label = f"average of the last {count} checkpoints"
    averaged_scores = {"weights": label, "chosen": chosen, **final_scores(trainer, validation)}
    say(f"{label}: {card.one_line(averaged_scores)}")
    asked = (trainer.args.metric_for_best_model or "").removeprefix("eval_")
    metric = asked if asked in scores else next(name for name in ("bleu", "wer") if name in scores)
    single_stands, averaged_stands = (
        stopping.standing(each, metric, metric not in LESS_IS_BETTER) for each in (scores, averaged_scores)
    )
    if averaged_stands >= single_stands:
        return averaged_scores
    averaging.set_weights(model, single)
    return scores


def final_scores(trainer: Transformer2017Trainer, validation: ValidationSet) -> dict[str, Any]:
    """Scores of the model as it will be used: with the beam search of its generation config."""
    return validation.score(translate_lines(trainer.model, trainer.processing_class, validation.sources))


def finish(
    trainer: Transformer2017Trainer,
    prepared: Prepared,
    scores: dict[str, Any],
    folder: RunFolder,
    address: str | None = None,
) -> None:
    """Writes the model's folder: weights, code, tokenizer, generation config, card and curves."""
    curves = folder.path / "curves.png"
    draw_curves(trainer.state.log_history, trainer.args.metric_for_best_model, curves)
    text = card.model_card(trainer.model, prepared, scores, trainer.state, curves.name, address)
    try:
        saving.save_model(trainer.model, trainer.processing_class, folder.path, text)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"The model could not be written to {folder.path} ({in_a_line(error)}); its checkpoints are whole, and "
            "the same command goes on from the last."
        ) from error
    folder.finish()
    print(f"The model is in {folder.path}", file=sys.stdout, flush=True)
