"""Text to tokens: one vocabulary for source and target (§5.1), saved so that plain `AutoTokenizer` loads it."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformer2017.configuration import UsageError, in_a_line
from transformer2017.configuration.token_numbers import refuse_absurd_numbers, saved_tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from .arguments import TokenizerArguments
from .sentencepiece_model import load_sentencepiece

PAD, START, END, UNKNOWN = SPECIAL_TOKENS = ["<pad>", "<s>", "</s>", "<unk>"]
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
SPACE = "▁"  # what stands for a space inside a token, as in SentencePiece
LONGEST_WORD = 10_000  # characters of a word that is parted in pieces: a clause is one where no spaces are written
ALPHABET_SHARE = 0.5  # of the vocabulary: characters beyond that, the rarest, are spelt as bytes


def train_tokenizer(
    lines: Iterator[str], arguments: TokenizerArguments, vocab_size: int, exact: bool = True
) -> PreTrainedTokenizerFast:
    """Learns a vocabulary from source and target together (§5.1).

    Args:
        lines: Sentences of both sides.
        vocab_size: Tokens to make, special and byte tokens included.
        exact: Whether fewer, where the text supports no more, are an error.

    Raises:
        UsageError: If the text has too few different words for a vocabulary of that size, or a pattern of symbols is
            no regular expression or finds none.
    """
    if arguments.tokenizer_type == "symbols":
        return as_pretrained(_symbol_table(lines, arguments.symbol_pattern))
    train = {"bpe": _train_bpe, "unigram": _train_unigram, "wordpiece": _train_wordpiece}[arguments.tokenizer_type]
    needed = len(SPECIAL_TOKENS) + (0 if arguments.tokenizer_type == "wordpiece" else len(BYTE_TOKENS))
    if vocab_size <= needed:
        raise UsageError(f"--vocab_size {vocab_size} is too small: special and byte tokens alone are {needed}.")
    tokenizer = train(lines, vocab_size)
    if exact and (possible := tokenizer.get_vocab_size()) < vocab_size:
        raise UsageError(
            f"--vocab_size {vocab_size} is more than this text supports: it gives at most {possible} tokens. "
            f"Choose --vocab_size {possible} or less, or give more text."
        )
    return as_pretrained(tokenizer)


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Loads a tokenizer that exists: a folder (or a name on the Hub), a `tokenizer.json`, or a SentencePiece model.

    Raises:
        UsageError: If there is none, it lacks a token for padding or the end, or sentences do not end in the latter.
    """
    if path.endswith((".model", ".spm")):
        return load_sentencepiece(path)
    try:
        if path.endswith(".json"):
            refuse_absurd_numbers(Path(path))
            tokenizer = as_pretrained(Tokenizer.from_file(path))
        else:
            tokenizer = saved_tokenizer(path)
        last = tokenizer("a")["input_ids"][-1:]
    except Exception as error:
        raise UsageError(f"--tokenizer {path} cannot be loaded: {in_a_line(error)}") from error
    for name in ("pad_token", "eos_token"):
        if getattr(tokenizer, name) is None:
            raise UsageError(f"--tokenizer {path} has no {name}, which training needs.")
    if last != [tokenizer.eos_token_id]:
        raise UsageError(f"--tokenizer {path} does not end sentences in {tokenizer.eos_token}, as training needs.")
    return tokenizer


def as_pretrained(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Wraps a tokenizer for transformers."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def _train_bpe(lines: Iterator[str], vocab_size: int) -> Tokenizer:
    """Byte-pair encoding (Sennrich et al., 2016), the paper's for English to German."""
    tokenizer = _subword_tokenizer(models.BPE(unk_token=UNKNOWN, byte_fallback=True, fuse_unk=False))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS + BYTE_TOKENS,
        limit_alphabet=int(vocab_size * ALPHABET_SHARE),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return _with_plain_byte_tokens(tokenizer)


def _train_unigram(lines: Iterator[str], vocab_size: int) -> Tokenizer:
    """A unigram language model over subwords (Kudo, 2018)."""
    tokenizer = _subword_tokenizer(models.Unigram())
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS + BYTE_TOKENS,
        unk_token=UNKNOWN,
        show_progress=False,
    )
    try:
        tokenizer.train_from_iterator(lines, trainer)
    except Exception as error:  # of no class of its own
        raise UsageError(
            f"--tokenizer_type unigram cannot make {vocab_size} tokens of this text ({in_a_line(error)}): give a "
            "larger --vocab_size, or bpe, which spells rare characters as bytes."
        ) from error
    description = json.loads(tokenizer.to_str())
    description["model"]["byte_fallback"] = True
    return _with_plain_byte_tokens(Tokenizer.from_str(json.dumps(description)))


