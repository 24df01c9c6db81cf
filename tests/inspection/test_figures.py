import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from transformer2017.configuration import UsageError
from transformer2017.inspection import figures
from transformer2017.inspection.fonts import MissingGlyphWarning, TextOrderWarning, families_for


def test_a_heat_map_shows_the_weights(explanation):
    for head in (None, 2):
        image = figures.heat_map(explanation, "cross", 2, head).axes[0].images[0].get_array()
        weights = explanation.cross_attention[1]
        np.testing.assert_allclose(image, weights.mean(0) if head is None else weights[1])


def test_lines_are_as_dark_as_the_weights(explanation):
    """One line for each weight that is not faint, from query to key, in the head's colour (the paper's Figure 3)."""
    weights = explanation.encoder_attention[0, 1]
    lines = figures.attention_lines(explanation, "encoder", 1, heads=[2]).axes[0].lines
    drawn = {tuple(int(x) for x in line.get_xdata()): line.get_alpha() for line in lines}
    expected = {(i, j): float(w) for i, row in enumerate(weights) for j, w in enumerate(row) if w >= 0.02}
    assert drawn == pytest.approx(expected)
    alone = figures.attention_lines(explanation, "encoder", 1, word=3).axes[0].lines
    assert {int(line.get_xdata()[0]) for line in alone} == {3}


def test_one_panel_a_head(explanation):
    panels = [axes for axes in figures.head_grid(explanation, "decoder", 1).axes if axes.get_visible()]
    for panel, weights in zip(panels, explanation.decoder_attention[0], strict=True):
        np.testing.assert_allclose(panel.images[0].get_array(), weights)


def test_the_alignment_marks_the_heaviest_source_token(explanation):
    axes = figures.alignment(explanation, 1).axes[0]
    assert list(axes.lines[0].get_xdata()) == explanation.cross_attention[0].mean(0).argmax(-1).tolist()


def test_the_next_word_is_drawn_as_bars(explanation):
    bars = figures.next_word(explanation, 2, words=5).axes[0].patches
    np.testing.assert_allclose([bar.get_width() for bar in bars], explanation.next_word[1].topk(5).values, atol=1e-6)


def test_numbers_that_name_something_are_written(explanation):
    """The ids of tokens, each under its token as the vocabulary has it."""
    axes = figures.exhibit(explanation.walk[1].exhibits[0]).axes[0]
    assert [text.get_text() for text in axes.texts] == [str(int(i)) for i in explanation.walk[1].exhibits[0].values[0]]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(explanation.source)


def test_colours_go_below_zero_only_where_numbers_do(explanation):
    """A bar of colours down to -1 beside attention's weights would say that they may be negative."""
    exhibits = [shown for stop in explanation.walk for shown in stop.exhibits if not shown.is_written]
    least = [figures.exhibit(shown).axes[0].images[0].get_clim()[0] for shown in exhibits]
    assert [low < 0 for low in least] == [bool((shown.values < 0).any()) for shown in exhibits]


def test_lines_of_several_heads_have_a_legend(explanation):
    legends = [figures.attention_lines(explanation, "cross", 1, heads).legends for heads in ([1, 3], [2])]
    assert [[text.get_text() for one in some for text in one.get_texts()] for some in legends] == [
        ["head 1", "head 3"],
        [],
    ]


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (lambda e: figures.heat_map(e, "encoder", 4), "layers 1 to 3, and no layer 4"),
        (lambda e: figures.heat_map(e, "encoder", 1, 9), "heads 1 to 3, and no head 9"),
        (lambda e: figures.heat_map(e, "both", 1), "no attention of kind 'both'"),
        (lambda e: figures.attention_lines(e, "encoder", 1, word=99), "no word 99"),
        (lambda e: figures.next_word(e, 0), "no step 0"),
    ],
)
def test_what_is_not_there_is_told(explanation, draw, told):
    with pytest.raises(UsageError, match=told):
        draw(explanation)


def test_a_layer_that_only_one_stack_has_is_the_others_last(explanation):
    """As in the walk: 3 layers in the encoder, 2 in the decoder."""
    names = {name for name, _ in figures._all(explanation, 3)}
    assert {"encoder-layer3-heads", "decoder-layer2-heads", "cross-layer2-heads"} <= names


@pytest.mark.parametrize(("form", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figures_are_saved_as_named(explanation, tmp_path, form, start):
    path = figures.save(figures.next_word(explanation, 1), tmp_path / f"a.{form}")
    assert path.read_bytes().startswith(start)


def test_another_installed_font_is_taken_for_letters_that_the_usual_one_lacks():
    """The families that are named have every letter between them, if any installed font has it."""
    usual_family = font_manager.FontProperties(family=matplotlib.rcParams["font.family"])
    usual = FT2Font(font_manager.findfont(usual_family)).get_charmap()
    others = [FT2Font(f.fname).get_charmap() for f in font_manager.fontManager.ttflist if f.fname.endswith(".ttf")]
    letter = next((code for chars in others for code in chars if code not in usual and chr(code).isprintable()), None)
    if letter is None:
        pytest.skip("every installed font has only letters that the usual one has too")
    families = families_for("a" + chr(letter))
    assert len(families) > len(matplotlib.rcParams["font.family"])
    paths = [font_manager.findfont(font_manager.FontProperties(family=name)) for name in families[-1:]]
    assert letter in FT2Font(paths[0]).get_charmap()


def test_a_letter_that_no_font_has_names_a_font_to_install(monkeypatch):
    """With no other font installed, Korean needs Noto Sans CJK KR, and the warning says so."""
    monkeypatch.setattr("transformer2017.inspection.fonts._installed", list)
    with pytest.warns(MissingGlyphWarning, match=r"\(한\).*Noto Sans CJK KR.*fonts-noto-cjk"):
        families_for("a한")


def test_an_old_matplotlib_is_told_to_write_hebrew_backwards(monkeypatch):
    """Only where a figure has right-to-left words."""
    monkeypatch.setattr(matplotlib, "__version_info__", (3, 10, 8))
    with pytest.warns(TextOrderWarning, match="matplotlib>=3.11"):
        families_for("שני")
    with warnings.catch_warnings():
        warnings.simplefilter("error", TextOrderWarning)
        families_for("two dogs")
