"""How tokens are shown to a reader: as readable pieces of text, in any script."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

WORD_START = "▁"  # what SentencePiece writes where a space stood
UNREADABLE = "\ufffd"


def token_labels(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Names tokens by the text that each stands for, with "▁" where a word begins.

    The vocabulary's own strings would not do: a byte-level vocabulary writes Korean as accented Latin letters. A token
    that is a part of a character shows its bytes in hexadecimal.

    Args:
        ids: Token ids of one sentence.
    """
    special = set(tokenizer.all_special_ids)
    labels, ordinary = [], []
    before = settled = ""  # the text so far; as it was when no character was unfinished
    for token_id in map(int, ids):
        token = str(tokenizer.convert_ids_to_tokens(token_id))
        if token_id in special:
            labels.append(token)
            continue
        ordinary.append(token_id)
        text = _decoded(ordinary, tokenizer)
        if UNREADABLE in (text[-1:], before[-1:]):
            labels.append(_bytes_or_end(token, settled, text))
        else:
            after_space = len(ordinary) > 1 and labels[-1] == WORD_START  # which some decode with what comes next
            labels.append(_label(token, before, text, len(ordinary) == 1, after_space))
        before, settled = text, settled if text.endswith(UNREADABLE) else text
    return labels


def token_label(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    """Names a token by itself, as `token_labels` would inside a sentence."""
    return token_labels(tokenizer, [token_id, token_id])[1]


def plain(label: str) -> str:
    """A label for a picture: a word without its "▁", and "·" before a piece that continues one."""
    if label.startswith(WORD_START):
        return label[1:] or label
    return f"·{label}" if label[:1].isalnum() else label


def positions_of_words(labels: Sequence[str], special_tokens: Sequence[str]) -> list[tuple[int, ...]]:
    """Groups positions into words: a new one at each "▁", and special tokens in none.

    Returns:
        The positions of the tokens of each word, in order.
    """
    words: list[list[int]] = []
    for position, label in enumerate(labels):
        if label in special_tokens:
            continue
        if label.startswith(WORD_START) or not words:
            words.append([])
        words[-1].append(position)
    return [tuple(word) for word in words]


def _decoded(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _label(token: str, before: str, text: str, is_first: bool, after_space: bool) -> str:
    """What one token added to the text before it."""
    added = text[len(before) :] if text.startswith(before) else token
    has_space = added[:1].isspace() and not after_space
    starts_word = is_first or has_space or token.startswith((WORD_START, "Ġ"))
    return (WORD_START if starts_word else "") + (added.strip() or token.lstrip("Ġ" + WORD_START))


def _bytes_or_end(token: str, settled: str, text: str) -> str:
    """The character that this token completes, or the token itself where it completes none.

    A decoder of bytes makes a whole run of them unreadable while its last character is unfinished: what is new is told
    by the text that was settled before the run went on.
    """
    if not text.endswith(UNREADABLE) and len(text) > len(settled):
        return text[len(settled) :].strip() or token
    return token if token.startswith("<0x") else "‹" + " ".join(f"{b:02X}" for b in _byte_values(token)) + "›"


def _byte_values(token: str) -> list[int]:
    """The bytes behind a token of a byte-level vocabulary, whose letters stand for bytes (GPT-2's table)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(byte): byte for byte in shown}
    letters.update({chr(256 + i): byte for i, byte in enumerate(b for b in range(256) if b not in shown)})
    return [letters.get(letter, 0x3F) for letter in token]
