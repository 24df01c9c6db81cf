"""What is fuzzed: a good file, where it stands, and the reader."""

import argparse
import io
import json
import shutil
from pathlib import Path

import torch
import transformer2017
from transformer2017.cli.loading import load
from transformer2017.configuration import manifest
from transformer2017.interchange.fairseq import import_fairseq, tokenizer_of
from transformer2017.interchange.marian import export_marian, import_marian
from transformer2017.interchange.torch_transformer import import_torch
from transformer2017.training import checkpoints, readers, run_folder, saving
from transformer2017.training.arguments import TokenizerArguments
from transformer2017.training.averaging import average_run
from transformer2017.training.data import read_pairs
from transformer2017.training.flags import Flags
from transformer2017.training.tokenization import load_tokenizer, train_tokenizer

COLUMNS = readers.Columns(source_language="en", target_language="de")
PAIRS = [("Two dogs run.", "Zwei Hunde rennen."), ("A man — naïve.", "Ein Mann."), ("1\t2", "🙂 ß")] * 3
TMX = "".join(
    f'<tu><tuv xml:lang="en"><seg>{s}</seg></tuv><tuv xml:lang="de-DE"><seg>{t}<bpt i="1">x</bpt></seg></tuv></tu>'
    for s, t in PAIRS
)
PAIRS_FILES = {
    "tsv": "".join(f"{s.split(chr(9))[0]}\t{t}\n" for s, t in PAIRS),
    "csv": "source,target\r\n" + "".join(f'"{s}","{t}"\r\n' for s, t in PAIRS),
    "jsonl": "".join(json.dumps({"translation": {"en": s, "de": t}}) + "\n" for s, t in PAIRS),
    "tmx": f'<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE tmx><tmx version="1.4"><body>{TMX}</body></tmx>',
}
FOLDER_FILES = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]
TARGETS = [
    *PAIRS_FILES, "parquet", "text", "flags.yaml", "flags.json", "tokenizer.json", "sentencepiece.model",
    *(f"folder/{name}" for name in FOLDER_FILES), "manifest.json", "trainer_state.json", "run/flags.json",
    "fairseq.pt", "dict.txt", "torch.pt", "marian/config.json", "marian/model.safetensors",
]  # fmt: skip
FEW = {"d_model": 8, "d_ff": 8, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}


def make(name: str, folder: Path) -> tuple[bytes, Path, object]:
    """The good bytes of a target, the path that damaged ones go to, and the reader of that path."""
    torch.set_num_threads(1)
    if name in (*PAIRS_FILES, "parquet"):
        good = PAIRS_FILES[name].encode() if name in PAIRS_FILES else _parquet()
        return good, folder / f"pairs.{name}", lambda path: list(readers.read_pairs_file(path, COLUMNS))
    if name == "text":
        (folder / "de").write_text("x\n" * 9, encoding="utf-8")
        return PAIRS_FILES["tsv"].encode(), folder / "en", lambda path: list(read_pairs(path, folder / "de"))
    if name.startswith("flags."):
        flags = {"preset": "tiny", "d_model": 32, "output_dir": "x", "train_source": ["a"], "dropout": 0.1}
        return json.dumps(flags, indent=1).encode(), folder / name, lambda path: Flags([str(path)]).recipe_for(1)
    if name == "tokenizer.json":
        return _tokenizer().backend_tokenizer.to_str().encode(), folder / name, lambda path: load_tokenizer(str(path))
    if name == "sentencepiece.model":
        return _sentencepiece(), folder / "a.model", lambda path: load_tokenizer(str(path))
    if name == "dict.txt":
        return b"the 12\nhund@@ 7\n#x 1\n" * 3, folder / name, lambda path: tokenizer_of(path, 13)
    return _of_models(name, folder)


