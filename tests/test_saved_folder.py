"""A saved folder runs where the package is not, and saves itself again byte for byte (rule 2 of the design)."""

import ast
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformer2017
from transformers import AutoModelForSeq2SeqLM

ROOT = Path(__file__).parents[1]
BLOCK = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "transformer2017":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import hashlib, torch
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

def logits(folder):
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True).eval()
    ids = torch.tensor([[5, 17, 9, 2], [8, 2, 0, 0]])
    return model, model(ids, decoder_input_ids=ids).logits
"""
IDS = torch.tensor([[5, 17, 9, 2], [8, 2, 0, 0]])


def without_the_package(code: str, cache: Path) -> str:
    """Runs code in a fresh process to which the package is not installed, with a module cache of its own."""
    environment = {**os.environ, "HF_MODULES_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", BLOCK + code]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cache, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


@pytest.fixture
def saved(model, tmp_path) -> Path:
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_folder_holds_the_code_and_the_real_configuration(saved):
    """The model's files are copied first, the stand-in with them; the config's save then writes the real one over."""
    files = {file.name for file in saved.iterdir()}
    for name in ("attention", "feed_forward", "embeddings", "encoder", "decoder", "loss", "modeling_transformer2017"):
        assert f"{name}.py" in files
        assert (saved / f"{name}.py").read_bytes() == (ROOT / "modeling" / f"{name}.py").read_bytes()
    for name in ("configuration_transformer2017", "presets"):
        assert (saved / f"{name}.py").read_bytes() == (ROOT / "configuration" / f"{name}.py").read_bytes()
    auto_map = json.loads((saved / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM"}


def test_all_code_in_the_folder_needs_torch_and_transformers_alone_and_calls_no_network(saved):
    """Whoever loads it with trust_remote_code runs these files, and these only."""
    network = {"asyncio", "ftplib", "http", "smtplib", "socket", "socketserver", "ssl", "subprocess", "urllib"}
    allowed = {"torch", "transformers"} | set(sys.stdlib_module_names) - network
    forbidden = {"eval", "exec", "__import__", "urlopen", "system", "popen", "hf_hub_download", "snapshot_download"}
    files = list(saved.rglob("*.py"))
    assert len(files) > 15
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, file.name
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module.split(".")[0] in allowed, f"{file.name}: {node.module}"
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1, f"{file.name} reaches out of its folder"
                assert (saved / f"{node.module}.py").is_file(), f"{file.name}: {node.module}"
            elif isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                by_name = isinstance(node.func, ast.Name)  # `model.eval()` is torch's
                assert called not in (forbidden if by_name else forbidden - {"eval"}), f"{file.name} calls {called}"


def test_it_runs_without_the_package_and_saves_itself_byte_for_byte(model, saved, tmp_path):
    code = f"""
model, values = logits({str(saved)!r})
model.save_pretrained({str(tmp_path / "again")!r})
base = AutoModel.from_pretrained({str(saved)!r}, trust_remote_code=True)
assert type(base).__name__ == "Transformer2017Model", type(base)
assert torch.equal(base.shared.weight, model.model.shared.weight)
assert type(AutoConfig.from_pretrained({str(saved)!r}, trust_remote_code=True)).__name__ == "Transformer2017Config"
assert not any(name.startswith("transformer2017") for name in sys.modules)
print(hashlib.sha256(values.detach().numpy().tobytes()).hexdigest())
"""
    expected = model(IDS, decoder_input_ids=IDS).logits
    printed = without_the_package(code, tmp_path)
    assert printed.splitlines()[-1] == hashlib.sha256(expected.detach().numpy().tobytes()).hexdigest()
    assert digests(tmp_path / "again") == digests(saved)


def test_models_whose_folders_share_a_name_do_not_mix(model, tmp_path):
    """In one process, each folder with code of its own: another version differs in its configuration's code too.

    Where that is the same to the byte, transformers 5.23 takes the model code of whichever folder was loaded first.
    """
    folders = [tmp_path / "a" / "model", tmp_path / "b" / "model"]
    for folder in folders:
        model.save_pretrained(folder)
    with (folders[1] / "feed_forward.py").open("a") as code:
        code.write("\n\nFeedForward.forward = lambda self, x: 0 * x\n")
    with (folders[1] / "configuration_transformer2017.py").open("a") as code:
        code.write("# of another version\n")
    code = f"""
_, first = logits({str(folders[0])!r})
_, second = logits({str(folders[1])!r})
_, again = logits({str(folders[0])!r})
assert torch.equal(first, again)
assert not torch.allclose(first, second)
"""
    without_the_package(code, tmp_path)


def test_the_installed_package_loads_it_too(model, saved):
    loaded = AutoModelForSeq2SeqLM.from_pretrained(saved)
    assert type(loaded) is type(model)
    torch.testing.assert_close(loaded(IDS, decoder_input_ids=IDS).logits, model(IDS, decoder_input_ids=IDS).logits)


def test_saving_loading_and_saving_gives_the_same_bytes(model, saved, tmp_path):
    type(model).from_pretrained(saved).save_pretrained(tmp_path / "again")
    assert digests(tmp_path / "again") == digests(saved)


def test_the_folder_names_the_version_whose_code_it_holds(model, saved, tmp_path):
    """Which is the version that saved it last: a folder of another version, saved again, gets the new code's."""
    written = json.loads((saved / "config.json").read_text())
    assert written["package_version"] == importlib.metadata.version("transformer2017") == transformer2017.__version__
    assert f'"{written["package_version"]}"' in (saved / "saved_folder.py").read_text()
    (saved / "config.json").write_text(json.dumps({**written, "package_version": "0.0.1"}))
    type(model).from_pretrained(saved).save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == written


def test_a_checkpoint_of_format_1_keeps_loading():
    """Saved by the first version and committed for good: it must load, and give the logits that it gave then."""
    folder = Path(__file__).parent / "data" / "format-1"
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    assert model.config.format_version == 1
    assert not hasattr(model.config, "package_version")  # folders have it since; this one keeps loading without
    recorded = json.loads((folder / "recorded.json").read_text())
    ids = torch.tensor(recorded["input_ids"])
    logits = model(ids, decoder_input_ids=ids).logits
    torch.testing.assert_close(logits, torch.tensor(recorded["logits"]), rtol=1e-4, atol=1e-5)


def test_what_only_this_model_knows_of_decoding_is_loaded_again(model, tmp_path):
    """transformers reads a configuration that it made itself by its own fields alone."""
    own = {"max_tokens_beyond_input": 2, "ranking": "paper", "fast": False}
    for name, value in own.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).generation_config
    assert {name: getattr(loaded, name, None) for name in own} == own


def test_what_could_not_be_loaded_is_not_saved(model, tmp_path):
    """PEFT unties the output where `lm_head` is trained whole: said while the model is still there."""
    model.config.tie_word_embeddings = False
    with pytest.raises(ValueError, match="tie_word_embeddings=False makes another model"):
        model.save_pretrained(tmp_path / "untied")
    assert not (tmp_path / "untied").exists()


def test_saving_removes_the_manifest_of_a_run_and_no_other_file_of_that_name(model, tmp_path):
    file = tmp_path / "manifest.json"
    for text, is_kept in (
        ('{"name": "my web app"}', True),
        ("[1]", True),
        ("{", True),
        ('{"format": 1, "files": {}}', False),
    ):
        file.write_text(text, encoding="utf-8")
        model.save_pretrained(tmp_path)
        assert file.is_file() is is_kept
