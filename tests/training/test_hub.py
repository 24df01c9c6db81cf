"""Uploading, against a stand-in of the Hub's HTTP interface on 127.0.0.1: what would be uploaded, file by file."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import transformer2017
import yaml
from huggingface_hub import HfApi
from tokenizers import Tokenizer, models, pre_tokenizers
from transformer2017.configuration import RunError, UsageError
from transformer2017.training.hub import Upload, push_folder
from transformer2017.training.training_arguments import TrainingArguments
from transformers import PreTrainedTokenizerFast

CARD = """---
license: cc-by-4.0
language: [en, de]
pipeline_tag: translation
model-index:
- name: en-de
  results:
  - task: {type: translation}
    dataset: {type: multi30k, name: Multi30k}
    metrics: [{type: bleu, value: 38.1}]
---
# en-de
"""


class Hub(BaseHTTPRequestHandler):
    """Makes repositories and takes commits; every file is taken as a regular one, inside the commit."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.server.requests.append((self.path, self.headers.get("Authorization")))
        here = f"http://127.0.0.1:{self.server.server_port}"
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            name = "{organization}/{name}".format(**{"organization": "me", **self.server.created})
            self._answer({"url": f"{here}/{name}", "name": name})
        elif self.path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---")[1])
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            self._answer({"files": [{**file, "shouldIgnore": False, "oid": None} for file in files]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                else:
                    self.server.commits.append(line)
            self._answer({"commitOid": "0" * 40, "commitUrl": f"{here}/me/en-de/commit/{'0' * 40}", "success": True})
        else:
            self.send_error(404)

    def do_GET(self):
        self._answer({"id": "me/en-de", "sha": "0" * 40, "siblings": []})

    def _answer(self, content):
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.requests, server.files, server.commits, server.created = [], {}, [], None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(config, tmp_path) -> Path:
    """A finished run: the model, and beside it what nobody else should get."""
    folder = tmp_path / "run"
    transformer2017.Transformer2017ForConditionalGeneration(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "cat": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>").save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    (folder / "curves.png").write_bytes(b"\x89PNG")
    (folder / "training_args.bin").write_bytes(b"pickled")
    (folder / "trainer_state.json").write_text("{}")
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "model.safetensors").write_bytes(b"old")
    (folder / ".data").mkdir()
    (folder / ".data" / "train.arrow").write_bytes(b"the corpus")
    return folder


def run_against(hub, words: list[str], tmp_path: Path) -> subprocess.CompletedProcess:
    """Runs Python in a process of its own whose Hub is the stand-in."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(tmp_path / "home"),
    }
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=environment)


def test_one_call_uploads_model_code_pipeline_tokenizer_and_card(hub, folder, tmp_path):
    """Every file that is needed and no other arrives; what arrives loads with equal weights."""
    code = (
        "from transformer2017.training.hub import push_folder\n"
        f"print(push_folder({str(folder)!r}, 'me/en-de', private=True, token='hf_secret'))"
    )
    done = run_against(hub, ["-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("/me/en-de/commit/" + "0" * 40)
    assert hub.created["visibility"] == "private"
    assert {authorization for _, authorization in hub.requests} <= {"Bearer hf_secret", None}
    assert len(hub.commits) == 1
    modeling = Path(transformer2017.modeling.__file__).parent
    expected = {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "curves.png",
    }  # fmt: skip
    assert expected <= set(hub.files)
    copied = {name for name in hub.files if name.endswith(".py")}
    assert copied == {file.name for file in folder.glob("*.py")}
    assert {"pipeline_transformer2017.py", "modeling_transformer2017.py", "documents.py"} <= copied
    assert copied <= {file.name for file in modeling.glob("*.py")} | {"presets.py"}
    assert set(hub.files) == expected | copied
    received = tmp_path / "received"
    received.mkdir()
    for name, content in hub.files.items():
        (received / name).write_bytes(content)
    model = transformer2017.Transformer2017ForConditionalGeneration.from_pretrained(received)
    again = transformer2017.Transformer2017ForConditionalGeneration.from_pretrained(folder)
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())


def test_one_flag_of_train_uploads_the_finished_folder_alone(hub, tmp_path):
    """One commit, at the end; no checkpoint and no pickle on the way, and the token in no file."""
    (tmp_path / "train.en").write_text("one two\nthree four\ntwo one\n" * 20)
    (tmp_path / "train.de").write_text("eins zwei\ndrei vier\nzwei eins\n" * 20)
    flags = {
        "train_source": tmp_path / "train.en", "train_target": tmp_path / "train.de", "preset": "tiny",
        "vocab_size": 300, "d_model": 16, "d_ff": 16, "max_steps": 2, "save_steps": 1, "batch_tokens": 100,
        "output_dir": tmp_path / "run", "hub_model_id": "me/en-de", "hub_token": "hf_secret", "push_to_hub": "true",
    }  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    done = run_against(hub, ["-m", "transformer2017", "train", *words], tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(hub.commits) == 1
    kinds = {Path(name).suffix for name in hub.files}
    assert kinds == {".safetensors", ".json", ".py", ".md", ".png"}
    assert {"config.json", "tokenizer.json", "README.md", "pipeline_transformer2017.py"} <= set(hub.files)
    assert not any(b"hf_secret" in content for content in hub.files.values())
    assert b"hf_secret" not in (tmp_path / "run" / "_run" / "flags.json").read_bytes()
    words[words.index("me/en-de")] = "me/other"
    again = run_against(hub, ["-m", "transformer2017", "train", *words], tmp_path)  # had the first upload failed
    assert "This run is finished" in again.stdout
    assert len(hub.commits) == 2
    assert b'from_pretrained("me/other"' in hub.files["README.md"]


def test_an_upload_that_cannot_be_is_known_before_training(tmp_path):
    """Offline here; and what Trainer would send while training is refused."""
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, push_to_hub=True)
    with pytest.raises(RunError, match="HF_HUB_OFFLINE is set"):
        Upload(arguments)
    assert not arguments.push_to_hub
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, push_to_hub=True, hub_strategy="every_save", report_to="none"
    )
    with pytest.raises(UsageError, match="--hub_strategy can be end alone"):
        Upload(arguments)


def test_failures_are_one_sentence(folder, tmp_path, monkeypatch):
    """A folder without a model, no way to the Hub, and errors of the client's own kind, which are no OSError."""
    with pytest.raises(UsageError, match="holds no model to upload"):
        push_folder(tmp_path, "me/en-de")
    with pytest.raises(RunError, match="cannot be uploaded to"):
        push_folder(folder, "me/en-de")
    monkeypatch.setattr(HfApi, "create_repo", Mock(side_effect=Exception("[Errno -2] Name or service not known")))
    with pytest.raises(RunError, match=r"me/en-de cannot be uploaded to: .*not known"):
        push_folder(folder, "me/en-de")
