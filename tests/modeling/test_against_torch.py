"""The model against torch.nn.Transformer with the same weights: post-norm, without its final norms."""

import math

import pytest
import torch
from torch import nn
from transformer2017 import Transformer2017Config, Transformer2017ForConditionalGeneration

CONFIG = Transformer2017Config(
    vocab_size=71, d_model=24, d_ff=40, num_heads=4, encoder_layers=3, decoder_layers=2, dropout=0.0
)
NORMS = {
    "encoder": ["self_attention_norm", "feed_forward_norm"],
    "decoder": ["self_attention_norm", "encoder_decoder_attention_norm", "feed_forward_norm"],
}


def torch_transformer(config: Transformer2017Config) -> nn.Transformer:
    peer = nn.Transformer(
        config.d_model,
        config.num_heads,
        config.encoder_layers,
        config.decoder_layers,
        config.d_ff,
        dropout=0.0,
        batch_first=True,
    )
    peer.encoder.norm = peer.decoder.norm = None
    return peer


def peer_parameters(model, peer: nn.Transformer):
    """Yields each parameter of the peer with the parameters of ours that it holds, one above the other."""
    for half in ("encoder", "decoder"):
        for ours, theirs in zip(getattr(model.model, half).layers, getattr(peer, half).layers, strict=True):
            attentions = [(ours.self_attention, theirs.self_attn)]
            if half == "decoder":
                attentions.append((ours.encoder_decoder_attention, theirs.multihead_attn))
            for mine, yours in attentions:
                for kind in ("weight", "bias"):
                    yield getattr(yours, f"in_proj_{kind}"), [getattr(m, kind) for m in (mine.w_q, mine.w_k, mine.w_v)]
                    yield getattr(yours.out_proj, kind), [getattr(mine.w_o, kind)]
            pairs = [(ours.feed_forward.w_1, theirs.linear1), (ours.feed_forward.w_2, theirs.linear2)]
            pairs += [(getattr(ours, norm), getattr(theirs, f"norm{n}")) for n, norm in enumerate(NORMS[half], 1)]
            for mine, yours in pairs:
                yield from ((yours.weight, [mine.weight]), (yours.bias, [mine.bias]))


def peer_loss(peer: nn.Transformer, shared: torch.Tensor, batch) -> torch.Tensor:
    """Embedding, sinusoids and loss around the peer, which has none of them."""
    source, labels = batch["input_ids"], batch["labels"]
    target = torch.cat([torch.full((len(labels), 1), CONFIG.decoder_start_token_id), labels[:, :-1]], dim=1)

    def embed(ids):
        angles = [[p / 10000 ** (2 * (j // 2) / CONFIG.d_model) for j in range(CONFIG.d_model)] for p in range(9)]
        table = [[(math.sin, math.cos)[j % 2](angle) for j, angle in enumerate(row)] for row in angles]
        return (
            shared[ids.clamp(min=0)] * math.sqrt(CONFIG.d_model)
            + torch.tensor(table, dtype=shared.dtype)[: ids.shape[1]]
        )

    states = peer(
        embed(source),
        embed(target),
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=shared.dtype),
        src_key_padding_mask=torch.zeros(source.shape, dtype=shared.dtype).masked_fill(source == 0, -math.inf),
        memory_key_padding_mask=torch.zeros(source.shape, dtype=shared.dtype).masked_fill(source == 0, -math.inf),
    )
    return nn.functional.cross_entropy((states @ shared.T).flatten(0, 1), labels.flatten(), label_smoothing=0.1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_loss_and_every_gradient_are_those_of_torch(dtype, tolerance, attention, scramble, batch):
    model = scramble(Transformer2017ForConditionalGeneration(CONFIG)).to(dtype).train()
    model.set_attn_implementation(attention)
    peer = torch_transformer(CONFIG).to(dtype).train()
    with torch.no_grad():
        for theirs, ours in peer_parameters(model, peer):
            theirs.copy_(torch.cat(ours))
    shared = model.model.shared.weight.detach().clone().requires_grad_()

    expected = peer_loss(peer, shared, batch)
    loss = model(**batch).loss
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=tolerance)

    expected.backward()
    loss.backward()
    torch.testing.assert_close(model.model.shared.weight.grad, shared.grad, rtol=tolerance, atol=tolerance)
    compared = 1
    for theirs, ours in peer_parameters(model, peer):
        torch.testing.assert_close(torch.cat([p.grad for p in ours]), theirs.grad, rtol=tolerance, atol=tolerance)
        compared += len(ours)
    assert compared == len(list(model.parameters()))  # none was left out
