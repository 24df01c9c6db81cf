"""fairseq checkpoints in. The oracle is FSMT, transformers' port of fairseq's transformer.

The checkpoints are made here by fairseq's own key names and shapes: those of `TransformerModel.state_dict()` in
fairseq/models/transformer/ (v0.12.2), which FSMT keeps behind the prefix `model.`; `encoder.version` and
`embed_positions._float_tensor` are its markers; `args` and `cfg` are where fairseq/checkpoint_utils.py puts arguments.
"""

import argparse

import pytest
import torch
import transformer2017
from transformer2017.configuration import UsageError
from transformer2017.interchange.fairseq import import_fairseq, read_checkpoint, tokenizer_of, transformer2017_from
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, FSMTConfig, FSMTForConditionalGeneration

ARGUMENTS = {
    "arch": "transformer_wmt_en_de",
    "encoder_embed_dim": 16,
    "decoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 24,
    "decoder_ffn_embed_dim": 24,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_normalize_before": False,
    "decoder_normalize_before": False,
    "encoder_learned_pos": False,
    "decoder_learned_pos": False,
    "share_all_embeddings": True,
    "activation_fn": "relu",
    "max_source_positions": 40,
    "max_target_positions": 40,
    "dropout": 0.3,
    "adaptive_softmax_cutoff": None,
}
PIECES = ["the@@", "cat", "s@@", "a", "b", "madeupword0000"]
SOURCE = torch.tensor([[4, 5, 6, 7, 2], [8, 9, 2, 1, 1]])
TARGET = torch.tensor([[2, 5, 4, 6], [2, 8, 7, 9]])
INPUTS = {"input_ids": SOURCE, "attention_mask": (SOURCE != 1).long(), "decoder_input_ids": TARGET}


@pytest.fixture(params=[True, False], ids=["scaled", "no_scale_embedding"])
def oracle(request) -> FSMTForConditionalGeneration:
    config = FSMTConfig(
        src_vocab_size=10,
        tgt_vocab_size=10,
        d_model=16,
        encoder_layers=2,
        decoder_layers=3,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        max_position_embeddings=40,
        scale_embedding=request.param,
        langs=["en", "de"],
    )
    model = FSMTForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embed_positions" not in name:
                weight.add_(torch.randn_like(weight) * 0.3)
        model.model.decoder.embed_tokens.weight.copy_(model.model.encoder.embed_tokens.weight)
        model.model.decoder.output_projection.weight.copy_(model.model.encoder.embed_tokens.weight)
    return model


def state_of(oracle: FSMTForConditionalGeneration) -> dict[str, torch.Tensor]:
    state = {
        name.removeprefix("model."): weight.clone()
        for name, weight in oracle.state_dict().items()
        if "embed_positions" not in name and not name.startswith("lm_head")
    }
    for half in ("encoder", "decoder"):
        state[f"{half}.version"] = torch.tensor([3.0])
        state[f"{half}.embed_positions._float_tensor"] = torch.zeros(1)
    state["decoder.output_projection.weight"] = state["decoder.embed_tokens.weight"]
    return state


def arguments_of(oracle, **changes) -> argparse.Namespace:
    return argparse.Namespace(**{**ARGUMENTS, "no_scale_embedding": not oracle.config.scale_embedding, **changes})


def logits_of_oracle(oracle) -> torch.Tensor:
    with torch.no_grad():
        return oracle(**INPUTS, use_cache=False).logits  # with a cache, FSMT has no causal mask


@pytest.mark.parametrize("where", ["args", "cfg", "cfg of plain values"])
def test_the_same_function(oracle, where, tmp_path):
    """Logits equal to 1e-5, whichever way the fairseq of the time stored its arguments; the dictionary comes along."""
    arguments = arguments_of(oracle)
    stored = {
        "args": {"args": arguments, "cfg": None},
        "cfg": {"args": None, "cfg": {"model": arguments}},
        "cfg of plain values": {"args": None, "cfg": {"model": vars(arguments)}},
    }[where]
    torch.save({**stored, "model": state_of(oracle), "extra_state": {"epoch": 3}}, tmp_path / "checkpoint_best.pt")
    (tmp_path / "dict.en.txt").write_text("".join(f"{piece} {9 - i}\n" for i, piece in enumerate(PIECES)))
    report = import_fairseq(tmp_path / "checkpoint_best.pt", tmp_path / "dict.en.txt", tmp_path / "ours")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours")
    assert isinstance(model, transformer2017.Transformer2017ForConditionalGeneration)
    with torch.no_grad():
        ours = model(**INPUTS).logits
    torch.testing.assert_close(ours, logits_of_oracle(oracle), atol=1e-5, rtol=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert tokenizer("the@@ cat dog").input_ids == [4, 5, 3, 2]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 0, 2)
    assert model.config.decoder_start_token_id == 2
    assert "other frequencies" in str(report)
    assert report.largest_difference <= 1e-5 * max(1.0, ours.abs().max().item())
    assert report.different_translations == 0


