"""The fast path of `generate()` gives what transformers' own path gives, or leaves the work to it."""

import copy

import pytest
import torch
import transformer2017
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.nn.modules.module import register_module_forward_hook
from transformer2017 import Transformer2017ForConditionalGeneration
from transformer2017.modeling.decoding_ranker import first_of_largest
from transformer2017.modeling.decoding_weights import _sample
from transformer2017.modeling.output_length import with_bound
from transformers import (
    AttentionInterface,
    LogitsProcessor,
    LogitsProcessorList,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    StoppingCriteriaList,
    TextStreamer,
)
from transformers.generation import EosTokenCriteria, MaxLengthCriteria
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_outputs import BaseModelOutput


@pytest.fixture
def model(config):
    """Random weights, large enough that the beams differ and some hypotheses end."""
    model = transformer2017.Transformer2017ForConditionalGeneration(config).eval()
    for weight in model.parameters():
        weight.data *= 1.5
    return model


@pytest.fixture
def source(config):
    """Seven sentences, two of them padded."""
    ids = torch.randint(4, config.vocab_size, (7, 9))
    ids[2, 5:] = config.pad_token_id
    ids[4, 3:] = config.pad_token_id
    return {"input_ids": ids, "attention_mask": (ids != config.pad_token_id).long()}


