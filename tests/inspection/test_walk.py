import inspect

import numpy as np
import pytest
import torch
from transformer2017 import Transformer2017ForConditionalGeneration
from transformer2017.configuration import RunError, Transformer2017Config
from transformer2017.inspection import explain
from transformer2017.inspection.code_lines import find_line
from transformer2017.inspection.terms import STOPS


@pytest.fixture(scope="module")
def stops(explanation):
    return {stop.text.key: stop for stop in explanation.walk}


@pytest.mark.parametrize(
    ("stop", "place"), [(stop, place) for stop in STOPS for place in stop.code], ids=lambda x: str(x)[:60]
)
def test_each_stop_finds_its_line(small_model, stop, place):
    """Fails when a stop's line has gone from modeling/: the walk would point nowhere."""
    line = find_line(small_model, *place)
    module = __import__(f"transformer2017.modeling.{place[0]}", fromlist=["x"])
    assert inspect.getsource(module).splitlines()[line.number - 1].strip() == line.code
    assert place[2] in line.code
    assert not line.code.startswith(("def ", '"""', "#"))


def test_a_line_that_has_gone_is_told(small_model):
    with pytest.raises(RunError, match=r"no line of FeedForward\.forward"):
        find_line(small_model, "feed_forward", "FeedForward.forward", "self.w_3(")
    with pytest.raises(RunError, match=r"feed_forward\.py has no FeedBack"):
        find_line(small_model, "feed_forward", "FeedBack", "x")


def test_each_stop_has_numbers_and_shapes(stops):
    for stop in stops.values():
        for exhibit in stop.exhibits:
            assert exhibit.values.shape[0] == len(exhibit.rows)
            assert exhibit.shape
        assert stop.exhibits


def test_the_walk_begins_with_the_letters_and_the_tokenizers_ids(stops, tokenizer, explanation):
    assert "".join(map(chr, stops["text"].exhibits[0].values[0])) == explanation.text
    assert stops["tokens"].exhibits[0].values.tolist() == [tokenizer(explanation.text)["input_ids"]]


def test_each_stop_has_its_term_in_english_and_korean():
    for stop in STOPS:
        assert stop.code
        assert stop.term.isascii() or "√" in stop.term
        assert any("가" <= letter <= "힣" for letter in stop.korean)
    assert len({stop.key for stop in STOPS}) == len(STOPS)


def test_positions_are_the_papers_sines(stops, explanation):
    """§3.5 written out in numpy."""
    length, d_model = len(explanation.source), 24
    encoding = np.zeros((length, d_model))
    for position in range(length):
        for i in range(0, d_model, 2):
            angle = position / 10000 ** (i / d_model)
            encoding[position, i], encoding[position, i + 1] = np.sin(angle), np.cos(angle)
    shown = stops["positional_encoding"].exhibits[0].values
    np.testing.assert_allclose(shown.numpy(), encoding, atol=1e-5)


def test_the_walk_is_the_papers_formula_of_attention(stops, small_model, explanation):
    """Weights, gathered values and W_O follow from the queries, keys and values that earlier stops show (§3.2.1)."""
    q, k, v = (stops[key].exhibits[0].values for key in ("queries", "keys", "values"))
    x = stops["input_embedding"].exhibits[0].values
    layer = small_model.model.encoder.layers[0]
    torch.testing.assert_close(q, (x @ layer.self_attention.w_q.weight.T + layer.self_attention.w_q.bias)[:, :6])
    weights = (q @ k.T / 6**0.5).softmax(-1)
    torch.testing.assert_close(stops["softmax"].exhibits[0].values, weights)
    torch.testing.assert_close(stops["heads"].exhibits[0].values, weights @ v)
    torch.testing.assert_close(explanation.encoder_attention[0, 0], weights)
    joined, out = (exhibit.values for exhibit in stops["heads"].exhibits[1:])
    torch.testing.assert_close(out, joined @ layer.self_attention.w_o.weight.T + layer.self_attention.w_o.bias)
    torch.testing.assert_close(stops["residual"].exhibits[0].values, x + out)


def test_normalised_positions_have_mean_0_and_deviation_1(stops):
    """At initialisation the learned scale is 1 and the shift 0."""
    after = stops["layer_norm"].exhibits[1].values[:, 2:]
    torch.testing.assert_close(after, torch.tensor([[0.0, 1.0]]).expand_as(after), atol=1e-3, rtol=0)


def test_the_mask_hides_the_future(stops):
    _, mask, weights = (exhibit.values for exhibit in stops["mask"].exhibits)
    future = torch.ones_like(mask).triu(1).bool()
    assert torch.equal(mask.bool(), future)
    assert not weights[future].any()


def test_the_walk_ends_at_the_models_probabilities(stops, explanation):
    shown = stops["next_word"].exhibits[0].values[0]
    torch.testing.assert_close(shown, explanation.next_word[0].topk(len(shown)).values)


def test_the_walk_tells_of_the_model_that_it_is(tokenizer):
    """Row E has learned its positions, and an imported Marian model has another activation and a bias."""
    config = Transformer2017Config(
        vocab_size=len(tokenizer), d_model=24, d_ff=40, num_heads=3, encoder_layers=1, decoder_layers=1,
        learned_positions=20, activation_function="silu", logits_bias=True,
    )  # fmt: skip
    model = Transformer2017ForConditionalGeneration(config).eval()
    shown = {stop.text.key: stop for stop in explain(model, tokenizer, "two dogs .", num_beams=1).walk}
    assert "has learned them" in shown["positional_encoding"].text.says
    assert [line.code for line in shown["positional_encoding"].lines] == [
        find_line(model, "embeddings", "InputEmbedding.forward", "self.positions(positions)").code
    ]
    assert "with a silu between them" in shown["feed_forward"].text.says
    assert shown["feed_forward"].exhibits[0].name == "silu(x W_1 + b_1)"
    assert "plus a bias" in shown["projection"].text.says
    assert {stop.text for stop in shown.values()} & set(STOPS) == set(STOPS) - {
        stop for stop in STOPS if stop.key in ("positional_encoding", "feed_forward", "projection")
    }


def test_the_walk_goes_through_the_layer_asked_for(small_model, tokenizer):
    """In the shallower stack it goes through the last layer."""
    deep = explain(small_model, tokenizer, "two dogs .", num_beams=1, walk_layer=3)
    shown = {stop.text.key: stop.exhibits for stop in deep.walk}
    torch.testing.assert_close(shown["softmax"][0].values, deep.encoder_attention[2, 0])
    torch.testing.assert_close(shown["mask"][2].values, deep.decoder_attention[1, 0])