def _of_models(name: str, folder: Path) -> tuple[bytes, Path, object]:
    model = _model()
    if name in ("fairseq.pt", "torch.pt"):
        read = _read_fairseq if name == "fairseq.pt" else _read_torch
        return _pt(name), folder / name, lambda path: read(path, folder)
    if name.startswith("marian/"):
        export_marian(model, _tokenizer(), folder / "marian")
        place = folder / name
        return place.read_bytes(), place, lambda path: import_marian(path.parent, folder / "out")
    run = folder / "run"
    saving.save_model(model, _tokenizer(), run)
    if name == "run/flags.json":
        one = run_folder.RunFolder(run)
        one.store.mkdir()
        one.note.write_text(json.dumps({"flags": {"d_model": 8}, "finished": True}))
        return one.note.read_bytes(), one.note, lambda path: _claim(run)
    if name.startswith("folder/"):
        (run / manifest.MANIFEST).unlink()
        place = run / name.removeprefix("folder/")
        return place.read_bytes(), place, lambda path: load(str(run))
    if name == "manifest.json":
        return (run / name).read_bytes(), run / name, lambda path: load(str(run))
    checkpoint = folder / "checkpoint-4"
    shutil.copytree(run, checkpoint)
    place = checkpoint / name
    good = json.dumps({"global_step": 4, "max_steps": 9, "log_history": [{"eval_bleu": 1.0}], "epoch": 0.5}).encode()
    return good, place, lambda path: _resume(folder, checkpoint)


def _resume(run: Path, checkpoint: Path) -> None:
    """As if the checkpoint had been written so: with a manifest that fits."""
    manifest.write_manifest(checkpoint)
    last, _ = checkpoints.last_whole_checkpoint(run)
    checkpoints.state_of(last)
    average_run(run, 1, run / "average", overwrite=True)


def _claim(run: Path) -> None:
    with run_folder.RunFolder(run) as one:
        one.claim({"d_model": 8}, overwrite=False, resume=False)


def _model() -> transformer2017.Transformer2017ForConditionalGeneration:
    torch.manual_seed(0)
    config = transformer2017.Transformer2017Config(vocab_size=len(_tokenizer()), **FEW)
    model = transformer2017.Transformer2017ForConditionalGeneration(config).eval()
    model.generation_config = saving.paper_generation_config(config)
    return model


def _tokenizer():
    lines = [side for pair in PAIRS for side in pair]
    return train_tokenizer(iter(lines), TokenizerArguments(tokenizer_type="bpe"), 280, exact=False)


def _sentencepiece() -> bytes:
    import sentencepiece

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([side for pair in PAIRS for side in pair] * 5), model_writer=made, vocab_size=40,
        minloglevel=9, pad_id=3, hard_vocab_limit=False,
    )  # fmt: skip
    return made.getvalue()


def _parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = io.BytesIO()
    sources, targets = zip(*PAIRS, strict=True)
    pq.write_table(pa.table({"source": list(sources), "target": list(targets)}), made)
    return made.getvalue()


def _pt(name: str) -> bytes:
    made = io.BytesIO()
    torch.manual_seed(0)
    if name == "torch.pt":
        inner = torch.nn.Transformer(8, 2, 1, 1, 8)
        state = {"embed.weight": torch.randn(12, 8), **{f"t.{k}": v for k, v in inner.state_dict().items()}}
        torch.save(state, made)
        return made.getvalue()
    state = {f"{half}.embed_tokens.weight": torch.ones(13, 8) for half in ("encoder", "decoder")}
    for half, attentions in (("encoder", ["self_attn"]), ("decoder", ["self_attn", "encoder_attn"])):
        maps = [f"{one}.{part}_proj" for one in attentions for part in ("q", "k", "v", "out")]
        norms = [f"{one}_layer_norm" for one in (*attentions, "final")]
        for part in [*maps, "fc1", "fc2", *norms]:
            name = f"{half}.layers.0.{part}"
            state[f"{name}.weight"] = torch.randn((8,) if part in norms else (8, 8))
            state[f"{name}.bias"] = torch.zeros(8)
    each = {"ffn_embed_dim": 8, "attention_heads": 2, "embed_dim": 8, "learned_pos": False, "layers": 1}
    sizes = {f"{half}_{what}": value for half in ("encoder", "decoder") for what, value in each.items()}
    torch.save({"args": argparse.Namespace(**sizes), "model": state}, made)
    return made.getvalue()


def _read_fairseq(path: Path, folder: Path) -> None:
    import_fairseq(path, None, folder / "out")


def _read_torch(path: Path, folder: Path) -> None:
    import_torch(path, folder / "out", num_heads=2)