MANY_ENDS = list(range(2, 30))  # so that hypotheses end at every length
MORE_ENDS = list(range(2, 80))  # so that they are most of the best candidates of a step
REQUESTS = [
    {},
    {"eos_token_id": MANY_ENDS},
    {"num_beams": 4},
    {"num_beams": 8, "num_return_sequences": 8, "eos_token_id": [2, 11, 15]},
    {"num_beams": 4, "early_stopping": True, "eos_token_id": [2, 11, 15]},
    {"num_beams": 3, "early_stopping": "never", "num_return_sequences": 3, "eos_token_id": [2, 11, 15]},
    {"num_beams": 4, "early_stopping": "never", "length_penalty": 2.0, "eos_token_id": MANY_ENDS},
    {"num_beams": 2, "early_stopping": "never", "length_penalty": 1.5, "eos_token_id": MORE_ENDS},
    {"num_beams": 4, "eos_token_id": MORE_ENDS},
    {"num_beams": 4, "length_penalty": 0.0, "eos_token_id": MANY_ENDS},
    {"num_beams": 4, "length_penalty": -1.0, "eos_token_id": MANY_ENDS},
    {"num_beams": 2, "eos_token_id": None},
    {"num_beams": 4, "no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 2},
    {"num_beams": 2, "min_length": 8, "eos_token_id": MANY_ENDS},
    {"min_new_tokens": 5, "eos_token_id": MANY_ENDS},
    {"num_beams": 3, "forced_bos_token_id": 7},
    {"num_beams": 3, "forced_eos_token_id": 2},
    {"suppress_tokens": [5, 6], "begin_suppress_tokens": [2, 9]},
    {"num_beams": 2, "suppress_tokens": [5, 6], "bad_words_ids": [[40, 41], [42]]},
    {"num_beams": 2, "repetition_penalty": 1.3},
    {"num_beams": 2, "renormalize_logits": True, "exponential_decay_length_penalty": (3, 1.2)},
    {"num_beams": 3, "decoder_input_ids": torch.tensor([[1, 20, 30]]).repeat(7, 1)},
    {"max_new_tokens": 1, "num_beams": 2},
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: "-".join(f"{k}" for k in r) or "greedy")
def test_tokens_are_those_of_transformers(model, source, request_):
    request_ = {**source, "max_new_tokens": 12, **request_}
    expected = model.generate(**request_, fast=False)
    assert model.decoded_by == "transformers: fast=False"
    assert torch.equal(model.generate(**request_), expected)
    assert model.decoded_by == "fast"


@pytest.mark.parametrize("beams", [1, 3])
def test_scores_are_those_of_transformers(model, source, beams):
    request_ = {**source, "max_new_tokens": 10, "num_beams": beams, "eos_token_id": [2, 11, 15]}
    request_ |= {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    expected, found = model.generate(**request_, fast=False), model.generate(**request_, fast=True)
    assert torch.equal(found.sequences, expected.sequences)
    for name in ("scores", "logits"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=1e-4)
    beam_indices = (None, None)
    if beams > 1:
        torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, atol=1e-4, rtol=1e-4)
        assert torch.equal(found.beam_indices, expected.beam_indices)
        beam_indices = (found.beam_indices, expected.beam_indices)
    transitions = [
        model.compute_transition_scores(o.sequences, o.scores, b, normalize_logits=beams == 1)
        for o, b in zip((found, expected), beam_indices, strict=True)
    ]
    torch.testing.assert_close(*transitions, atol=1e-4, rtol=1e-4)


def test_scores_of_outputs_are_returned_where_scores_of_steps_are_not_kept(model, source):
    request_ = {**source, "max_new_tokens": 10, "num_beams": 3, "return_dict_in_generate": True}
    expected, found = model.generate(**request_, fast=False), model.generate(**request_, fast=True)
    assert torch.equal(found.sequences, expected.sequences)
    assert found.sequences_scores is None
    assert expected.sequences_scores is None


@pytest.mark.parametrize(
    "fields",
    [
        {"learned_positions": 40},
        {"logits_bias": True},
        {"activation_function": "gelu"},
        {"activation_function": "silu"},
        {"vocab_size": 320},
        {"num_heads": 1, "encoder_layers": 1, "decoder_layers": 1},
    ],
    ids=str,
)
def test_every_kind_of_model_is_decoded_alike(config, fields):
    fields = {**config.to_dict(), "encoder_layers": 2, "decoder_layers": 2, **fields}
    model = transformer2017.Transformer2017ForConditionalGeneration(type(config)(**fields)).eval()
    for weight in model.parameters():
        weight.data += 0.2 * torch.randn_like(weight)
    ids = torch.randint(4, 97, (5, 7))
    for beams in (1, 4):
        expected = model.generate(ids, max_new_tokens=12, num_beams=beams, fast=False)
        assert torch.equal(model.generate(ids, max_new_tokens=12, num_beams=beams, fast=True), expected)


def test_float64_is_decoded_in_float64(model, source):
    model.double()
    expected = model.generate(**source, max_new_tokens=12, num_beams=4, fast=False)
    assert torch.equal(model.generate(**source, max_new_tokens=12, num_beams=4, fast=True), expected)


def test_bfloat16_on_a_cpu_without_it_is_its_rounded_weights_in_float32(model, source, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model.bfloat16()
    tokens = model.generate(**source, max_new_tokens=12, num_beams=4, fast=True)
    expected = model.float().generate(**source, max_new_tokens=12, num_beams=4, fast=False)
    assert torch.equal(tokens, expected)


def test_a_long_output_outgrows_every_buffer_and_stays_the_same(model, source):
    request_ = {"input_ids": source["input_ids"][:2], "max_new_tokens": 70, "num_beams": 3, "eos_token_id": None}
    assert torch.equal(model.generate(**request_), model.generate(**request_, fast=False))


class Nothing(LogitsProcessor):
    def __call__(self, input_ids, scores):
        return scores


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"do_sample": True}, "do_sample"),
        ({"num_beams": 2, "do_sample": True}, "do_sample"),
        ({"logits_processor": LogitsProcessorList([Nothing()])}, "Nothing"),
        ({"prefix_allowed_tokens_fn": lambda batch, ids: [5, 6]}, "PrefixConstrainedLogitsProcessor"),
        ({"use_cache": False}, "use_cache=False"),
        ({"output_attentions": True, "return_dict_in_generate": True}, "output_attentions"),
        ({"encoder_no_repeat_ngram_size": 2}, "EncoderNoRepeatNGramLogitsProcessor"),
        ({"max_time": 10.0}, "MaxTimeCriteria"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_the_fast_path_does_not_do_is_left_to_transformers(model, source, request_, reason):
    model.generate(**source, max_new_tokens=4, **request_)
    assert model.decoded_by == f"transformers: {reason}"


def test_a_streamer_is_left_to_transformers(model, source):
    class Words:
        def decode(self, ids, **kwargs):
            return ""

    model.generate(source["input_ids"][:1], max_new_tokens=4, streamer=TextStreamer(Words()))
    assert model.decoded_by == "transformers: streamer"


def test_a_model_in_training_or_with_replaced_or_hooked_parts_is_left_to_transformers(model, source):
    def reason(changed):
        changed.generate(**source, max_new_tokens=3)
        return changed.decoded_by

    assert reason(copy.deepcopy(model).train()) == "transformers: training mode"
    hooked = copy.deepcopy(model)
    hooked.model.decoder.layers[1].feed_forward.register_forward_hook(lambda *a: None)
    assert reason(hooked) == "transformers: a hook on decoder.layers.1.feed_forward"

    class Adapter(torch.nn.Linear):
        pass

    adapted = copy.deepcopy(model)
    adapted.model.decoder.layers[0].self_attention.w_q = Adapter(32, 24)
    assert reason(adapted) == "transformers: decoder.layers.0.self_attention.w_q is a Adapter"


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_dropout_that_alone_is_in_training_is_heard(model, source, side):
    """Monte-Carlo dropout (Gal and Ghahramani, 2016): a model is asked several times, and its answers compared."""
    for module in getattr(model.model, side).modules():
        if isinstance(module, torch.nn.Dropout):
            module.train().p = 0.5
    request_ = {**source, "max_new_tokens": 4, "return_dict_in_generate": True, "output_scores": True}
    first, second = (torch.stack(model.generate(**request_).scores) for _ in range(2))
    assert not torch.equal(first[0], second[0])


def replace_activations(model):
    for layer in [*model.model.encoder.layers, *model.model.decoder.layers]:
        layer.feed_forward.activation = torch.nn.Tanh()


def replace_map(model):
    own = model.model.decoder.layers[0].self_attention
    own.w_k = torch.nn.Linear(own.w_k.in_features, own.w_k.out_features, bias=False)


CHANGES = {  # after a first call, whose fused weights are remembered
    "a sub-layer left out": lambda m: setattr(m.model.decoder.layers[1], "feed_forward", torch.nn.Identity()),
    "a sub-layer of another kind": lambda m: setattr(
        m.model.decoder.layers[1], "feed_forward", torch.nn.Linear(32, 32)
    ),
    "a layer left out": lambda m: m.model.decoder.layers.__delitem__(1),
    "an activation": replace_activations,
    "the scale of attention": lambda m: setattr(m.model.decoder.layers[0].self_attention, "scaling", 3.0),
    "the scale of attention to the source": lambda m: setattr(
        m.model.decoder.layers[0].encoder_decoder_attention, "scaling", 3.0
    ),
    "epsilon": lambda m: setattr(m.model.decoder.layers[0].feed_forward_norm, "eps", 0.5),
    "a norm without weights": lambda m: setattr(
        m.model.decoder.layers[0], "feed_forward_norm", torch.nn.LayerNorm(32, eps=0.5, elementwise_affine=False)
    ),
    "another module in dropout's place": lambda m: setattr(m.model.decoder.layers[1], "dropout", torch.nn.Tanh()),
    "a map without a bias": replace_map,
    "the decoder's embeddings": lambda m: setattr(
        m.model.decoder.embeddings, "embed_tokens", torch.nn.Embedding(97, 32)
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_what_is_changed_in_a_model_changes_what_it_gives(model, source, change):
    """What ablations do; the oracle is transformers' loop on the model's own modules."""

    def scores(fast):
        request_ = {**source, "max_new_tokens": 4, "min_new_tokens": 4, "num_beams": 2, "fast": fast}
        found = model.generate(**request_, return_dict_in_generate=True, output_scores=True)
        return torch.stack(found.scores)

    before = scores(None)
    change(model)
    after = scores(None)
    torch.testing.assert_close(after, scores(False), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(after, before, atol=1e-3)


class Doubled(torch.nn.Linear):
    """As an adapter does, computes something else than its weights say."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_what_hangs_on_the_encoder_is_heard(model, source):
    """The decoder's fast path then reads what the encoder's own modules give."""
    expected = model.generate(**source, max_new_tokens=6)
    changed = copy.deepcopy(model)
    seen = []
    changed.model.encoder.layers[1].feed_forward.register_forward_hook(lambda *a: seen.append(1))
    assert torch.equal(changed.generate(**source, max_new_tokens=6), expected)
    assert seen
    assert changed.decoded_by == "fast"
    changed = copy.deepcopy(model)
    doubled = Doubled(32, 48)
    doubled.load_state_dict(model.model.encoder.layers[0].feed_forward.w_1.state_dict())
    changed.model.encoder.layers[0].feed_forward.w_1 = doubled
    request_ = {**source, "max_new_tokens": 6, "num_beams": 2, "return_dict_in_generate": True, "output_scores": True}
    ours, theirs = (changed.generate(**request_, fast=fast) for fast in (True, False))
    torch.testing.assert_close(ours.sequences_scores, theirs.sequences_scores, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours.sequences_scores, model.generate(**request_).sequences_scores, atol=1e-2)


def test_the_encoders_output_is_not_computed_anew_where_its_parts_are_asked_for(model, source):
    found = model.generate(**source, max_new_tokens=3, return_dict_in_generate=True, output_hidden_states=True)
    expected = model.get_encoder()(**source).last_hidden_state
    torch.testing.assert_close(found.encoder_hidden_states[-1], expected, rtol=0, atol=0)


def test_weights_that_change_are_taken_anew(model, source):
    def same():
        request_ = {**source, "max_new_tokens": 8, "num_beams": 2}
        return torch.equal(model.generate(**request_, fast=True), model.generate(**request_, fast=False))

    assert same()
    with torch.no_grad():
        model.model.decoder.layers[0].self_attention.w_v.weight.add_(0.5)
    assert same()
    with torch.no_grad():
        model.model.encoder.layers[0].self_attention.w_v.weight.mul_(3.0)
    assert same()
    for weight in model.parameters():  # as some optimizers do, unseen by torch's version counter
        weight.data.mul_(0.8)
    assert same()
    for weight in model.model.decoder.parameters():  # half of each, as where heads are pruned
        weight.data[len(weight) // 2 :] = 0.0
    assert same()
    model.model.decoder.layers[0].feed_forward.w_2.weight.data[:, 30:] = 0.5
    assert same()


def test_the_numbers_that_are_watched_lie_in_every_part():
    """In each row of the words; elsewhere in each eighth of the rows and of the columns, as heads are."""
    for shape in ((97, 32), (48, 48), (1, 9), (9, 1), (8000, 256)):
        weight = torch.zeros(shape)
        _sample(weight, of_each_row=True).fill_(1.0)
        assert weight.amax(1).min() == 1
    for shape in ((256, 256), (512, 512), (1024, 256), (256, 1024), (2048, 512), (512, 2048), (64, 128)):
        weight = torch.zeros(shape)
        _sample(weight, of_each_row=False).fill_(1.0)
        assert all(part.max() == 1 for axis in range(2) for part in weight.chunk(8, axis))
    bias = torch.zeros(5)
    _sample(bias, of_each_row=False).fill_(1.0)
    assert bias.min() == 1


@pytest.mark.parametrize("beams", [1, 3])
def test_a_sentence_of_numbers_that_are_none_stays_in_its_place(model, source, beams):
    """Its output is worth nothing; those of the others are theirs."""
    memory = model.get_encoder()(**source).last_hidden_state
    request_ = {"attention_mask": source["attention_mask"], "max_new_tokens": 8}
    request_ |= {"num_beams": beams, "num_return_sequences": beams}

    def outputs(fast):
        return model.generate(encoder_outputs=BaseModelOutput(memory.clone()), fast=fast, **request_)

    memory[1] = float("nan")
    found, expected = outputs(True), outputs(False)
    others = [row for row in range(len(found)) if row // beams != 1]
    assert len(found) == len(expected) == 7 * beams
    assert torch.equal(found[others, : expected.shape[1]], expected[others])
    memory[:] = float("nan")
    assert len(outputs(True)) == 7 * beams


def test_a_sentence_for_which_every_word_is_forbidden_stays_in_its_place(config):
    model = Transformer2017ForConditionalGeneration(type(config)(**{**config.to_dict(), "vocab_size": 12})).eval()
    begun = torch.tensor([[1, 8, 9, 10, 11], [1, 8, 8, 8, 8]])
    request_ = {"input_ids": torch.tensor([[4, 5, 2], [6, 7, 2]]), "decoder_input_ids": begun, "num_beams": 2}
    request_ |= {"max_new_tokens": 3, "no_repeat_ngram_size": 1, "suppress_tokens": list(range(8))}
    found, expected = (model.generate(**request_, fast=fast) for fast in (True, False))
    assert len(found) == len(expected) == 2
    assert torch.equal(found[1], expected[1, : found.shape[1]])


def test_attention_of_the_users_own_is_heard(model, source):
    """Under a name of its own, and under a name that transformers knows."""

    def uniform(module, query, key, value, mask, **kwargs):
        return value.mean(2, keepdim=True).expand(-1, -1, query.shape[2], -1).transpose(1, 2), None

    AttentionInterface.register("uniform", uniform)
    AttentionMaskInterface.register("uniform", sdpa_mask)
    expected = model.generate(**source, max_new_tokens=6)
    model.set_attn_implementation("uniform")
    found = model.generate(**source, max_new_tokens=6)
    assert model.decoded_by == "transformers: attention by 'uniform'"
    assert not torch.equal(found, expected)


def test_a_hook_on_all_modules_is_heard(model, source):
    seen = []
    hook = register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    try:
        model.generate(**source, max_new_tokens=3)
    finally:
        hook.remove()
    assert model.decoded_by == "transformers: a hook on all modules"
    assert transformer2017.modeling.attention.MultiHeadAttention in seen


def test_a_model_made_in_inference_mode_is_decoded(config, source):
    with torch.inference_mode():
        model = Transformer2017ForConditionalGeneration(config).eval()
        expected = model.generate(**source, max_new_tokens=4, fast=False)
        assert torch.equal(model.generate(**source, max_new_tokens=4, fast=True), expected)


def test_a_source_that_is_masked_entirely_is_left_to_transformers(model, source):
    """torch's kernel attends to nothing there."""
    source["attention_mask"][3] = 0
    expected = model.generate(**source, max_new_tokens=6, fast=False)
    assert torch.equal(model.generate(**source, max_new_tokens=6), expected)
    assert model.decoded_by == "transformers: a source that is masked entirely"


def test_a_model_with_the_papers_ranking_may_stream_and_sample(model, source):
    """Where there are no beams there is nothing to rank."""
    model.generation_config.ranking = "paper"
    assert model.generate(**source, do_sample=True, max_new_tokens=3).shape == (7, 4)
    with pytest.raises(ValueError, match="ranking='paper' needs the fast path"):
        model.generate(**source, num_beams=2, do_sample=True, max_new_tokens=3)


def test_asking_for_the_fast_path_where_it_cannot_run_says_why(model, source):
    with pytest.raises(ValueError, match=r"fast=True needs the fast path.*do_sample"):
        model.generate(**source, max_new_tokens=3, do_sample=True, fast=True)
    with pytest.raises(ValueError, match=r"ranking='paper' needs the fast path.*fast=False"):
        model.generate(**source, num_beams=2, ranking="paper", fast=False, max_new_tokens=3)


def test_the_papers_ranking_orders_by_its_own_penalty(model, source):
    """Oracle: all finished hypotheses of a search without a penalty, ranked by the formula of Wu et al. (2016)."""
    request_ = {**source, "max_new_tokens": 12, "num_beams": 4, "num_return_sequences": 4, "eos_token_id": MANY_ENDS}
    request_ |= {"return_dict_in_generate": True, "output_scores": True, "early_stopping": True}
    found = model.generate(**request_, ranking="paper", length_penalty=0.6)
    lengths = (found.beam_indices >= 0).sum(1)
    log_probs = model.compute_transition_scores(found.sequences, found.scores, found.beam_indices).sum(1)
    torch.testing.assert_close(found.sequences_scores, log_probs / ((5 + lengths) / 6) ** 0.6, atol=1e-4, rtol=1e-4)
    scores = found.sequences_scores.view(7, 4)
    assert torch.equal(scores, scores.sort(descending=True)[0])


class Negated(Transformer2017ForConditionalGeneration):
    """A subclass that decides otherwise."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = -output.logits
        return output


def test_what_the_model_does_as_a_whole_is_heard(model, source):
    """A subclass's forward, a hook, and what an adapter puts in place of a method."""
    request_ = {**source, "max_new_tokens": 6}
    plain = model.generate(**request_)
    changed = Negated(model.config).eval()
    changed.load_state_dict(model.state_dict())
    assert torch.equal(changed.generate(**request_), changed.generate(**request_, fast=False))
    assert not torch.equal(changed.generate(**request_), plain)
    for part in ("", "model"):
        hooked, seen = copy.deepcopy(model), []
        hooked.get_submodule(part).register_forward_hook(lambda *_, seen=seen: seen.append(1))
        assert torch.equal(hooked.generate(**request_), plain)
        assert seen, part
    adapted, prepare = copy.deepcopy(model), model.prepare_inputs_for_generation
    adapted.prepare_inputs_for_generation = lambda *args, **kwargs: prepare(*args, **kwargs)
    assert torch.equal(adapted.generate(**request_), plain)
    assert adapted.decoded_by == "transformers: the model has a prepare_inputs_for_generation of its own"


@pytest.mark.parametrize("beams", [1, 3])
def test_criteria_of_the_caller_are_heard(model, source, beams):
    """Those of the kinds that `generate()` makes itself too."""
    request_ = {**source, "max_new_tokens": 9, "num_beams": beams}
    for one in (MaxLengthCriteria(5), EosTokenCriteria(torch.tensor(range(5, 60)))):
        found, expected = (
            model.generate(**request_, stopping_criteria=StoppingCriteriaList([one]), fast=fast)
            for fast in (None, False)
        )
        assert torch.equal(found, expected)
        model.generate(**request_, stopping_criteria=StoppingCriteriaList([one]), eos_token_id=None)
        assert found.shape[1] == 5 or isinstance(one, EosTokenCriteria)


def test_a_ranking_that_is_none_is_refused(model, source):
    with pytest.raises(ValueError, match="ranking must be 'transformers' or 'paper', not 'Paper'"):
        model.generate(**source, num_beams=2, ranking="Paper", max_new_tokens=3)


@pytest.mark.parametrize("wrong", [{"ranking": "papr"}, {"fast": "maybe"}, {"max_tokens_beyond_input": 2.5}], ids=str)
def test_arguments_of_our_own_are_looked_at_in_greedy_search_too(model, source, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        model.generate(**source, **wrong)


def test_of_equal_words_greedy_search_takes_the_first(model, source):
    """As argmax does, and so transformers: rows of a vocabulary that were copied, or never learnt, are equal."""
    with torch.no_grad():
        model.model.shared.weight[40:] = model.model.shared.weight[30]
    found = model.generate(**source, max_new_tokens=5)
    assert model.decoded_by == "fast"
    assert torch.equal(found, model.generate(**source, max_new_tokens=5, fast=False))
    scores = torch.randint(3, (50, 96)).float()
    for block in (None, 32):
        assert torch.equal(first_of_largest(scores, block)[:, 0], scores.argmax(1))


def test_an_encoders_output_without_names_is_taken(model, source):
    memory = model.get_encoder()(**source).last_hidden_state
    mask = source["attention_mask"]
    given = {"encoder_outputs": (memory,), "attention_mask": mask, "max_new_tokens": 5}
    assert torch.equal(model.generate(**given), model.generate(**source, max_new_tokens=5))


def test_a_trainer_that_evaluates_by_translating_does_not_shorten_outputs(model, source, tmp_path):
    """`Seq2SeqTrainer` writes transformers' max_length of 20 into the model's configuration, and passes the labels."""
    model.generation_config.max_tokens_beyond_input = 30
    model.generation_config.eos_token_id = None
    expected = model.generate(**source)
    arguments = Seq2SeqTrainingArguments(str(tmp_path), predict_with_generate=True, use_cpu=True, report_to="none")
    trainer = Seq2SeqTrainer(model, arguments)
    for _ in range(2):
        _, tokens, _ = trainer.prediction_step(model, {**source, "labels": source["input_ids"]}, False)
        assert torch.equal(tokens, expected)
        assert model.decoded_by == "fast"
    assert model.generation_config.max_length == 20  # or there is nothing to see through
    assert model.generate(**source, max_length=12).shape[1] == 12
    assert model.generate(**source, max_length=20).shape[1] == 20  # of the caller's, it is no default
    assert with_bound({}, model.generation_config) == {}
    model.generation_config.max_tokens_beyond_input = None
    assert with_bound({}, model.generation_config) == {"max_tokens_beyond_input": 50}


def test_outputs_end_where_learned_positions_do(config, widened, source):
    """No bound but the paper's: the source's length and 50 tokens are more positions than there are."""
    config.learned_positions = 16
    model = widened(Transformer2017ForConditionalGeneration(config).eval(), 3)
    model.generation_config.update(eos_token_id=None)
    model.generation_config.max_tokens_beyond_input = 50
    assert model.generate(**source).shape[1] == model.generate(**source, fast=False).shape[1] == 17
    started = model.generate(**source, decoder_input_ids=torch.tensor([[1, 7, 8]]).repeat(7, 1))
    assert started.shape[1] == 17
    with pytest.raises(ValueError, match="A sequence of 17 tokens is longer than the 16 positions"):
        model.generate(**source, max_new_tokens=20)


def test_a_model_that_accelerate_has_prepared_is_decoded_quickly(model, source, monkeypatch):
    """In bfloat16 it has a forward of accelerate's, which is its own under autocast: evaluations need none."""
    monkeypatch.setattr(AcceleratorState, "_shared_state", {})
    expected = model.generate(**source, max_new_tokens=5)
    prepared = Accelerator(cpu=True, mixed_precision="bf16").prepare_model(model, evaluation_mode=True)
    assert "forward" in vars(prepared)
    assert torch.equal(prepared.generate(**source, max_new_tokens=5, fast=True), expected)
