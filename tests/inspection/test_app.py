import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
import torch
from huggingface_hub import ModelCard
from transformer2017.cli import main
from transformer2017.configuration import UsageError
from transformer2017.inspection.app import MOST_CHARACTERS, MOST_LINES, Workbench


@pytest.fixture(scope="module")
def bench(small_model, tokenizer):
    return Workbench(small_model, tokenizer)


def test_each_line_gets_its_own_best_translations(bench, small_model, tokenizer):
    """Batched together, with an empty line between, each line's n best are those of `generate()` on it alone."""
    lines = ["two young dogs are running on the grass .", "", "a man ."]
    found = bench.translate("\n".join(lines), num_beams=3, length_penalty=0.6, best=2)
    assert [(f.line, f.rank) for f in found] == [(1, 1), (1, 2), (3, 1), (3, 2)]
    for f in found:
        outputs = small_model.generate(
            **tokenizer(lines[f.line - 1], return_tensors="pt"), num_beams=3, num_return_sequences=2,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        assert f.text == tokenizer.decode(outputs.sequences[f.rank - 1], skip_special_tokens=True)
        assert f.score == pytest.approx(float(outputs.sequences_scores[f.rank - 1]), abs=1e-4)


def test_greedy_search_gives_one_translation_and_no_score(bench, small_model, tokenizer):
    found = bench.translate("a man .\ntwo young dogs are running", num_beams=1, length_penalty=1.0, best=4)
    row = small_model.generate(**tokenizer("a man .", return_tensors="pt"), num_beams=1)
    assert found[0].text == tokenizer.decode(row[0], skip_special_tokens=True)
    assert [(f.rank, f.score) for f in found] == [(1, None), (1, None)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "nothing to translate"),
        ("a\n" * (MOST_LINES + 1), "lines are too many"),
        ("a\n" + "b" * (MOST_CHARACTERS + 1), "line 2 has 2001 characters"),
    ],
)
def test_what_is_too_much_is_refused(bench, text, told):
    with pytest.raises(UsageError, match=told):
        bench.translate(text, 1, 1.0, 1)
    with pytest.raises(UsageError):
        bench.look_inside(text, 999, 1, 1.0)


def test_looking_inside_and_translating_at_once_gives_the_same_answers(bench):
    """The recorder changes how the model runs, so callers must take turns."""
    alone = bench.translate("two young dogs .", 2, 0.6, 1)
    answers: list[object] = []

    def translate() -> None:
        answers.append(bench.translate("two young dogs .", 2, 0.6, 1))

    work = [
        *(threading.Thread(target=bench.look_inside, args=("a man rides", 1, 2, 0.6)) for _ in range(2)),
        *(
            threading.Thread(target=lambda: answers.append(bench.translate("two young dogs .", 2, 0.6, 1)))
            for _ in "abcd"
        ),
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert answers == [alone] * 4
    assert torch.is_grad_enabled()


def test_nothing_but_the_page_is_served(small_model, tokenizer):
    """The page listens on this computer alone and gives out no file of it."""
    pytest.importorskip("gradio", reason="Gradio is not installed")
    from transformer2017.inspection import app

    blocks = app.build(small_model, tokenizer, "tiny")
    _, url, shared = app.launch(blocks, "127.0.0.1", None, wait=False)
    try:
        assert url.startswith("http://127.0.0.1:")
        assert shared is None
        for path in ("/etc/passwd", __file__, "/proc/self/environ"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{url}gradio_api/file={path}")
            assert refused.value.code in (403, 404)
        form = (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="../../x"\r\n\r\nmany bytes\r\n--x--\r\n'
        )
        request = urllib.request.Request(
            f"{url}gradio_api/upload", form, {"Content-Type": "multipart/form-data; boundary=x"}
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == 413
    finally:
        blocks.close()


def test_a_space_names_what_the_hub_reads(tmp_path, capsys):
    """Hugging Face reads the front matter, installs the requirements, and starts app.py with no package of ours."""
    space = tmp_path / "space"
    assert main(["app", "someone/en-de", "--space", str(space)]) == 0
    assert "hf upload USER/en-de" in capsys.readouterr().out
    card = ModelCard.load(space / "README.md").data.to_dict()
    assert (card["sdk"], card["app_file"], card["models"]) == ("gradio", "app.py", ["someone/en-de"])
    needed = dict(re.findall(r"^(\S+)==(\S+)$", (space / "requirements.txt").read_text(), re.MULTILINE))
    assert set(needed) == {"torch", "transformers", "gradio"}
    assert "\nsentencepiece\n" in (space / "requirements.txt").read_text()  # or opus-mt's tokenizers do not load
    assert card["sdk_version"] == needed["gradio"]
    assert '"app", os.environ.get("MODEL", \'someone/en-de\')' in (space / "app.py").read_text()


def test_a_space_runs_as_it_stands(tmp_path, model_folder):
    """Started as the Hub starts it, the page answers, out of the code in the folder and not the installed package."""
    pytest.importorskip("gradio", reason="Gradio is not installed")
    space = tmp_path / "space"
    assert main(["app", "someone/en-de", "--space", str(space)]) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MODEL": model_folder, "SPACE_ID": "someone/space", "GRADIO_SERVER_PORT": str(port)}
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-v", "app.py"], cwd=space, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        assert "Translate, and look inside" in answer(f"http://127.0.0.1:{port}/config", server)
    finally:
        server.kill()
        server.wait()
    loaded = re.findall(
        r"(?:matches|code object from) '?(/\S*transformer2017\S*\.py)\b", (tmp_path / "log").read_text()
    )
    ours = [path for path in loaded if path.endswith(("inspection/app.py", "modeling_transformer2017.py"))]
    assert ours
    assert all(path.startswith(str(space)) for path in ours)


def answer(address: str, server: subprocess.Popen) -> str:
    """What a server says once it is up, within two minutes."""
    for _ in range(240):
        assert server.poll() is None, "the server has ended"
        try:
            return urllib.request.urlopen(address).read().decode()
        except OSError:
            time.sleep(0.5)
    pytest.fail("the server does not answer")


def test_a_space_cannot_hold_a_folder_of_this_computer(model_folder, tmp_path, capsys):
    assert main(["app", model_folder, "--space", str(tmp_path / "space")]) == 2
    assert "give its name there" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_that_cannot_be_is_refused(port, capsys):
    assert main(["app", "MODEL", "--port", port]) == 2
    assert "--port is a number from 1 to 65535" in capsys.readouterr().err
