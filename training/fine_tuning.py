"""Going on from a trained model: its weights and its tokenizer, with new words added to both if asked."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformer2017.configuration import UsageError, in_a_line
from transformer2017.configuration.manifest import check_folder
from transformer2017.configuration.token_numbers import saved_tokenizer
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .arguments import RunArguments
from .evaluation import load_model
from .schedule import peak_learning_rate
from .tokenization import SPACE

# What may change without changing what the weights mean.
RATES = {"dropout", "attention_dropout", "activation_dropout", "label_smoothing"}
OF_THE_TOKENIZER = {"tokenizer", "tokenizer_type", "symbol_pattern"}
PART_OF_THE_RATE = 0.1  # of what a recipe has for a new model: at all of it, one forgets (docs/how-to/fine-tune.md)


def asked_rates(arguments: RunArguments) -> dict[str, object]:
    """The rates that the user asked for, and not a recipe's: a trained model has its own."""
    given = {*arguments.given, *({"label_smoothing"} if "label_smoothing_factor" in arguments.given else ())}
    return {name: value for name, value in arguments.model.overrides().items() if name in RATES & given}


def settle_rate(arguments: RunArguments, d_model: int) -> None:
    """Takes a part of the recipe's rate, or of the paper's (§5.3), unless the user has given one."""
    training = arguments.training
    if "learning_rate" in arguments.given or (training.learning_rate is None and 0 < training.warmup_steps < 1):
        return  # a warm-up that is a part of the run has no rate of the paper's: the trainer says so
    rate = training.learning_rate or peak_learning_rate(d_model, training.warmup_steps)
    training.learning_rate = PART_OF_THE_RATE * rate


def refuse_other_sizes(arguments: RunArguments) -> None:
    """Raises where flags ask for another model or tokenizer than the one that --model names.

    Raises:
        UsageError: Naming the flags.
    """
    if arguments.model.model is None:
        if arguments.tokenizer.add_words:
            raise UsageError("--add_words adds to a trained model's vocabulary: give --model FOLDER too.")
        return
    sizes = {"preset", *arguments.model.overrides()} - RATES | OF_THE_TOKENIZER
    if refused := sorted(sizes & set(arguments.given)):
        raise UsageError(f"--model has its own sizes and tokenizer: leave out {', '.join('--' + n for n in refused)}.")


def tokenizer_of(arguments: RunArguments) -> PreTrainedTokenizerBase:
    """The tokenizer of the model that --model names, with the words of --add_words."""
    name = str(arguments.model.model)
    check_folder(name)
    try:
        tokenizer = saved_tokenizer(name)
    except Exception as error:
        raise UsageError(f"--model {name} has no tokenizer that can be loaded: {in_a_line(error)}") from error
    return add_words(tokenizer, Path(arguments.tokenizer.add_words)) if arguments.tokenizer.add_words else tokenizer


def add_words(tokenizer: PreTrainedTokenizerBase, file: Path) -> PreTrainedTokenizerBase:
    """Makes each word of a file, one a line, a token of its own; all other words keep their tokens.

    A word of byte-pair encoding becomes an entry that whole words are looked up in before any merge. In the midst of a
    word, or behind a punctuation mark, it is made of subwords as before.

    Raises:
        UsageError: If the file cannot be read, or a line is not one word to this tokenizer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.model, models.BPE | models.WordLevel):
        raise UsageError("--add_words works with tokenizers of byte-pair encoding or symbols, not with this model's.")
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--add_words {file} cannot be read: {error}") from error
    description = json.loads(backend.to_str())
    vocab = description["model"]["vocab"]
    for special in description["added_tokens"]:  # such as <pad>, if it came after the words: its number is taken
        vocab.setdefault(special["content"], special["id"])
    for number, word in enumerate(map(str.strip, lines), start=1):
        if not word:
            continue
        normal = backend.normalizer.normalize_str(word) if backend.normalizer else word
        parts = [part for part, _ in backend.pre_tokenizer.pre_tokenize_str(normal)]
        is_cut = isinstance(backend.model, models.WordLevel) and parts != [normal]
        if is_cut or len(parts) != 1:
            raise UsageError(
                f"{file}, line {number}: {word!r} is not one word to this tokenizer, which reads it as "
                f"{' '.join(part.replace(SPACE, '') for part in parts) or 'nothing'}. Where punctuation and digits "
                "stand alone, a tag may be of letters."
            )
        vocab.setdefault(parts[0], len(vocab))
    if isinstance(backend.model, models.BPE):
        description["model"]["ignore_merges"] = True
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(description))
    return tokenizer


def config_to_go_on(arguments: RunArguments) -> PreTrainedConfig:
    """The configuration of the model that --model names, of whatever kind that is.

    Raises:
        UsageError: If it cannot be read.
    """
    name = str(arguments.model.model)
    try:
        return AutoConfig.from_pretrained(name)
    except Exception as error:  # files of any kind of damage raise errors of any kind
        raise UsageError(f"{name} is not a model that can be loaded: {in_a_line(error)}") from error


def tokens_beyond_input(name: str) -> int | None:
    """How many tokens longer than its source an output of a trained model may be, if it says so."""
    try:
        generation = GenerationConfig.from_pretrained(name)
    except OSError:  # a model need not have one
        return None
    return getattr(generation, "max_tokens_beyond_input", None)


def load_to_go_on(arguments: RunArguments, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model that --model names, with rows for new words, each the mean of the rows that its word had before.

    Raises:
        UsageError: If there is no such model, or it is of another kind.
    """
    name = str(arguments.model.model)
    model, former = load_model(name)
    if model.config.model_type != "transformer2017":
        raise UsageError(f"--model {name} is a {model.config.model_type}: `transformer2017 import` may read it.")
    asked = asked_rates(arguments)
    for name_of_rate, value in asked.items():
        setattr(model.config, name_of_rate, value)
    if asked:  # modules took their rates when they were made
        weights = model.state_dict()
        config, generation = model.config, model.generation_config
        model = type(model)(config)
        model.load_state_dict(weights)
        model.generation_config = generation
    before = model.config.vocab_size
    if len(tokenizer) > before:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        rows = model.get_input_embeddings().weight
        with torch.no_grad():
            for number in range(before, len(tokenizer)):
                word = tokenizer.convert_ids_to_tokens(number).replace(SPACE, "")
                rows[number] = rows[former(word, add_special_tokens=False)["input_ids"]].mean(0)
    return model
