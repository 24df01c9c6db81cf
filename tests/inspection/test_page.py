import base64
import dataclasses
import json
import re

import numpy as np
import pytest
import torch
import transformer2017
from transformer2017.configuration import RunError, UsageError
from transformer2017.inspection import Exhibit, Stop, explain, write_page
from transformer2017.inspection.page import page


def data_of(text: str) -> dict:
    """What the page's script reads."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def test_the_page_stands_alone(explanation):
    """Nothing is fetched: no address, no import, and a policy that forbids both."""
    text = page(explanation)
    assert "default-src 'none'" in text
    shell = re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.S)
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", shell)) - {"http://www.w3.org/2000/svg"}
    assert not addresses
    assert not re.findall(r"<(?:link|img|iframe)|\bsrc=|@import|fetch\(|XMLHttpRequest|import\s*\(", shell)


def test_the_data_are_the_models_numbers(explanation):
    data = data_of(page(explanation))
    for shown in data["attention"]:
        weights = np.frombuffer(base64.b64decode(shown["data"]), "<u2") / 65535
        np.testing.assert_allclose(weights, explanation.attention(shown["kind"]).flatten().numpy(), atol=1e-5)
    exhibits = {(stop["key"], i): x for stop in data["walk"] for i, x in enumerate(stop["exhibits"])}
    for stop in explanation.walk:
        for i, exhibit in enumerate(stop.exhibits):
            shown = exhibits[stop.text.key, i]
            if "numbers" in shown:
                assert shown["numbers"] == exhibit.values.tolist()
                continue
            values = np.frombuffer(base64.b64decode(shown["data"]), "<i2") / 32767 * shown["scale"]
            expected = exhibit.values[:, : shown["width"]].flatten().numpy()
            np.testing.assert_allclose(values, expected, atol=shown["scale"] / 32767)


def test_large_numbers_of_tokens_and_letters_are_exact(explanation):
    """16 bits with a scale would show the 36,999th token as another: numbers that name something stay whole."""
    stop = Stop(
        explanation.walk[1].text, (), (Exhibit("ids", torch.tensor([[36999, 20001]]), ("id",), ("a", "b"), ""),)
    )
    data = data_of(page(dataclasses.replace(explanation, walk=(stop,))))
    assert data["walk"][0]["exhibits"][0]["numbers"] == [[36999, 20001]]


def test_beams_and_their_fates(explanation):
    """At each step exactly one continuation is on the winner's path, and those kept are the next step's beams."""
    data = data_of(page(explanation))
    steps = data["steps"]
    assert [step["written"] for step in steps] == list(explanation.target_output)
    for step, after in zip(steps, explanation.search.steps[1:], strict=False):
        fates = [choice[3] for beam in step["beams"] for choice in beam["choices"]]
        assert fates.count("wins") == 1
        assert fates.count("kept") + 1 <= len(after)
    assert [h["score"] for h in data["hypotheses"]] == sorted((h["score"] for h in data["hypotheses"]), reverse=True)


def test_text_cannot_become_markup(small_model, tokenizer):
    """Whatever the sentence holds, the page has only its own elements."""
    plain_page = page(explain(small_model, tokenizer, "dogs", num_beams=1))
    nasty = "</title></script><script>alert(1)</script><img src=x onerror=alert(1)> & ' \" <!-- \u2028"
    text = page(explain(small_model, tokenizer, nasty, num_beams=1))
    tags = re.compile(r"<[a-zA-Z!/]")
    assert len(tags.findall(text)) == len(tags.findall(plain_page))
    assert data_of(text)["text"] == nasty.strip()


def test_numbers_that_are_none_are_told(explanation):
    """A page of them would not open in any browser."""
    broken = dataclasses.replace(explanation, next_word=explanation.next_word * torch.nan)
    with pytest.raises(RunError, match="numbers are not finite"):
        page(broken)


def test_the_size_of_a_base_model_and_thirty_words(tokenizer):
    """Under 2 MB for 6 layers of 8 heads with d_model 512, and a sentence of 30 words in 45 tokens each way."""
    torch.manual_seed(3)
    config = transformer2017.Transformer2017Config.from_preset("base", vocab_size=len(tokenizer))
    model = transformer2017.Transformer2017ForConditionalGeneration(config).eval()
    model.generation_config.max_new_tokens = model.generation_config.min_new_tokens = 45
    found = explain(model, tokenizer, " ".join(["two young dogs are running"] * 6), num_beams=1)
    assert len(found.source) > 30
    assert len(found.target_output) == 45
    assert len(page(found).encode()) < 2_000_000


def test_a_page_is_whole_or_not_there(explanation, tmp_path):
    """No part of a file is left, and a folder that does not exist is told."""
    written = write_page(explanation, tmp_path / "a.html")
    assert written.read_text(encoding="utf-8").endswith("</html>\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    with pytest.raises(UsageError, match="there is no folder"):
        write_page(explanation, tmp_path / "none" / "a.html")
    with pytest.raises(UsageError, match="is a folder: name a file"):
        write_page(explanation, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