def _train_wordpiece(lines: Iterator[str], vocab_size: int) -> Tokenizer:
    """Word pieces, longest match first (Wu et al., 2016), as for English to French (§5.1). No byte fallback."""
    pieces = models.WordPiece(unk_token=UNKNOWN, continuing_subword_prefix="", max_input_chars_per_word=LONGEST_WORD)
    tokenizer = _subword_tokenizer(pieces)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        limit_alphabet=int(vocab_size * ALPHABET_SHARE),
        continuing_subword_prefix="",
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def _symbol_table(lines: Iterator[str], pattern: str) -> Tokenizer:
    """A table of whole symbols: letters, phonemes, characters. Decoding puts a space between them."""
    try:
        split = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    except Exception as error:  # of no class of its own
        raise UsageError(f"--symbol_pattern {pattern} is not a regular expression: {in_a_line(error)}") from error
    symbols = Counter(symbol for line in lines for symbol, _ in split.pre_tokenize_str(line))
    if not symbols:
        raise UsageError(f"--symbol_pattern {pattern} finds no symbol in the text.")
    table = SPECIAL_TOKENS + sorted(symbols.keys() - SPECIAL_TOKENS, key=lambda symbol: (-symbols[symbol], symbol))
    tokenizer = Tokenizer(models.WordLevel({symbol: i for i, symbol in enumerate(table)}, unk_token=UNKNOWN))
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = _end_with_end_token()
    return tokenizer


def _subword_tokenizer(model: models.Model) -> Tokenizer:
    """What the subword kinds share: words begin with the space before them, and decoding is exact."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(SPACE, behavior="merged_with_next"),
            pre_tokenizers.Punctuation(behavior="isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = _end_with_end_token()
    return tokenizer


def _end_with_end_token() -> processors.TemplateProcessing:
    end = (END, SPECIAL_TOKENS.index(END))
    return processors.TemplateProcessing(single=f"$A {END}", pair=f"$A $B {END}", special_tokens=[end])


def _with_plain_byte_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Makes the byte tokens, special only so that training put them in, plain words of the vocabulary again.

    Special, they would be left out of decoded text, and a literal <0x41> in the input would be taken for one.
    """
    description = json.loads(tokenizer.to_str())
    description["added_tokens"] = [
        token for token in description["added_tokens"] if token["content"] in SPECIAL_TOKENS
    ]
    return Tokenizer.from_str(json.dumps(description))


def splits_at_spaces(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether each word between two spaces is encoded by itself, as by all subword kinds that are made here."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or getattr(backend.model, "dropout", None):
        return False
    ours, theirs = (json.loads(one.to_str()) for one in (_subword_tokenizer(models.BPE()), backend))
    return all(ours[part] == theirs[part] for part in ("normalizer", "pre_tokenizer", "post_processor", "truncation"))


def is_symbol_table(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer knows whole symbols only (letters, phonemes), so that error rates are the scores."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and isinstance(backend.model, models.WordLevel)


def told_of_characters_left_out(lines: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> str:
    """The most frequent of these characters in a sentence for the user; nothing if there are none."""
    lost = characters_left_out(lines, tokenizer) if is_symbol_table(tokenizer) else Counter()
    few = ", ".join(f"{character} ({count:,})" for character, count in lost.most_common(5))
    return f"characters that are no symbol by --symbol_pattern, left out of their lines: {few}" if few else ""


def characters_left_out(lines: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Counter[str]:
    """How often which characters, but for white space, are part of no symbol of a symbol table."""
    found = Counter()
    for line in lines:
        found.update(line)
        found.subtract(in_symbols(line, tokenizer))
    return Counter({character: count for character, count in found.items() if count > 0 and not character.isspace()})


def in_symbols(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """A text as a symbol table writes it: its symbols with a space between them."""
    split = tokenizer.backend_tokenizer.pre_tokenizer
    return text if split is None else " ".join(symbol for symbol, _ in split.pre_tokenize_str(text))
