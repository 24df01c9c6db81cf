"""A SentencePiece model as a tokenizer of `tokenizers`: converted, compared with the original, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformer2017.configuration import UsageError, in_a_line
from transformers import PreTrainedTokenizerFast

SPACE = "▁"
PAD = "<pad>"
# Each says something of normalization, bytes or rare characters that a faulty conversion gets wrong.
PROBES = [
    "",
    "a",
    "Hello, world!",
    " two  spaces ",
    "ＦＵＬＬ ½ ﬁ",
    "Straße 1234",
    "漢字 ✓ 🙂",
    "tab\there",
    "e\u0301",
    "a▁b",
]


def load_sentencepiece(path: str) -> PreTrainedTokenizerFast:
    """Converts a SentencePiece model, unigram or BPE.

    A token for padding is added where the model has none. Sentences end in its end token.

    Raises:
        UsageError: If a library is missing, the file is no such model, or converted it would tokenize otherwise.
    """
    try:
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2 as description
    except ImportError as error:
        raise UsageError(f"--tokenizer {path} needs more: pip install sentencepiece protobuf ({error}).") from error
    try:
        original = sentencepiece.SentencePieceProcessor(model_file=path)
        model = description.ModelProto.FromString(Path(path).read_bytes())
    except Exception as error:
        raise UsageError(
            f"--tokenizer {path} is no SentencePiece model that can be read: {in_a_line(error)}"
        ) from error
    if original.eos_id() < 0:
        raise UsageError(f"--tokenizer {path} has no token for the end of a sentence, which training needs.")
    try:
        tokenizer = _as_pretrained(_convert(path, model, original), original)
    except UsageError:
        raise
    except Exception as error:  # `tokenizers` raises nothing narrower
        raise UsageError(f"--tokenizer {path} cannot be converted: {in_a_line(error)}") from error
    _compare(path, tokenizer, original)
    return tokenizer


def _convert(path: str, model: Any, original: Any) -> Tokenizer:
    """The same vocabulary, numbers, normalization and segmentation."""
    trained, rules = model.trainer_spec, model.normalizer_spec
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    bytes_too = bool(trained.byte_fallback)
    if trained.model_type == 1:
        tokenizer = Tokenizer(models.Unigram(pieces, original.unk_id(), bytes_too))
    elif trained.model_type == 2:
        vocab = {piece: number for number, (piece, _) in enumerate(pieces)}
        unknown = original.id_to_piece(original.unk_id())
        tokenizer = Tokenizer(
            models.BPE(vocab, _merges(model, vocab), unk_token=unknown, fuse_unk=True, byte_fallback=bytes_too)
        )
    else:
        raise UsageError(f"--tokenizer {path} is a SentencePiece model of words or characters: give unigram or BPE.")
    if trained.treat_whitespace_as_suffix or not rules.escape_whitespaces:
        raise UsageError(f"--tokenizer {path} writes spaces otherwise than as ▁ before a word: not supported.")
    steps: list[Any] = []
    if rules.precompiled_charsmap:
        if not _is_whole(rules.precompiled_charsmap):
            raise UsageError(f"--tokenizer {path} is damaged: its table of characters to replace points nowhere.")
        steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    scheme = "always" if rules.add_dummy_prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, scheme, split=trained.split_by_whitespace)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    end = original.id_to_piece(original.eos_id())
    tokenizer.post_processor = processors.TemplateProcessing(f"$A {end}", special_tokens=[(end, original.eos_id())])
    tokenizer.add_tokens([AddedToken(p.piece, normalized=False) for p in model.pieces if p.type == p.USER_DEFINED])
    return tokenizer


def _is_whole(charsmap: bytes) -> bool:
    """Whether every path through a table of replacements stays in it, and ends at the start of a replacement.

    `tokenizers` follows it unchecked, and a step outside aborts the call beyond what `except Exception` catches. The
    table is a double-array trie of bytes (darts-clone), its size in bytes before it, and the replacements behind it,
    each ending in a zero byte.
    """
    size = int.from_bytes(charsmap[:4], "little")
    if size % 4 or not 0 < size <= len(charsmap) - 4:
        return False
    units, replacements = np.frombuffer(charsmap[4 : 4 + size], "<u4").astype(np.int64), charsmap[4 + size :]
    below = np.arange(len(units)) ^ ((units >> 10) << ((units & 1 << 9) >> 6))  # where the children of a unit begin
    seen, reached = np.zeros(len(units), bool), np.array([0])
    while len(reached):
        seen[reached] = True
        children = below[reached, None] ^ np.arange(1, 256)
        if children.max() >= len(units):
            return False
        is_child = (units[children] & (1 << 31 | 0xFF)) == np.arange(1, 256)
        reached = np.unique(children[is_child & ~seen[children]])
    ends = below[seen & (units >> 8 & 1 == 1)]
    if ends.max(initial=0) >= len(units):
        return False
    starts = {0} | {i + 1 for i, byte in enumerate(replacements) if byte == 0}
    return {int(unit) & 0x7FFFFFFF for unit in units[ends]} <= starts


def _merges(model: Any, vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, the best piece first, as SentencePiece merges."""
    made = []
    for piece in model.pieces:
        if piece.type == piece.NORMAL:
            parts = [(piece.piece[:cut], piece.piece[cut:]) for cut in range(1, len(piece.piece))]
            made += [(-piece.score, pair) for pair in parts if pair[0] in vocab and pair[1] in vocab]
    return [pair for _, pair in sorted(made, key=lambda merge: merge[0])]


def _as_pretrained(tokenizer: Tokenizer, original: Any) -> PreTrainedTokenizerFast:
    def name(number: int) -> str | None:
        return original.id_to_piece(number) if number >= 0 else None

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=name(original.pad_id()) or PAD,
        bos_token=name(original.bos_id()),
        eos_token=name(original.eos_id()),
        unk_token=name(original.unk_id()),
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def _compare(path: str, tokenizer: PreTrainedTokenizerFast, original: Any) -> None:
    """Both must give the same numbers, for probes and for every word of the vocabulary."""
    words = [original.id_to_piece(i).replace(SPACE, " ") for i in range(original.get_piece_size())]
    for text in [*PROBES, *words, *(" ".join(words[i : i + 20]) for i in range(0, len(words), 20))]:
        if "<" in text:  # special and byte tokens: SentencePiece does not read them in text
            continue
        if tokenizer(text)["input_ids"] != [*original.encode(text), original.eos_id()]:
            raise UsageError(
                f"--tokenizer {path} is refused: converted, it would tokenize {text!r} otherwise than SentencePiece "
                "does. Train a tokenizer here, or give a folder or a tokenizer.json."
            )
