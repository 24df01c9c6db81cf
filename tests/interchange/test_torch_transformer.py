"""State dicts of torch's nn.Transformer in. The oracle is nn.Transformer."""

import math

import pytest
import torch
import transformer2017
from torch import nn
from transformer2017.configuration import RunError, UsageError
from transformer2017.interchange.torch_transformer import import_torch
from transformers import AutoModelForSeq2SeqLM

SOURCE = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 0, 0]])
TARGET = torch.tensor([[1, 11, 12, 13], [1, 14, 15, 16]])


class Translator(nn.Module):
    """As in torch's tutorial of language translation, with one shared matrix."""

    def __init__(self, final_norms: bool, activation: str = "relu"):
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.transformer = nn.Transformer(16, 4, 2, 3, 24, activation=activation, batch_first=True)
        if not final_norms:
            self.transformer.encoder.norm = self.transformer.decoder.norm = None
        self.generator = nn.Linear(16, 20)
        self.generator.weight = self.embedding.weight
        angles = torch.arange(50)[:, None] / 10000 ** (torch.arange(0, 16, 2) / 16)
        table = torch.zeros(50, 16)
        table[:, 0::2], table[:, 1::2] = angles.sin(), angles.cos()
        self.register_buffer("pos_embedding", table)

    def forward(self, source, target):
        padding = source == 0
        embedded = [
            self.embedding(ids) * math.sqrt(16) + self.pos_embedding[: ids.shape[1]] for ids in (source, target)
        ]
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        states = self.transformer(
            *embedded,
            tgt_mask=causal.isinf(),
            tgt_is_causal=True,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return self.generator(states)


@pytest.mark.parametrize("final_norms", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_same_function(final_norms, activation, shaken, tmp_path):
    """Logits equal; with torch's norms at the ends of the stacks, up to what an epsilon of 1e-5 does."""
    oracle = shaken(Translator(final_norms, activation))
    torch.save(oracle.state_dict(), tmp_path / "model.pt")
    report = import_torch(tmp_path / "model.pt", tmp_path / "ours", num_heads=4, activation_function=activation)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours")
    assert isinstance(model, transformer2017.Transformer2017ForConditionalGeneration)
    with torch.no_grad():
        ours = model(input_ids=SOURCE, attention_mask=(SOURCE != 0).long(), decoder_input_ids=TARGET).logits
        theirs = oracle(SOURCE, TARGET)
    torch.testing.assert_close(ours, theirs, atol=2e-4 if final_norms else 5e-5, rtol=0)
    assert ("became a layer that adds nothing" in str(report)) == final_norms
    assert "logits of 16 sentences" in str(report)
    assert report.largest_difference < (1e-3 if final_norms else 5e-5)  # roundings differ by processor


def test_a_model_that_is_not_as_taken_is_noticed(shaken, tmp_path, monkeypatch):
    """The comparison with nn.Transformer can fail: here two matrices change places on the way in."""
    import transformer2017.interchange.torch_transformer as room

    torch.save(shaken(Translator(False)).state_dict(), tmp_path / "model.pt")
    monkeypatch.setitem(room.NAMES["decoder"], "self_attention", "multihead_attn")
    with pytest.raises(RunError, match=r"torch import .* went wrong"):
        import_torch(tmp_path / "model.pt", tmp_path / "ours", num_heads=4)


@pytest.mark.parametrize(
    ("flags", "reason"), [({"num_heads": 5}, "--num_heads 5"), ({"activation_function": "tanh"}, "must be one of")]
)
def test_flags_that_do_not_fit_are_named(flags, reason, tmp_path):
    torch.save(Translator(False).state_dict(), tmp_path / "model.pt")
    with pytest.raises(UsageError, match=reason):
        import_torch(tmp_path / "model.pt", tmp_path / "ours", **{"num_heads": 4, **flags})


def test_separate_matrices_are_named(tmp_path):
    model = Translator(False)
    model.generator = nn.Linear(16, 20)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    with pytest.raises(UsageError, match=r"embedding.weight and generator.weight differ.*§3.4"):
        import_torch(tmp_path / "model.pt", tmp_path / "ours", num_heads=4)


def test_something_else_is_named(tmp_path):
    torch.save({"linear.weight": torch.zeros(2, 2)}, tmp_path / "model.pt")
    with pytest.raises(UsageError, match="holds 0 transformers"):
        import_torch(tmp_path / "model.pt", tmp_path / "ours", num_heads=4)
    torch.save(Translator(False), tmp_path / "whole.pt")
    with pytest.raises(UsageError, match="without running code"):
        import_torch(tmp_path / "whole.pt", tmp_path / "ours", num_heads=4)


def test_a_weight_without_a_place_is_named(tmp_path):
    """It would be lost, or stands for one that is damaged."""
    torch.save({**Translator(True).state_dict(), "transformer.decoder.other": torch.zeros(16)}, tmp_path / "model.pt")
    with pytest.raises(UsageError, match=r"not hold a whole nn.Transformer.*decoder.other"):
        import_torch(tmp_path / "model.pt", tmp_path / "ours", num_heads=4)
