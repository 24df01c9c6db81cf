import pytest
import torch
from transformer2017.configuration import UsageError
from transformer2017.inspection import explain
from transformer2017.inspection.tokens import plain, positions_of_words, token_labels
from transformer2017.training.arguments import TokenizerArguments
from transformer2017.training.tokenization import train_tokenizer

SENTENCE = "two young dogs are running ."


@pytest.fixture(scope="module")
def transformers_outputs(small_model, tokenizer, explanation):
    """What transformers' own recorder of attention gives for the same sentence and translation."""
    target = explanation.search.hypotheses[0].tokens
    small_model.set_attn_implementation("eager")
    with torch.no_grad():
        outputs = small_model(
            **tokenizer(SENTENCE, return_tensors="pt"),
            decoder_input_ids=torch.tensor([[1, *target[:-1]]]),
            output_attentions=True,
            use_cache=False,
        )
    small_model.set_attn_implementation("sdpa")
    return outputs


@pytest.mark.parametrize(
    ("kind", "name"),
    [("encoder", "encoder_attentions"), ("decoder", "decoder_attentions"), ("cross", "cross_attentions")],
)
def test_attention_is_what_transformers_records(explanation, transformers_outputs, kind, name):
    """The pictures show the model's own weights, each layer and head in its place."""
    theirs = torch.cat(getattr(transformers_outputs, name))
    torch.testing.assert_close(explanation.attention(kind), theirs)
    rows, columns = explanation.axes(kind)
    assert theirs.shape[2:] == (len(rows), len(columns))


def test_next_word_is_the_softmax_of_the_logits(explanation, transformers_outputs):
    torch.testing.assert_close(explanation.next_word, transformers_outputs.logits[0].softmax(-1))


def _hooks(model) -> int:
    """transformers leaves hooks of its own once attention has been asked for."""
    return sum(len(module._forward_hooks) for module in model.modules())


def test_looking_inside_changes_nothing(small_model, tokenizer):
    """A user who looks inside has the same model after it: same attention, no hooks, same mode, same logits."""
    batch = {**tokenizer(SENTENCE, return_tensors="pt"), "decoder_input_ids": torch.tensor([[1, 5, 6]])}
    small_model.train()
    before = small_model.eval()(**batch).logits
    small_model.train()
    hooks = _hooks(small_model)
    explain(small_model, tokenizer, SENTENCE, num_beams=2)
    assert small_model.training
    assert small_model.config._attn_implementation == "sdpa"
    assert _hooks(small_model) == hooks
    assert torch.equal(small_model.eval()(**batch).logits, before)


def test_a_failure_inside_leaves_the_model_as_it_was(small_model):
    """The recorder's changes are undone when the pass that it records fails."""
    from transformer2017.inspection.recording import recording

    hooks = _hooks(small_model)
    with pytest.raises((AttributeError, TypeError)), recording(small_model):
        small_model("not ids", nothing="of the kind")
    assert small_model.config._attn_implementation == "sdpa"
    assert _hooks(small_model) == hooks


def test_alignment_is_the_mean_of_a_layers_heads(explanation):
    torch.testing.assert_close(explanation.alignment(2), explanation.cross_attention[1].mean(0))
    torch.testing.assert_close(explanation.alignment(), explanation.cross_attention[0].mean(0))  # last but one of two
    with pytest.raises(UsageError, match="layers 1 to 2, and no layer 3"):
        explanation.alignment(3)


def test_word_alignment_points_at_the_heaviest_word(explanation):
    """A word of several tokens collects the weights of them all."""
    weights = explanation.alignment(1)
    for source, target in explanation.word_alignment(1):
        sums = [
            float(weights[list(explanation.target_words[target])][:, list(w)].sum()) for w in explanation.source_words
        ]
        assert sums[source] == max(sums)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"text": "  "}, "no sentence"),
        ({"num_beams": 0}, "num_beams must be at least 1"),
        ({"walk_layer": 4}, "layers 1 to 3, and no layer 4"),
        ({"length_penalty": float("nan")}, "length_penalty must be a finite number, not nan"),
        ({"text": "dogs " * 700}, "too long to look into: the encoder alone would have"),
    ],
)
def test_faults_are_told_in_a_sentence(small_model, tokenizer, arguments, told):
    with pytest.raises(UsageError, match=told):
        explain(small_model, tokenizer, **{"text": SENTENCE, **arguments})


@pytest.mark.parametrize("text", ["\ud800 dogs", "a" * 300, "<unk> </s>", "שני כלבים", "두 마리의", "🙂‍↔️ \u0000"])
def test_any_text_can_be_explained(small_model, tokenizer, text):
    """Lone surrogates, long words, names of special tokens and any script are shown, not refused."""
    found = explain(small_model, tokenizer, text, num_beams=2)
    assert len(found.source) == found.encoder_attention.shape[-1]


def test_labels_read_as_the_text(tokenizer):
    """Pieces put together give the sentence again, and a new word begins where "▁" stands."""
    labels = token_labels(tokenizer, tokenizer("두 마리의 dogs שני")["input_ids"])
    assert "".join(labels[:-1]).replace("▁", " ").strip() == "두 마리의 dogs שני"
    assert labels[-1] == "</s>"
    words = positions_of_words(labels, ["</s>"])
    assert ["".join(labels[i] for i in word) for word in words] == ["▁두", "▁마리의", "▁dogs", "▁שני"]
    assert [plain(name) for name in ("▁Two", "s", ".", "▁")] == ["Two", "·s", ".", "▁"]


def test_characters_that_the_vocabulary_lacks_are_named_one_by_one():
    """A decoder of bytes gives a run of them whole; the last byte of each character stands for that one alone."""
    subwords = train_tokenizer(iter([SENTENCE, '"Two dogs".'] * 9), TokenizerArguments(), 290, exact=False)
    labels = token_labels(subwords, subwords("漢字 개")["input_ids"])
    assert [label for label in labels if not label.startswith("<")] == ["▁", "漢", "字", "▁", "개"]
    labels = token_labels(subwords, subwords('"two dogs" are')["input_ids"])
    words = positions_of_words(labels, ["</s>"])
    assert ["".join(labels[i] for i in word) for word in words] == ['▁"two', '▁dogs"', "▁are"]


def test_a_byte_level_vocabulary_shows_letters():
    """Byte-level BPE writes Korean as accented Latin letters; a reader sees Korean, or the bytes of half a letter."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bpe = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    labels = token_labels(PreTrainedTokenizerFast(tokenizer_object=bpe), bpe.encode("한 a").ids)
    assert labels == ["‹ED›", "‹95›", "한", "▁", "a"] or labels[2] == "한"
    assert labels[-1].endswith("a")
