"""A page to translate in and to look inside: for this computer, or as a Space of the Hub. It needs Gradio."""

import html
import threading
from dataclasses import dataclass
from typing import Any

from transformer2017.configuration import RunError, UsageError
from transformer2017.modeling.documents import without_surrogates
from transformer2017.modeling.translation import Translator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .explanation import explain
from .page import page

MOST_LINES = 200
MOST_CHARACTERS = 2000  # of a line
MOST_WAITING = 64  # callers; those beyond are told to come back
MOST_BEAMS = 12
FONTS = ["system-ui", "Noto Sans", "Noto Sans KR", "sans-serif"]  # of the reader's computer: none is fetched


@dataclass(frozen=True)
class Found:
    """One translation of a line."""

    line: int  # counted from 1
    rank: int  # 1 for the best
    text: str
    score: float | None  # what beam search ranks by; greedy search ranks nothing


class Workbench:
    """The model behind the page. One caller at a time: looking inside changes how the model runs while it lasts."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.lock = threading.Lock()

    def translate(self, text: str, num_beams: int, length_penalty: float, best: int) -> list[Found]:
        """The best translations of each line that is not empty, in order.

        Raises:
            UsageError: If there are too many lines, or a line is too long.
        """
        lines = _lines(text)
        ranked: dict[str, Any] = {"num_return_sequences": min(best, num_beams), "length_penalty": length_penalty}
        options = ranked if num_beams > 1 else {}
        translator = Translator(self.model, self.tokenizer, num_beams=num_beams, do_sample=False, **options)
        with self.lock:
            translations = list(translator.translate(lines))
        return [
            Found(number, rank, words, score)
            for number, translation in enumerate(translations, start=1)
            for rank, (words, score) in enumerate(translation.hypotheses, start=1)
        ]

    def look_inside(self, text: str, line: int, num_beams: int, length_penalty: float) -> str:
        """The page of `explain` for one line, as HTML.

        Raises:
            UsageError: If there is no such line, or it is empty or too long.
        """
        lines = _lines(text)
        if not 1 <= line <= len(lines):
            raise UsageError(f"there are lines 1 to {len(lines)}, and no line {line}")
        with self.lock:
            explanation = explain(
                self.model,
                self.tokenizer,
                lines[line - 1],
                num_beams=num_beams,
                length_penalty=length_penalty if num_beams > 1 else None,
            )
        return page(explanation)


def _lines(text: str) -> list[str]:
    lines = [without_surrogates(line).strip() for line in text.splitlines()]
    if not any(lines):
        raise UsageError("there is nothing to translate: write or paste some text")
    if len(lines) > MOST_LINES:
        raise UsageError(f"{len(lines)} lines are too many for this page, which takes {MOST_LINES}")
    for number, line in enumerate(lines, start=1):
        if len(line) > MOST_CHARACTERS:
            raise UsageError(f"line {number} has {len(line)} characters, and this page takes {MOST_CHARACTERS} a line")
    return lines


def build(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> Any:
    """Makes the page.

    Args:
        name: What the model is called at the top of the page.

    Returns:
        A `gradio.Blocks`, which `launch` serves.
    """
    gradio = _gradio()
    bench = Workbench(model, tokenizer)
    with gradio.Blocks(title="transformer2017", analytics_enabled=False) as blocks:
        gradio.HTML(f"<h1>Translate, and look inside</h1><p>Model: <bdi>{html.escape(name)}</bdi></p>")
        text = gradio.Textbox(label="Text, a sentence a line", lines=4, max_lines=14, elem_id="text")
        with gradio.Row():
            num_beams = gradio.Slider(1, MOST_BEAMS, value=4, step=1, label="Beam size", elem_id="num-beams")
            length_penalty = gradio.Slider(0, 2, value=_usual_penalty(model), step=0.1, label="Length penalty")
            best = gradio.Slider(1, MOST_BEAMS, value=4, step=1, label="Translations of a line")
        button = gradio.Button("Translate", variant="primary", elem_id="translate")
        output = gradio.Textbox(label="Best translations", lines=4, max_lines=14, elem_id="output", buttons=["copy"])
        table = gradio.Dataframe(
            headers=["line", "rank", "translation", "score"],
            datatype=["number", "number", "str", "str"],
            label="All translations, best first",
            interactive=False,
            wrap=True,
            column_widths=["64px", "64px", "auto", "96px"],
            elem_id="table",
        )
        with gradio.Row():
            line = gradio.Number(1, label="Line to look into", precision=0, minimum=1, elem_id="line")
            inside = gradio.Button("Look inside", elem_id="inside")
        picture = gradio.HTML(elem_id="picture")
        button.click(
            _told(gradio, lambda *given: _tables(bench, *given)),
            [text, num_beams, length_penalty, best],
            [output, table],
            api_name="translate",
        )
        inside.click(
            _told(gradio, lambda *given: _frame(bench, *given)),
            [text, line, num_beams, length_penalty],
            picture,
            api_name="look_inside",
        )
    return blocks.queue(max_size=MOST_WAITING, default_concurrency_limit=1)


def launch(blocks: Any, host: str, port: int | None, *, wait: bool = True) -> Any:
    """Serves the page; nothing but the page can be fetched from it, and no request leaves it.

    Args:
        host: Address to listen at; "127.0.0.1" is this computer alone.
        port: The first free one from 7860 if None.
        wait: Whether to serve until interrupted.

    Raises:
        RunError: If the port is taken.
    """
    gradio = _gradio()
    theme = gradio.themes.Base(font=FONTS, font_mono=["ui-monospace", "monospace"])
    try:
        return blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            theme=theme,
            footer_links=[],
            ssr_mode=False,
            enable_monitoring=False,
            max_file_size=1,  # of a byte: the page takes no files
            state_session_capacity=2 * MOST_WAITING,  # callers that Gradio keeps some 30 KB of: it would be 10,000
            prevent_thread_lock=not wait,
        )
    except OSError as error:
        raise RunError(f"the page could not be served at {host}, port {port or 'from 7860'}: {error}") from error


def _gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise UsageError("the app needs Gradio: pip install 'transformer2017[app]'") from error
    return gradio


def _usual_penalty(model: PreTrainedModel) -> float:
    penalty = model.generation_config.length_penalty
    return 1.0 if penalty is None else min(2.0, max(0.0, float(penalty)))


def _told(gradio: Any, work: Any) -> Any:
    """The work, with the user's faults told on the page."""

    def run(*given: Any) -> Any:
        try:
            return work(*given)
        except (UsageError, RunError) as error:
            raise gradio.Error(html.escape(str(error)), print_exception=False) from error

    return run


def _tables(
    bench: Workbench, text: str, num_beams: int, length_penalty: float, best: int
) -> tuple[str, list[list[Any]]]:
    found = bench.translate(text, _beams(num_beams), float(length_penalty), max(1, int(best)))
    winners = {translation.line: translation.text for translation in found if translation.rank == 1}
    best_lines = [winners.get(number, "") for number in range(1, len(text.splitlines()) + 1)]
    return "\n".join(best_lines), [
        [f.line, f.rank, f.text, None if f.score is None else round(f.score, 4)] for f in found
    ]


def _frame(bench: Workbench, text: str, line: int, num_beams: int, length_penalty: float) -> str:
    """The page of `explain` in a frame of its own, which can reach neither this page nor the network."""
    inner = html.escape(bench.look_inside(text, int(line or 1), _beams(num_beams), float(length_penalty)), quote=True)
    return (
        f'<iframe title="The translation from inside" sandbox="allow-scripts" srcdoc="{inner}" '
        'style="width:100%;height:80vh;border:1px solid #8888;border-radius:8px"></iframe>'
    )


def _beams(given: float) -> int:
    """The beam size within the page's bounds, whatever a caller sends."""
    return min(MOST_BEAMS, max(1, int(given)))
