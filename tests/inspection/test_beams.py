import math

import pytest
import torch
from transformer2017.inspection import Hypothesis, why_the_winner_won
from transformer2017.inspection.beams import search

SENTENCE = "a man rides a red bicycle ."


@pytest.fixture(scope="module")
def inputs(tokenizer):
    return dict(tokenizer(SENTENCE, return_tensors="pt"))


@pytest.fixture(scope="module")
def found(small_model, tokenizer, inputs):
    return search(small_model, tokenizer, inputs, num_beams=4, length_penalty=0.6)


def test_watching_does_not_change_the_search(small_model, inputs, found):
    """The hypotheses and their scores are those of `generate()` unwatched."""
    outputs = small_model.generate(
        **inputs, num_beams=4, num_return_sequences=4, length_penalty=0.6, return_dict_in_generate=True,
        output_scores=True,
    )  # fmt: skip
    for hypothesis, row, score in zip(found.hypotheses, outputs.sequences, outputs.sequences_scores, strict=True):
        assert list(hypothesis.tokens) == row[1 : len(hypothesis.tokens) + 1].tolist()
        assert hypothesis.score == pytest.approx(float(score), abs=1e-5)


def test_scores_are_log_probability_over_a_power_of_the_length(found):
    """The formula that transformers documents: the sum divided by length ** length_penalty."""
    for hypothesis in found.hypotheses:
        assert hypothesis.score == pytest.approx(hypothesis.total / len(hypothesis.tokens) ** 0.6, abs=1e-5)


@pytest.mark.parametrize("num_beams", [1, 4])
def test_beams_have_the_probabilities_of_a_plain_forward_pass(small_model, tokenizer, inputs, num_beams):
    """Each beam's score and continuations agree with reading its prefix from the start, without a cache."""
    steps = search(small_model, tokenizer, inputs, num_beams=num_beams).steps
    for step in steps:
        for beam in step:
            with torch.no_grad():
                logits = small_model(**inputs, decoder_input_ids=torch.tensor([[1, *beam.prefix]])).logits[0]
            log_p = logits.log_softmax(-1)
            total = sum(float(log_p[i, token]) for i, token in enumerate(beam.prefix))
            assert beam.score == pytest.approx(total, abs=1e-3)
            for choice in beam.choices:
                own = float(log_p[-1, choice.token])
                assert choice.probability == pytest.approx(math.exp(own), abs=1e-4)
                assert choice.score == pytest.approx(total + own, abs=1e-3)


def test_as_many_beams_live_as_were_asked_for(found):
    """At the first step all beams are one; afterwards each is a different prefix, best first."""
    assert [len(step) for step in found.steps[:3]] == [1, 4, 4]
    for step in found.steps:
        scores = [beam.score for beam in step]
        assert scores == sorted(scores, reverse=True)
        assert len({beam.prefix for beam in step}) == len(step)


def test_why_names_the_length_penalty_where_it_decided():
    """A longer hypothesis that wins against a likelier one owes it to the penalty; one that is likeliest does not."""
    short = Hypothesis((4, 2), (-1.0, -1.0), -1.3, "short one")
    long = Hypothesis((4, 5, 6, 2), (-0.6,) * 4, -1.04, "a longer one")
    assert 'By probability alone "short one" would have come first' in why_the_winner_won((long, short))
    assert "the length penalty did not decide" in why_the_winner_won((short, long))
    assert "Greedy" in why_the_winner_won((short,))
