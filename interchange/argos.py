"""Argos Translate packages out: what Argos Translate and LibreTranslate install.

A package is a zip, named .argosmodel, of one folder with `metadata.json`, `model/` (CTranslate2), a
`sentencepiece.model` for both sides, and a README.
Source: argostranslate/package.py, argostranslate/tokenizer.py and argostranslate/translate.py (1.9 to 1.11).
"""

import base64
import json
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from transformer2017.configuration import UsageError
from transformer2017.modeling import Transformer2017ForConditionalGeneration
from transformers import PreTrainedTokenizerBase

from .ctranslate2 import compare_translator, note_positions, write_ctranslate2
from .layout import with_forbidden_tokens
from .report import Report, Sources

PACKAGE_VERSION = "1.0"
ARGOS_VERSION = "1.9.0"  # the oldest Argos Translate whose packages look like this
SPACE = "▁"


def export_argos(
    model: Transformer2017ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    output_dir: str | Path,
    source_language: str,
    target_language: str,
    quantization: str = "float32",
    sources: Sources | None = None,
) -> Report:
    """Writes `translate-xx_yy-1_0.argosmodel`, and compares the model in it with ours.

    Args:
        model: In evaluation mode.
        tokenizer: One of subwords, byte-pair or unigram, as `transformer2017 train` makes them.
        output_dir: Made if it is not there.
        source_language: Its code, such as "en".
        target_language: Its code, such as "de".
        quantization: As for CTranslate2. In int8 a model may repeat words; try both.
        sources: Token ids of sentences to compare on; random ones if None.

    Raises:
        UsageError: If the tokenizer or the model cannot be represented, or CTranslate2 is not installed.
        RunError: If log probabilities in float32 differ.
    """
    for code in (source_language, target_language):
        if not re.fullmatch(r"[A-Za-z]{2,8}([_-][A-Za-z0-9]{1,8})*", code):  # it becomes part of the file's name
            raise UsageError(f"{code!r} is not a code of a language, such as en or pt-BR.")
    model = with_forbidden_tokens(model)
    pieces = sentencepiece_model(tokenizer)
    name = f"translate-{source_language}_{target_language}-{PACKAGE_VERSION.replace('.', '_')}"
    report = Report(f"argos export ({quantization}), {name}.argosmodel")
    note_positions(report, model.config)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / name
        write_ctranslate2(model, tokenizer, folder / "model", quantization, add_source_eos=True)
        (folder / "sentencepiece.model").write_bytes(pieces)
        metadata = _metadata(source_language, target_language)
        (folder / "metadata.json").write_text(json.dumps(metadata, indent=4), encoding="utf-8")
        title = f"# {metadata['from_name']} to {metadata['to_name']}"
        (folder / "README.md").write_text(f"{title}\n\nTrained with transformer2017.\n", encoding="utf-8")
        compare_translator(report, model, str(folder / "model"), quantization, sources, add_source_eos=True)
        _zip(folder, Path(output_dir))
    report.note("Argos Translate writes a literal _ as a space, and characters spelt in bytes as <0xNN>")
    return report


def _metadata(source_language: str, target_language: str) -> dict[str, str]:
    return {
        "package_version": PACKAGE_VERSION,
        "argos_version": ARGOS_VERSION,
        "from_code": source_language,
        "from_name": language_name(source_language),
        "to_code": target_language,
        "to_name": language_name(target_language),
    }


LANGUAGE_NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi",
    "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian",
    "lv": "Latvian", "nb": "Norwegian", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sv": "Swedish", "th": "Thai", "tr": "Turkish",
    "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


def language_name(code: str) -> str:
    """The English name of a language, which Argos Translate shows; its code where it is not in the table."""
    return LANGUAGE_NAMES.get(code, code)


def _zip(folder: Path, output_dir: Path) -> None:
    output_dir.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(output_dir / f"{folder.name}.argosmodel", "w", zipfile.ZIP_DEFLATED) as package:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                package.write(file, file.relative_to(folder.parent))


