"""The page of `explain` and the app in a real browser: what a reader sees, clicks and types."""

import pytest
from transformer2017.inspection import explain, write_page
from transformer2017.inspection.tokens import plain

SENTENCE = "two young <script>document.title='broken'</script> 두 마리의 שני כלבים ."


@pytest.fixture(scope="module")
def found(small_model, tokenizer):
    return explain(small_model, tokenizer, SENTENCE, num_beams=3)


@pytest.fixture
def page(browser, found, tmp_path):
    """The page of that sentence, opened from its file at the size of a desktop's window."""
    size(browser, 1000, 900)
    browser.get(write_page(found, tmp_path / "page.html").as_uri())
    return browser


def size(browser, width: int, height: int) -> None:
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def find(browser, selector: str):
    return browser.find_element("css selector", selector)


def test_text_of_any_script_shows_and_none_of_it_runs(page, found):
    assert find(page, "#text").text == found.text
    assert page.title.startswith("two young <script>")
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    rows = "return [...document.querySelectorAll('#attention .rows bdi')].map(x => x.textContent)"
    assert page.execute_script(rows) == [plain(name) for name in found.source]
    directions = (
        "return [...document.querySelectorAll('#attention .rows bdi')].map(x => getComputedStyle(x).unicodeBidi)"
    )
    assert set(page.execute_script(directions)) == {"isolate"}


def test_a_click_on_a_head_shows_that_heads_numbers(page, found):
    """Layer 3, head 2 of the encoder: the number under the pointer is the model's."""
    find(page, "#picker [data-layer='2'][data-head='1']").click()
    assert find(page, "#chosen").text == "Encoder self-attention: layer 3, head 2"
    hover = """
      const canvas = document.querySelector("#attention-picture canvas"), box = canvas.getBoundingClientRect();
      const high = box.height / arguments[0], wide = box.width / arguments[0];
      canvas.dispatchEvent(new PointerEvent("pointermove",
        { clientX: box.left + wide * (arguments[2] + .5), clientY: box.top + high * (arguments[1] + .5) }));
      return document.querySelector("#attention-picture output").textContent;"""
    shown = page.execute_script(hover, len(found.source), 1, 2)
    assert float(shown.rpartition(":")[2]) == pytest.approx(float(found.encoder_attention[2, 1, 1, 2]), abs=1e-4)


def test_the_keyboard_alone_reaches_heads_and_cells(page, found):
    from selenium.webdriver.common.keys import Keys

    find(page, "#kinds button").send_keys(Keys.ARROW_RIGHT)
    assert "Masked decoder" in find(page, "#chosen").text
    find(page, "#picker [aria-pressed=true]").send_keys(Keys.ARROW_DOWN)
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert find(page, "#chosen").text.endswith("layer 2, head 2")
    canvas = find(page, "#attention-picture canvas")
    canvas.send_keys(Keys.ARROW_DOWN)
    page.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    shown = find(page, "#attention-picture output").text
    assert float(shown.rpartition(":")[2]) == pytest.approx(float(found.decoder_attention[1, 1, 1, 0]), abs=1e-4)


def test_lines_between_words_follow_the_word_that_is_pointed_at(page, found):
    page.find_elements("css selector", "#views button")[1].click()
    lines = (
        "return [...document.querySelectorAll('#attention-picture line')].filter(x => x.style.display === '').length"
    )
    weights = (found.encoder_attention[0, 0] * 65535).round() / 65535  # the page keeps 16 bits
    assert page.execute_script(lines) == int((weights >= 0.02).sum())
    page.execute_script("document.querySelectorAll('.lines .left button')[1].focus()")
    assert page.execute_script(lines) == int((weights[1] >= 0.02).sum())


def test_a_step_shows_its_words_and_beams(page, found):
    page.find_elements("css selector", "#steps button")[2].click()
    assert find(page, "#step p").text.startswith("Step 3 wrote")
    rows = page.find_elements("css selector", "#step table tr")
    assert len(rows) - 1 == len(found.search.steps[2])
    assert len(page.find_elements("css selector", "#hypotheses tr")) - 1 == 3


def test_the_walk_names_code_and_korean_terms(page, found):
    articles = page.find_elements("css selector", "#stops article")
    assert len(articles) == len(found.walk)
    for article, stop in zip(articles, found.walk, strict=True):
        text = article.get_attribute("textContent")
        assert stop.text.korean in text
        for line in stop.lines:
            assert f"{line.file}:{line.number}" in text


@pytest.mark.parametrize("width", [360, 1000])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(page, width, scheme):
    """Nothing sticks out sideways, and the ground and the ink change places."""
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    size(page, width, 800)
    page.refresh()
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    ground = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    assert (page.execute_script(ground) < 128) == (scheme == "dark")
    find(page, "#theme").click()
    assert (page.execute_script(ground) < 128) == (scheme != "dark")


@pytest.fixture(scope="module")
def address(small_model, tokenizer):
    """The app, served on this computer."""
    pytest.importorskip("gradio", reason="Gradio is not installed")
    from transformer2017.inspection import app

    blocks = app.build(small_model, tokenizer, "tiny <b>model</b>")
    _, url, _ = app.launch(blocks, "127.0.0.1", None, wait=False)
    yield url
    blocks.close()


def test_the_app_translates_what_is_typed(browser, address, small_model, tokenizer, tmp_path):
    """Type, click, read the result, look inside, take a picture; all requests stay on this computer."""
    from selenium.webdriver.support.ui import WebDriverWait

    size(browser, 1100, 1400)
    browser.get(address)
    wait = WebDriverWait(browser, 60)
    wait.until(lambda b: b.find_elements("css selector", "#text textarea"))
    find(browser, "#text textarea").send_keys("two young dogs .\n\n<script>document.title='broken'</script>")
    find(browser, "#translate button, button#translate").click()
    wait.until(lambda b: find(b, "#output textarea").get_attribute("value").strip())
    inputs = tokenizer("two young dogs .", return_tensors="pt")
    expected = tokenizer.decode(small_model.generate(**inputs, num_beams=4)[0], skip_special_tokens=True)
    lines = find(browser, "#output textarea").get_attribute("value").split("\n")
    assert len(lines) == 3
    assert lines[:2] == [expected, ""]
    assert expected in find(browser, "#table").text
    assert "<b>model</b>" in find(browser, "body").text
    find(browser, "#inside button, button#inside").click()
    frame = wait.until(
        lambda b: find(b, "#picture iframe") if b.find_elements("css selector", "#picture iframe") else 0
    )
    browser.switch_to.frame(frame)
    wait.until(lambda b: find(b, "#translation").text == expected)
    browser.switch_to.default_content()
    assert browser.title == "transformer2017"
    picture = tmp_path / "app.png"
    assert browser.save_screenshot(str(picture))
    assert picture.stat().st_size > 20_000
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(x => x.name)")
    assert [name for name in fetched if not name.startswith((address, "data:", "blob:"))] == []
