"""What transformers' own generation tests check of MarianMT: every way that `generate()` decodes."""

import copy

import pytest
import torch
from transformer2017 import Transformer2017ForConditionalGeneration
from transformers import EncoderDecoderCache, GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation import GenerateBeamEncoderDecoderOutput, GenerateEncoderDecoderOutput, MaxLengthCriteria

LENGTH = 7
MODES = {
    "greedy": {},
    "sample": {"do_sample": True, "top_k": 20, "top_p": 0.9, "temperature": 0.7},
    "beam": {"num_beams": 3},
    "beam sample": {"num_beams": 3, "do_sample": True},
    "no repeats": {"num_beams": 3, "no_repeat_ngram_size": 2, "repetition_penalty": 1.2, "bad_words_ids": [[5, 6]]},
}


@pytest.fixture
def model(unending):
    return unending


def generate(model, source, **flags):
    torch.manual_seed(5)
    return model.generate(source, max_new_tokens=LENGTH, **flags)


def rescored(model, source, sequences):
    """The logits of each generated token, from one pass without a cache."""
    source = source.repeat_interleave(len(sequences) // len(source), dim=0)
    return model(source, decoder_input_ids=sequences).logits[:, :-1]


@pytest.mark.parametrize("mode", MODES)
def test_a_cache_changes_no_output(model, source, mode):
    with_cache, without = (generate(model, source, use_cache=cache, **MODES[mode]) for cache in (True, False))
    assert with_cache.shape == (3, 1 + LENGTH)
    assert with_cache.tolist() == without.tolist()


@pytest.mark.parametrize("mode", MODES)
def test_padding_on_the_left_changes_no_output(model, source, mode):
    left = torch.stack([row.roll(int((row == 0).sum())) for row in source])
    assert generate(model, left, **MODES[mode]).tolist() == generate(model, source, **MODES[mode]).tolist()


@pytest.mark.parametrize("mode", ["greedy", "sample", "beam"])
def test_attention_implementations_give_the_same_output(model, source, mode):
    expected = generate(model, source, **MODES[mode])
    model.set_attn_implementation("eager")
    assert generate(model, source, **MODES[mode]).tolist() == expected.tolist()


@pytest.mark.parametrize(("mode", "rows"), [("sample", 3), ("beam", 3), ("beam sample", 2)])
def test_num_return_sequences(model, source, mode, rows):
    sequences = generate(model, source, num_return_sequences=rows, **MODES[mode])
    assert sequences.shape == (3 * rows, 1 + LENGTH)
    if mode == "beam":  # the hypotheses of a beam differ, and the best comes first
        assert len({tuple(row) for row in sequences[:rows].tolist()}) == rows
        assert sequences[::rows].tolist() == generate(model, source, **MODES[mode]).tolist()


OUTPUTS = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
OUTPUTS |= {"output_attentions": True, "output_hidden_states": True}


@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])
@pytest.mark.parametrize("mode", ["greedy", "sample", "beam", "beam sample"])
def test_the_dictionary_of_outputs(model, source, mode, use_cache):
    model.set_attn_implementation("eager")
    beams, outputs = MODES[mode].get("num_beams", 1), 1 if mode == "greedy" else 2
    rows = 3 * max(beams, outputs)
    output = generate(model, source, use_cache=use_cache, num_return_sequences=outputs, **OUTPUTS, **MODES[mode])
    assert isinstance(output, GenerateBeamEncoderDecoderOutput if beams > 1 else GenerateEncoderDecoderOutput)
    assert output.sequences.shape == (3 * outputs, 1 + LENGTH)
    assert len(output.scores) == len(output.logits) == LENGTH
    assert all(step.shape == (rows, 97) for step in (*output.scores, *output.logits))
    assert [state.shape for state in output.encoder_hidden_states] == [(3, 7, 32)] * 4
    assert [weights.shape for weights in output.encoder_attentions] == [(3, 4, 7, 7)] * 3
    for step in range(LENGTH):
        read = 1 if use_cache else step + 1
        assert [w.shape for w in output.decoder_attentions[step]] == [(rows, 4, read, step + 1)] * 2
        assert [w.shape for w in output.cross_attentions[step]] == [(rows, 4, read, 7)] * 2
        assert [state.shape for state in output.decoder_hidden_states[step]] == [(rows, read, 32)] * 3
    if use_cache:
        assert isinstance(output.past_key_values, EncoderDecoderCache)
        assert output.past_key_values.get_seq_length() == LENGTH
    else:
        assert output.past_key_values is None