def test_learned_positions(oracle):
    """Rows of fairseq's table count from behind the pad token."""
    state = state_of(oracle)
    for half in ("encoder", "decoder"):
        table = getattr(oracle.model, half).embed_positions.weight
        state[f"{half}.embed_positions.weight"] = table[: 40 + 2].clone()
    model = transformer2017_from(arguments_of(oracle, encoder_learned_pos=True, decoder_learned_pos=True), state)
    assert model.config.learned_positions == 40
    with torch.no_grad():
        ours = model(**INPUTS).logits
    torch.testing.assert_close(ours, logits_of_oracle(oracle), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoder_normalize_before": True}, r"pre-norm.*--encoder-normalize-before"),
        ({"adaptive_softmax_cutoff": [5000]}, "adaptive softmax"),
        ({"layernorm_embedding": True}, "normalises its embeddings"),
        ({"decoder_ffn_embed_dim": 20}, "encoder_ffn_embed_dim and decoder_ffn_embed_dim differ"),
        ({"activation_fn": "tanh"}, "activation_function must be one of"),
    ],
)
def test_what_ours_cannot_hold_is_named(oracle, changes, reason):
    with pytest.raises(UsageError, match=reason):
        transformer2017_from(arguments_of(oracle, **changes), state_of(oracle))


def test_separate_vocabularies_are_named(oracle):
    state = state_of(oracle)
    state["decoder.embed_tokens.weight"] = torch.randn(12, 16)
    with pytest.raises(UsageError, match=r"separate vocabularies.*--share-all-embeddings"):
        transformer2017_from(arguments_of(oracle), state)


def test_a_weight_without_a_place_is_named(oracle):
    state = {**state_of(oracle), "encoder.layers.0.adapter.weight": torch.zeros(2)}
    with pytest.raises(UsageError, match=r"no place for: encoder\.layers\.0\.adapter\.weight"):
        transformer2017_from(arguments_of(oracle), state)


class RunsCode:
    """What a hostile checkpoint holds: unpickling it calls a function."""

    def __reduce__(self):
        return exec, ("raise SystemExit('the checkpoint ran code')",)


def test_a_checkpoint_cannot_run_code(tmp_path):
    torch.save({"model": {}, "args": RunsCode()}, tmp_path / "evil.pt")
    with pytest.raises(UsageError, match="cannot be read as a checkpoint without running code") as refusal:
        read_checkpoint(tmp_path / "evil.pt")
    assert "weights_only" not in str(refusal.value)  # torch's advice is to read it all the same


def test_a_checkpoint_of_another_form_is_named(tmp_path):
    torch.save({"model": {}, "cfg": [1]}, tmp_path / "other.pt")
    with pytest.raises(UsageError, match="does not hold the arguments of its training"):
        read_checkpoint(tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("text", "reason"), [("cat 5\ndog\n", r"line 2: expected a piece"), ("cat 5\n", "makes 5 tokens, and the model")]
)
def test_a_wrong_dictionary_is_named(oracle, text, reason, tmp_path):
    torch.save({"args": arguments_of(oracle), "model": state_of(oracle)}, tmp_path / "model.pt")
    (tmp_path / "dict.txt").write_text(text)
    with pytest.raises(UsageError, match=reason):
        import_fairseq(tmp_path / "model.pt", tmp_path / "dict.txt", tmp_path / "ours")


def test_only_a_line_feed_ends_a_line_of_a_dictionary(tmp_path):
    """A piece may be U+2028 or U+0085, which `str.splitlines` cuts at."""
    (tmp_path / "dict.txt").write_text("a\u2028b 5\nc\x85d 4\n", encoding="utf-8")
    assert tokenizer_of(tmp_path / "dict.txt", 6).convert_ids_to_tokens([4, 5]) == ["a\u2028b", "c\x85d"]