def sentencepiece_model(tokenizer: PreTrainedTokenizerBase) -> bytes:
    """Writes the vocabulary of a subword tokenizer as a SentencePiece model that cuts text into the same pieces.

    In a byte-pair model SentencePiece joins the pair whose joint piece has the highest score, so that each piece has
    minus the number of the merge that makes it. A pair that no merge lists may then be joined too, if another merge
    makes the same piece: rare, and another cut of the same text.

    Raises:
        UsageError: If the tokenizer is of another kind, or sentencepiece or protobuf is missing.
    """
    try:
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise UsageError(
            "an Argos package needs sentencepiece and protobuf: pip install 'transformer2017[interchange]'"
        ) from error
    proto: Any = sentencepiece_model_pb2  # made by protobuf as it is imported, out of sight of type checkers
    description = _description(tokenizer)
    kind, scores = description["model"]["type"], _scores(description["model"])
    model = proto.ModelProto()
    added = {token["content"]: token["special"] for token in description["added_tokens"]}
    kinds = dict.fromkeys(_words_of_no_merge(description["model"]), "USER_DEFINED")
    kinds |= {piece: "CONTROL" if is_special else "USER_DEFINED" for piece, is_special in added.items()}
    for piece, score in [*scores, *_added_behind(description, len(scores))]:
        entry = model.pieces.add()
        entry.piece, entry.score = piece, score
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            kinds[piece] = "BYTE"
        kind_of_piece = "UNKNOWN" if piece == tokenizer.unk_token else kinds.get(piece, "NORMAL")
        entry.type = proto.ModelProto.SentencePiece.Type.Value(kind_of_piece)
    trainer = model.trainer_spec
    trainer.model_type = proto.TrainerSpec.BPE if kind == "BPE" else proto.TrainerSpec.UNIGRAM
    trainer.vocab_size = len(model.pieces)
    trainer.byte_fallback = bool(description["model"].get("byte_fallback"))
    for name in ("unk", "bos", "eos", "pad"):
        token = getattr(tokenizer, f"{name}_token")
        setattr(trainer, f"{name}_id", -1 if token is None else getattr(tokenizer, f"{name}_token_id"))
        if token is not None:
            setattr(trainer, f"{name}_piece", token)
    _normalize_alike(model.normalizer_spec, description)
    return model.SerializeToString()


def _description(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The tokenizer's JSON, where it is one of subwords whose words begin with the space before them."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    description = json.loads(backend.to_str()) if backend is not None else {"model": {"type": "none"}}
    model = description["model"]
    if (
        model["type"] not in ("BPE", "Unigram")
        or model.get("end_of_word_suffix")
        or SPACE not in json.dumps([description["normalizer"], description["pre_tokenizer"]], ensure_ascii=False)
    ):
        raise UsageError(
            "an Argos package holds one SentencePiece model, and this tokenizer is of another kind: train with "
            "--tokenizer_type bpe or unigram, or `export ctranslate2`, which takes any"
        )
    if tokenizer.unk_token is None:
        raise UsageError("a SentencePiece model has a token for what it does not know, and this tokenizer has none")
    return description


ANY_SPACE, DOUBLED_SPACES = {"String": " "}, {"Regex": " {2,}"}  # what a step replaces by a space, in JSON


def _normalize_alike(rules: Any, description: dict[str, Any]) -> None:
    """Has SentencePiece change text before it cuts it as the tokenizer does.

    Raises:
        UsageError: If it does what SentencePiece has no rule for.
    """
    whole = description["normalizer"] or {"normalizers": []}
    before_words = description["pre_tokenizer"] or {}
    rules.name = "identity"
    rules.add_dummy_prefix = before_words.get("prepend_scheme", "never") != "never"
    steps = whole.get("normalizers", [whole])
    # SentencePiece joins spaces and cuts off those at the ends, or does neither. A tokenizer that only joins them, as
    # older versions of transformers made of a SentencePiece model, is taken for one that does both.
    rules.remove_extra_whitespaces = DOUBLED_SPACES in map(_replaced, steps)
    for step in steps:
        if step["type"] == "Precompiled":
            rules.name, rules.precompiled_charsmap = "user_defined", base64.b64decode(step["precompiled_charsmap"])
        elif step["type"] == "Prepend":
            rules.add_dummy_prefix = True
        elif _replaced(step) not in (ANY_SPACE, DOUBLED_SPACES) and not (
            step["type"] == "Strip" and rules.remove_extra_whitespaces
        ):
            raise UsageError(
                f"this tokenizer changes text before it cuts it ({step['type']}), and the SentencePiece model of an "
                "Argos package would not: change the text beforehand, and train with a tokenizer that does not"
            )


def _replaced(step: dict[str, Any]) -> Any:
    """What a step replaces by a space; None if it does something else."""
    return step["pattern"] if step["type"] == "Replace" and step["content"] in (SPACE, " ") else None


def _added_behind(description: dict[str, Any], vocabulary: int) -> list[tuple[str, float]]:
    """The added tokens that stand behind the model's own vocabulary, in the order of their ids."""
    behind = {token["id"]: token["content"] for token in description["added_tokens"] if token["id"] >= vocabulary}
    return [(behind[number], 0.0) for number in sorted(behind)]


def _words_of_no_merge(model: dict[str, Any]) -> set[str]:
    """Words that `train --add_words` put into a byte-pair vocabulary, which no merge makes.

    SentencePiece takes such a piece only where it is told to, and then at the beginning of longer words as well.
    """
    if not model.get("ignore_merges"):
        return set()
    lowest = -float(len(model["merges"]))
    return {piece for piece, score in _scores(model) if score == lowest and len(piece.removeprefix(SPACE)) > 1}


def _scores(model: dict[str, Any]) -> list[tuple[str, float]]:
    """Each piece with its SentencePiece score, in the order of the ids."""
    if model["type"] == "Unigram":
        return [(piece, score) for piece, score in model["vocab"]]
    made: dict[str, float] = {}
    for rank, merge in enumerate(model["merges"]):
        made.setdefault("".join(merge if isinstance(merge, list) else merge.split(" ")), -float(rank))
    lowest = -float(len(model["merges"]))
    return [(piece, made.get(piece, lowest)) for piece, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
