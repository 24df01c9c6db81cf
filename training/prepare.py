"""What a run needs before its first update: data, recipe, tokenizer, tokens and a model."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset
from transformer2017.configuration import Transformer2017Config, UsageError
from transformer2017.configuration.manifest import fault_of, write_manifest, written_whole
from transformer2017.modeling import Transformer2017ForConditionalGeneration
from transformer2017.modeling.output_length import TOKENS_BEYOND_INPUT
from transformers import PreTrainedTokenizerBase

from . import data, fine_tuning, saving, tokenization
from .arguments import RunArguments
from .evaluation import ValidationSet, tokenized_validation_set
from .flags import Flags
from .memory import fit_accumulation_to_memory
from .metrics import bleu_can_tell
from .recipes import LEAST_UPDATES, MOST_EPOCHS
from .subword_dropout import is_byte_pair_encoding
from .training_arguments import LESS_IS_BETTER

SENTENCES_LOOKED_AT = 100_000  # for characters that are no symbol


@dataclass
class Prepared:
    """What a run needs beside its model."""

    arguments: RunArguments
    corpus: data.Corpus
    tokenizer: PreTrainedTokenizerBase
    tokens: Dataset
    left_out: str  # for the user: pairs that are too long, and those of the validation set
    validation: ValidationSet | None


def prepare(flags: Flags, store: Path, goes_on: bool = False) -> Prepared:
    """The first stages: data, recipe, tokenizer, tokens; what they make is kept in the folder `store`.

    Args:
        goes_on: Whether weights have been learnt with the tokenizer that `store` holds, which therefore stays.
    """
    corpus = data.training_corpus(flags.data(), store)
    validation = data.validation_corpus(flags.data(), store)
    recipe = flags.recipe_for(len(corpus.pairs))
    arguments = flags.with_recipe(recipe, with_validation=validation is not None)
    tokenizer = make_tokenizer(corpus, arguments, store, goes_on)
    check_bpe_dropout(arguments.training.bpe_dropout, tokenizer)
    if validation is not None:
        validation.target_language = validation.target_language or corpus.target_language
        settle_best_score(arguments, tokenizer, validation)
    positions = learned_positions(arguments)
    tokens, left_out = data.tokenize(
        corpus.pairs,
        tokenizer,
        store / "train.tokens.arrow",
        min((bound for bound in (arguments.data.max_length, positions) if bound), default=None),
        with_words=bool(arguments.training.bpe_dropout),
    )
    settle_length(arguments, max(data.total(tokens, "source_length"), data.total(tokens, "target_length")))
    left_out += remarks(arguments, corpus, tokenizer, tokens)
    evaluated = None
    if validation is not None:
        file = store / "validation.tokens.arrow"
        evaluated = tokenized_validation_set(validation, tokenizer, file, positions)
        if "left out" in validation.report:
            left_out += f"; for validation {validation.report}"
        if evaluated.left_out:
            left_out += f"; of validation {evaluated.left_out}"
        if unknown := pairs_with(evaluated.tokens, tokenizer.unk_token_id):
            left_out += f"; {unknown:,} validation pairs hold what the vocabulary lacks ({tokenizer.unk_token})"
        if longer := len(validation.pairs) - len(evaluated.tokens):
            left_out += f"; {longer:,} validation pairs of more than {positions} tokens are not in the loss"
    return Prepared(arguments, corpus, tokenizer, tokens, left_out, evaluated)


def remarks(arguments: RunArguments, corpus: data.Corpus, tokenizer: PreTrainedTokenizerBase, tokens: Dataset) -> str:
    """What the user may not expect of this corpus: a best score of another kind, characters lost, outputs cut."""
    found = ""
    if arguments.training.metric_for_best_model == "chrf" and "metric_for_best_model" not in arguments.given:
        found += "; chrF decides which checkpoint is the best, as BLEU needs four words in a row"
    sentences = data.sentences(corpus.pairs, at_most=SENTENCES_LOOKED_AT)
    if lost := tokenization.told_of_characters_left_out(sentences, tokenizer):
        found += f"; {lost}" + (", in a part of the corpus" if 2 * len(corpus.pairs) > SENTENCES_LOOKED_AT else "")
    if unknown := pairs_with(tokens, tokenizer.unk_token_id):
        found += f"; {unknown:,} pairs hold what the vocabulary lacks ({tokenizer.unk_token})"
    bound = tokens_beyond_input(arguments)
    beyond = pc.subtract(tokens.data.column("target_length"), tokens.data.column("source_length"))
    if bound is not None and (longer := pc.sum(pc.greater(beyond, bound)).as_py()):
        found += (
            f"; {longer:,} targets have over {bound} tokens more than their source, where outputs end "
            f"(give --max_tokens_beyond_input {pc.max(beyond).as_py()} for all of them)"
        )
    return found


def pairs_with(tokens: Dataset, token: int | None) -> int:
    """How many pairs have a token on either side."""
    found = np.zeros(len(tokens), bool)
    for side in ("input_ids", "labels") if token is not None else ():
        column, start = tokens.data.column(side), 0
        for chunk in column.chunks:
            ends = np.asarray(chunk.value_lengths()).cumsum()
            places = np.flatnonzero(np.asarray(chunk.flatten()) == token)
            found[start + np.searchsorted(ends, places, side="right")] = True
            start += len(chunk)
    return int(found.sum())


def tokens_beyond_input(arguments: RunArguments) -> int | None:
    """How many tokens longer than its source an output may be, if there is such a bound."""
    if (asked := arguments.training.max_tokens_beyond_input) is not None:
        return asked
    if arguments.model.model:
        return fine_tuning.tokens_beyond_input(arguments.model.model)
    return TOKENS_BEYOND_INPUT


def learned_positions(arguments: RunArguments) -> int | None:
    """Tokens that a side may have, where the model learns a vector for each position; None where it does not."""
    config = fine_tuning.config_to_go_on(arguments) if arguments.model.model else config_of(arguments)
    return getattr(config, "learned_positions", None)


def make_tokenizer(
    corpus: data.Corpus, arguments: RunArguments, store: Path, goes_on: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of the model to go on from, the one that flags name, this run's own from before, or a new one."""
    fine_tuning.refuse_other_sizes(arguments)
    if arguments.model.model:
        return fine_tuning.tokenizer_of(arguments)
    if arguments.tokenizer.tokenizer:
        return tokenization.load_tokenizer(arguments.tokenizer.tokenizer)
    kept = store / "tokenizer"
    if (corpus.reused or goes_on) and fault_of(kept) is None:
        if not corpus.reused:
            corpus.report += "; read anew, for this run's own tokenizer"
        return tokenization.load_tokenizer(str(kept))
    tokenizer = tokenization.train_tokenizer(
        data.sentences(corpus.pairs),
        arguments.tokenizer,
        arguments.model.vocab_size,
        exact="vocab_size" in arguments.given,
    )
    shutil.rmtree(kept, ignore_errors=True)
    with written_whole(kept) as folder:
        tokenizer.save_pretrained(folder)
        write_manifest(folder)
    return tokenizer