@pytest.mark.parametrize("mode", ["greedy", "beam"])
def test_transition_scores_are_those_of_the_tokens(model, source, mode):
    """`compute_transition_scores` against the log-probabilities of a pass over the whole output."""
    output = generate(model, source, return_dict_in_generate=True, output_scores=True, **MODES[mode])
    beams = output.get("beam_indices")
    scores = model.compute_transition_scores(output.sequences, output.scores, beams, normalize_logits=beams is None)
    probabilities = rescored(model, source, output.sequences).log_softmax(-1).float()
    expected = probabilities.gather(-1, output.sequences[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(scores.float(), expected, rtol=1e-4, atol=1e-5)
    if beams is not None:
        torch.testing.assert_close(output.sequences_scores.float(), expected.sum(-1) / LENGTH, rtol=1e-4, atol=1e-5)


def test_assisted_decoding_gives_the_greedy_output(model, source, config, scramble):
    assistant = scramble(Transformer2017ForConditionalGeneration(config)).double().eval()
    assistant.generation_config.eos_token_id = None
    expected = generate(model, source[:1])
    for helper in (assistant, model):  # one that guesses badly, one that guesses rightly
        assert generate(model, source[:1], assistant_model=helper).tolist() == expected.tolist()
    sampled = generate(model, source[:1], assistant_model=assistant, do_sample=True)
    assert sampled.shape == expected.shape


def test_prompt_lookup_gives_the_greedy_output(model, source):
    expected = generate(model, source[:1])
    assert generate(model, source[:1], prompt_lookup_num_tokens=2).tolist() == expected.tolist()


HELPERS = pytest.mark.parametrize("helper", [{"prompt_lookup_num_tokens": 2}, "assistant_model"], ids=str)


@HELPERS
def test_helped_decoding_returns_what_greedy_search_returns(model, source, helper):
    """For each token by itself, though several are read at once.

    Of attentions and hidden states the sizes alone: beside an assistant, transformers 5.23 takes those of the second
    token from the wrong position, of MarianMT as of this model.
    """
    model.set_attn_implementation("eager")
    helper = {helper: copy.deepcopy(model)} if isinstance(helper, str) else helper
    expected, helped = generate(model, source[:1], **OUTPUTS), generate(model, source[:1], **OUTPUTS, **helper)
    assert helped.past_key_values.get_seq_length() == LENGTH
    for name in ("sequences", "scores", "logits", "encoder_attentions", "encoder_hidden_states"):
        torch.testing.assert_close(helped[name], expected[name])
    for name in ("decoder_attentions", "cross_attentions", "decoder_hidden_states"):
        sizes = [[[layer.shape for layer in step] for step in output[name]] for output in (helped, expected)]
        assert sizes[0] == sizes[1]


@HELPERS
def test_helped_decoding_stops_at_the_end_token(model, source, helper):
    """Though the guesses go on behind it."""
    helper = {helper: model} if isinstance(helper, str) else helper
    free = generate(model, source[:1])[0].tolist()
    ended = generate(model, source[:1], eos_token_id=free[4], **helper)[0].tolist()
    assert ended == free[: free.index(free[4]) + 1]


@pytest.mark.parametrize("mode", ["greedy", "beam"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_forced_prefix_is_continued(model, source, mode, cache):
    """With the prefixes of two sentences padded on the left, each goes on as if it were alone."""
    prefix = torch.tensor([[0, 1, 9], [1, 30, 31], [0, 1, 12]])
    mask = (prefix != 0).long()
    flags = {**MODES[mode], "cache_implementation": cache, "disable_compile": True}
    together = generate(model, source, decoder_input_ids=prefix, decoder_attention_mask=mask, **flags)
    assert together[:, :3].tolist() == prefix.tolist()
    for n, row in enumerate(prefix):
        alone = generate(model, source[n : n + 1], decoder_input_ids=row[row != 0][None], **MODES[mode])
        assert together[n, 3:].tolist() == alone[0, int(mask[n].sum()) :].tolist()


@pytest.mark.parametrize("mode", ["greedy", "sample", "beam"])
def test_generation_from_embeddings_and_from_encoder_outputs(model, source, mode):
    expected = generate(model, source, **MODES[mode]).tolist()
    mask = (source != 0).long()
    rows = model.get_input_embeddings()(source)
    assert generate(model, None, inputs_embeds=rows, attention_mask=mask, **MODES[mode]).tolist() == expected
    encoded = model.get_encoder()(source, mask)
    assert generate(model, None, encoder_outputs=encoded, attention_mask=mask, **MODES[mode]).tolist() == expected


def test_generation_from_decoder_embeddings(model, source):
    prefix = torch.tensor([[1, 9]] * 3)
    expected = generate(model, source, decoder_input_ids=prefix)
    rows = model.get_input_embeddings()(prefix)
    first = model(source, decoder_inputs_embeds=rows).logits[:, -1].argmax(-1)
    assert first.tolist() == expected[:, 2].tolist()


def test_an_output_ends_at_the_end_token(model, source):
    """Sentences that have ended are padded; the others go on."""
    free = generate(model, source)
    end = free[0, 3].item()
    ended = generate(model, source, eos_token_id=end, pad_token_id=0)
    for n in range(3):
        row = free[n, 1:].tolist()
        keep = row.index(end) + 1 if end in row else len(row)
        assert ended[n, 1:].tolist() == (row[:keep] + [0] * LENGTH)[: ended.shape[1] - 1]


def test_custom_processors_and_criteria_are_heard(model, source):
    def only_seven(ids, scores):
        return torch.full_like(scores, -torch.inf).index_fill_(1, torch.tensor([7]), 0.0)

    sequences = model.generate(
        source,
        logits_processor=LogitsProcessorList([only_seven]),
        stopping_criteria=StoppingCriteriaList([MaxLengthCriteria(4)]),
        max_new_tokens=LENGTH,
    )
    assert sequences.tolist() == [[1, 7, 7, 7]] * 3


def test_the_papers_bound_on_the_output(model, source, tmp_path):
    """At most so many tokens more than the input (§6.1), where the caller sets no length; also once it is saved."""
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "decoder_start_token_id": 1}
    model.generation_config = GenerationConfig(**tokens, max_tokens_beyond_input=2)
    model.save_pretrained(tmp_path)
    for bounded in (model, type(model).from_pretrained(tmp_path)):
        assert bounded.generate(source).shape == (3, 1 + 7 + 2)
        assert bounded.generate(source, max_new_tokens=3).shape == (3, 1 + 3)


@pytest.mark.parametrize(
    ("removed", "flags"),
    [
        ("group beam search", {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0}),
        ("constrained beam search", {"num_beams": 4, "force_words_ids": [[5]]}),
        ("contrastive search", {"penalty_alpha": 0.6, "top_k": 4}),
    ],
)
def test_what_transformers_moved_out_says_so(model, source, removed, flags):
    """transformers 5 runs these from a repository on the Hub, for every model alike."""
    with pytest.raises(ValueError, match=r"trust_remote_code=True"):
        generate(model, source, **flags)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_generates(model, source, dtype):
    sequences = generate(model.to(dtype), source, num_beams=4, do_sample=True, num_return_sequences=3)
    assert sequences.shape == (9, 1 + LENGTH)


def test_generation_needs_no_input(model):
    """Then the source is the start token alone."""
    assert model.generate(max_new_tokens=4).shape == (1, 5)


def test_transformers_sees_that_the_model_generates():
    """It looks for its mixin in the names of the bases."""
    assert "GenerationMixin" in str(Transformer2017ForConditionalGeneration.__bases__)
    assert Transformer2017ForConditionalGeneration.can_generate()
