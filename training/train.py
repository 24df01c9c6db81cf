"""One run, stage by stage."""

from pathlib import Path

from transformer2017.configuration import Transformer2017Config, UsageError
from transformer2017.modeling import Transformer2017ForConditionalGeneration

from . import averaging, data, saving, tokenization
from .arguments import Flags, RunArguments
from .evaluation import translate_lines, translation_scores
from .trainer import Transformer2017Trainer, ValidationSet
from transformers import EarlyStoppingCallback, PreTrainedTokenizerBase, set_seed


def train(argv: list[str]) -> Path:
    """Trains as the flags say, and returns the model's folder."""
    flags = Flags(argv)
    store = flags.output_dir() / "_data"
    corpus = data.training_corpus(flags.data(), store)
    validation = data.validation_corpus(flags.data(), store)
    arguments = flags.with_recipe(flags.recipe_for(len(corpus.pairs)))
    say(f"data: {corpus.report}")
    say(f"recipe: {arguments.training.recipe}")

    tokenizer = make_tokenizer(corpus, arguments)
    tokens, report = data.tokenize(corpus.pairs, tokenizer, store / "train.tokens.arrow", arguments.data.max_length)
    say(f"tokens: {sum(tokens.data.column('target_length').to_pylist()):,} target tokens; vocabulary {len(tokenizer):,}. {report}")

    set_seed(arguments.training.seed)
    model = make_model(arguments, tokenizer)
    say(f"model: {model.num_parameters():,} parameters")
    trainer = make_trainer(model, arguments, tokens, validation_set(validation, tokenizer, store), tokenizer)
    trainer.train(resume_from_checkpoint=None)
    finish(trainer, tokenizer, arguments)
    return flags.output_dir()


def say(line: str) -> None:
    print(line, flush=True)


def make_tokenizer(corpus: data.Corpus, arguments: RunArguments) -> PreTrainedTokenizerBase:
    if arguments.tokenizer.tokenizer:
        return tokenization.load_tokenizer(arguments.tokenizer.tokenizer)
    lines = (line for rows in corpus.pairs.iter(1000) for line in rows["source"] + rows["target"])
    return tokenization.train_tokenizer(lines, arguments.tokenizer, arguments.model.vocab_size or 8000)


def make_model(arguments: RunArguments, tokenizer: PreTrainedTokenizerBase) -> Transformer2017ForConditionalGeneration:
    fields = {**arguments.model.overrides(), "vocab_size": len(tokenizer)}
    if arguments.training.label_smoothing_factor:
        fields.setdefault("label_smoothing", arguments.training.label_smoothing_factor)
    arguments.training.label_smoothing_factor = 0.0
    config = Transformer2017Config.from_preset(
        arguments.model.preset,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.bos_token_id,
        **fields,
    )
    model = Transformer2017ForConditionalGeneration(config)
    model.generation_config = saving.paper_generation_config(model)
    return model


def validation_set(corpus, tokenizer, store):
    if corpus is None:
        return None
    tokens, _ = data.tokenize(corpus.pairs, tokenizer, store / "validation.tokens.arrow", None)
    return ValidationSet(list(corpus.pairs["source"]), list(corpus.pairs["target"]), tokens, corpus.target_language)


def make_trainer(model, arguments, tokens, validation, tokenizer):
    callbacks = []
    if arguments.training.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(arguments.training.early_stopping_patience))
    return Transformer2017Trainer(
        model=model, args=arguments.training, train_dataset=tokens, validation=validation, processing_class=tokenizer, callbacks=callbacks
    )


def finish(trainer, tokenizer, arguments):
    model = trainer.model
    folder = Path(arguments.training.output_dir)
    v = trainer.validation
    if v is not None:
        def score():
            return translation_scores(translate_lines(model, tokenizer, v.sources), v.references, v.target_language)["bleu"]
        best_weights = {k: t.clone() for k, t in model.state_dict().items()}
        best = score()
        say(f"best checkpoint: validation BLEU {best:.2f} (beam 4)")
        if arguments.training.average_checkpoints > 1:
            averaged = averaging.average_weights(averaging.last_checkpoints(folder, arguments.training.average_checkpoints))
            model.load_state_dict(averaged, strict=False)
            model.tie_weights()
            average = score()
            say(f"average of the last {arguments.training.average_checkpoints}: validation BLEU {average:.2f} (beam 4)")
            if average < best:
                model.load_state_dict(best_weights)
    saving.save_model(model, tokenizer, folder)