def check_bpe_dropout(rate: float, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses subword dropout before the corpus is encoded for it.

    Raises:
        UsageError: If the rate is none, or the tokenizer has no merges.
    """
    if not 0 <= rate < 1:
        raise UsageError(f"--bpe_dropout is a rate from 0 up to, but not including, 1, not {rate:g}.")
    if rate and not is_byte_pair_encoding(tokenizer):
        raise UsageError("--bpe_dropout needs a tokenizer of byte-pair encoding (--tokenizer_type bpe).")


def settle_length(arguments: RunArguments, tokens: float) -> None:
    """Settles how long a run is, where the user has not: a small corpus gets more epochs than the recipe has.

    A warm-up to a given rate that nobody asked for takes a quarter of the run at most. The paper's rate follows from
    its own warm-up, which stays (§5.3).

    Args:
        tokens: Of an epoch, on its longer side.
    """
    training, updates_of_epoch = arguments.training, max(1.0, tokens / arguments.training.batch_tokens)
    if training.max_steps <= 0 and "num_train_epochs" not in arguments.given:
        needed = min(math.ceil(LEAST_UPDATES / updates_of_epoch), MOST_EPOCHS)
        training.num_train_epochs = max(training.num_train_epochs, needed)
    updates = training.max_steps if training.max_steps > 0 else training.num_train_epochs * updates_of_epoch
    if training.learning_rate is not None and "warmup_steps" not in arguments.given:
        training.warmup_steps = min(training.warmup_steps, max(1, updates // 4))


def settle_best_score(arguments: RunArguments, tokenizer: PreTrainedTokenizerBase, validation: data.Corpus) -> None:
    """Chooses the score that makes a checkpoint the best by what the tokenizer makes, unless the user has.

    That is BLEU, or chrF where BLEU would be 0 for the references themselves.

    Raises:
        UsageError: If the user chose one that this run's evaluations do not give.
    """
    training, of_symbols = arguments.training, tokenization.is_symbol_table(tokenizer)
    translations = (["wer", "per"] if of_symbols else ["bleu", "chrf"]) if training.predict_with_generate else []
    known = [*translations, "loss", "perplexity"]
    asked = known[0]
    if "metric_for_best_model" in arguments.given:
        asked = training.metric_for_best_model
    elif asked == "bleu":
        references = validation.pairs["target"][: training.eval_sentences]
        asked = "bleu" if bleu_can_tell(references, validation.target_language) else "chrf"
    chosen = asked.removeprefix("eval_")
    if chosen not in known:
        raise UsageError(f"--metric_for_best_model {chosen} is no score of this run, which has {', '.join(known)}.")
    training.metric_for_best_model = chosen
    training.greater_is_better = chosen not in LESS_IS_BETTER


def config_of(arguments: RunArguments, **fields: int) -> Transformer2017Config:
    """The sizes that the flags ask for; `fields` go before them.

    Raises:
        UsageError: If they do not fit together.
    """
    try:
        return Transformer2017Config.from_preset(arguments.model.preset, **{**arguments.model.overrides(), **fields})
    except ValueError as error:
        raise UsageError(str(error)) from error


def make_model(arguments: RunArguments, tokenizer: PreTrainedTokenizerBase) -> Transformer2017ForConditionalGeneration:
    """The model to go on from, or a new one of the sizes asked for, with the paper's way of decoding."""
    if arguments.model.model:
        model = fine_tuning.load_to_go_on(arguments, tokenizer)
        fine_tuning.settle_rate(arguments, model.config.d_model)
        if (asked := arguments.training.max_tokens_beyond_input) is not None:
            model.generation_config.max_tokens_beyond_input = asked
            model.generation_config.max_length = model.generation_config.max_new_tokens = None  # which go before it
        return model
    start = tokenizer.pad_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    fields = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": start,
    }
    config = config_of(arguments, **fields)
    model = Transformer2017ForConditionalGeneration(config)
    model.generation_config = saving.paper_generation_config(config, tokens_beyond_input(arguments))
    return model


def settle_accumulation(
    arguments: RunArguments, model: Transformer2017ForConditionalGeneration, note: Path | None = None
) -> None:
    """Has a device take an update in parts where memory asks for it and the user has not said how many."""
    if not {"device_batch_tokens", "gradient_accumulation_steps"} & arguments.given.keys():
        fit_accumulation_to_memory(arguments.training, model, note)
