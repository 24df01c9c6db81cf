"""What holds for any configuration, length, padding and batch; examples are drawn anew by no run (derandomised)."""

import copy
import tempfile
from pathlib import Path

import pytest
import torch
import transformer2017
from hypothesis import given, settings
from hypothesis import strategies as st
from transformer2017.interchange.fairseq import transformer2017_from as from_fairseq
from transformer2017.interchange.layout import layer_parts
from transformer2017.interchange.marian import marian_from
from transformer2017.interchange.marian import transformer2017_from as from_marian
from transformer2017.interchange.torch_transformer import import_torch
from transformer2017.modeling.documents import in_parts, split_sentences

FEW = settings(max_examples=12, deadline=None, derandomize=True)
VOCABULARY = 23


@st.composite
def models(draw, usual_heads=False):
    """A very small model of any shape that the paper has, with random weights."""
    heads = draw(st.sampled_from([1, 2, 4]))
    sizes = {
        "vocab_size": VOCABULARY,
        "d_model": heads * draw(st.sampled_from([4, 6])),
        "d_ff": draw(st.sampled_from([5, 16])),
        "num_heads": heads,
        "encoder_layers": draw(st.integers(1, 3)),
        "decoder_layers": draw(st.integers(1, 3)),
    }
    if not usual_heads:
        sizes |= {"d_k": draw(st.integers(1, 7)), "d_v": draw(st.integers(1, 7))}
        sizes["learned_positions"] = draw(st.sampled_from([None, 40]))
    torch.manual_seed(draw(st.integers(0, 99)))
    config = transformer2017.Transformer2017Config(**sizes)
    return transformer2017.Transformer2017ForConditionalGeneration(config).eval()


SENTENCE = st.lists(st.integers(4, VOCABULARY - 1), max_size=11).map(lambda ids: [*ids, 2])
SENTENCES = st.lists(SENTENCE, min_size=1, max_size=5)


def batch_of(sentences, more=0):
    longest = max(map(len, sentences)) + more
    return {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in sentences]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in sentences]),
    }


def logits(model, batch, target):
    with torch.no_grad():
        return model(**batch, decoder_input_ids=target).logits


@FEW
@given(models(), SENTENCES, st.integers(0, 9), st.data())
def test_padding_and_neighbours_change_no_logit(model, sentences, more, data):
    target = torch.tensor([data.draw(st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=8))])
    together = logits(model, batch_of(sentences, more), target.expand(len(sentences), -1))
    for row, sentence in zip(together, sentences, strict=True):
        torch.testing.assert_close(row, logits(model, batch_of([sentence]), target)[0], rtol=1e-4, atol=1e-5)


@FEW
@given(models(), SENTENCES, st.sampled_from([1, 3]))
def test_cached_and_batched_decoding_give_what_a_sentence_gets_alone_without_a_cache(model, sentences, beams):
    """The oracle is transformers' own loop, a sentence at a time, with no cache."""
    how = {"num_beams": beams, "do_sample": False, "max_new_tokens": 7, "max_length": None}
    together = model.generate(**batch_of(sentences, 3), **how).tolist()
    for row, sentence in zip(together, sentences, strict=True):
        alone = model.generate(**batch_of([sentence]), **how, use_cache=False, fast=False)[0].tolist()
        ends = [ids[: ids.index(2, 1) + 1] if 2 in ids[1:] else [i for i in ids if i] for ids in (row, alone)]
        assert ends[0] == ends[1]


@settings(FEW, max_examples=5)
@given(models(), SENTENCES)
def test_saving_and_loading_changes_no_bit(model, sentences):
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = type(model).from_pretrained(Path(folder)).eval()
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    target = torch.tensor([[1, 5, 9]]).expand(len(sentences), -1)
    again = copy.deepcopy(again)  # where a weight lies in a mapped file decides how some versions of torch multiply
    assert torch.equal(logits(model, batch_of(sentences), target), logits(again, batch_of(sentences), target))


@FEW
@given(models(usual_heads=True))
def test_to_marian_and_back_changes_no_weight(model):
    back = from_marian(marian_from(model))
    assert back.config.to_diff_dict() == model.config.to_diff_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, back.state_dict()[name]), name


@FEW
@given(models(usual_heads=True), st.booleans())
def test_from_fairseq_every_weight_arrives(model, unscaled):
    """fairseq's file is written here by its names; with `no_scale_embedding` the logits stay those of the scaled."""
    from argparse import Namespace

    config, state = model.config, model.state_dict()
    theirs = {f"{half}.embed_tokens.weight": state["model.shared.weight"] for half in ("encoder", "decoder")}
    for ours, name in layer_parts(config.encoder_layers, config.decoder_layers).items():
        for kind in ("weight", "bias"):
            theirs[f"{name.removeprefix('model.')}.{kind}"] = state[f"{ours}.{kind}"]
    sizes = {"ffn_embed_dim": config.d_ff, "attention_heads": config.num_heads, "embed_dim": config.d_model}
    arguments = {f"{half}_{what}": value for half in ("encoder", "decoder") for what, value in sizes.items()}
    arguments |= {"encoder_layers": config.encoder_layers, "decoder_layers": config.decoder_layers}
    learned = {"encoder_learned_pos": False, "decoder_learned_pos": False, "no_scale_embedding": unscaled}
    made = from_fairseq(Namespace(**arguments, **learned), theirs)
    weight = made.state_dict()["model.shared.weight"] * (config.d_model**0.5 if unscaled else 1.0)
    torch.testing.assert_close(weight, state["model.shared.weight"], rtol=1e-6, atol=0)
    for ours in list(layer_parts(config.encoder_layers, config.decoder_layers))[:-1]:
        assert torch.equal(made.state_dict()[f"{ours}.weight"], state[f"{ours}.weight"]) or unscaled, ours


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")  # torch, of one head
@FEW
@given(models(usual_heads=True))
def test_from_torch_every_model_computes_what_nn_transformer_does(model):
    """The state dict is of an nn.Transformer of those sizes; the import compares its logits with that one's."""
    c = model.config
    theirs = torch.nn.Transformer(c.d_model, c.num_heads, c.encoder_layers, c.decoder_layers, c.d_ff, batch_first=True)
    state = {f"transformer.{name}": weight for name, weight in theirs.state_dict().items()}
    state["embedding.weight"] = model.state_dict()["model.shared.weight"]
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / "torch.pt")
        report = import_torch(Path(folder) / "torch.pt", Path(folder) / "ours", num_heads=c.num_heads)
    assert 0 <= report.largest_difference < 1e-4


@pytest.mark.parametrize("most", [1, 9, 40])
@settings(FEW, max_examples=60)
@given(text=st.text(alphabet=st.sampled_from("ab .!?\n\t\u3000é🙂。"), max_size=120))
def test_any_text_in_parts_is_the_text(most, text):
    assert "".join(split_sentences(text)) == text
    parts = in_parts(text, lambda part: len(part) <= most)
    assert "".join(parts) == text
    assert all(len(part) <= most for part in parts)
