"""The model against the paper's formulas, transcribed in numpy: every row of Table 3, with its heads and its depth."""

import numpy as np
import pytest
import torch
from transformer2017 import PRESETS, Transformer2017Config, Transformer2017ForConditionalGeneration

PAPER_ROWS = [name for name in PRESETS if name not in ("tiny", "small")]


def softmax(x):
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


class Paper:
    """Sections 3.1 to 3.5 and 5.4, one sentence at a time, in loops where the paper has an index."""

    def __init__(self, weights: dict[str, np.ndarray], config: Transformer2017Config):
        self.weights, self.config = weights, config

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def layer_norm(self, name, x):
        normalised = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return normalised * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def multi_head(self, name, queries, memory, visible):
        """§3.2.2, for one sentence; visible[i][j]: whether query i may see key j."""
        q, k, v = (self.linear(f"{name}.w_{m}", x) for m, x in (("q", queries), ("k", memory), ("v", memory)))
        d_k, d_v, heads = self.config.d_k, self.config.d_v, []
        for i in range(self.config.num_heads):
            keys, values = slice(i * d_k, (i + 1) * d_k), slice(i * d_v, (i + 1) * d_v)
            scores = np.where(visible, q[:, keys] @ k[:, keys].T / np.sqrt(d_k), -np.inf)
            heads.append(softmax(scores) @ v[:, values])
        return self.linear(f"{name}.w_o", np.concatenate(heads, axis=-1))

    def feed_forward(self, name, x):
        return self.linear(f"{name}.w_2", np.maximum(0, self.linear(f"{name}.w_1", x)))

    def embed(self, half, ids):
        d_model = self.config.d_model
        x = self.weights["model.shared.weight"][ids] * np.sqrt(d_model)
        if self.config.learned_positions:
            return x + self.weights[f"model.{half}.embeddings.positions.weight"][: len(ids)]
        encoding = np.zeros_like(x)
        for pos in range(len(ids)):
            for i in range(d_model // 2):
                encoding[pos, 2 * i] = np.sin(pos / 10000 ** (2 * i / d_model))
                encoding[pos, 2 * i + 1] = np.cos(pos / 10000 ** (2 * i / d_model))
        return x + encoding

    def logits(self, source, target):
        """One sentence without padding."""
        x = self.embed("encoder", source)
        everything = np.ones((len(source), len(source)), bool)
        for n in range(self.config.encoder_layers):
            layer = f"model.encoder.layers.{n}"
            x = self.layer_norm(
                f"{layer}.self_attention_norm", x + self.multi_head(f"{layer}.self_attention", x, x, everything)
            )
            x = self.layer_norm(f"{layer}.feed_forward_norm", x + self.feed_forward(f"{layer}.feed_forward", x))
        memory, x = x, self.embed("decoder", target)
        earlier = np.tril(np.ones((len(target), len(target)), bool))
        all_source = np.ones((len(target), len(source)), bool)
        for n in range(self.config.decoder_layers):
            layer = f"model.decoder.layers.{n}"
            attended = self.multi_head(f"{layer}.self_attention", x, x, earlier)
            x = self.layer_norm(f"{layer}.self_attention_norm", x + attended)
            attended = self.multi_head(f"{layer}.encoder_decoder_attention", x, memory, all_source)
            x = self.layer_norm(f"{layer}.encoder_decoder_attention_norm", x + attended)
            x = self.layer_norm(f"{layer}.feed_forward_norm", x + self.feed_forward(f"{layer}.feed_forward", x))
        return x @ self.weights["model.shared.weight"].T

    def loss(self, pairs, start, smoothing):
        """The mean over all target tokens of the cross-entropy with smoothed targets (§5.4)."""
        total, tokens = 0.0, 0
        for source, target in pairs:
            probabilities = softmax(self.logits(source, np.array([start, *target[:-1]])))
            for row, token in zip(probabilities, target, strict=True):
                wanted = np.full(len(row), smoothing / len(row))
                wanted[token] += 1 - smoothing
                total -= (wanted * np.log(row)).sum()
                tokens += 1
        return total / tokens


def eighth(row: str) -> Transformer2017Config:
    """A row of Table 3 with its own heads, depth and proportions, at an eighth of its widths."""
    full = Transformer2017Config.from_preset(row)
    widths = {name: getattr(full, name) // 8 for name in ("d_model", "d_ff", "d_k", "d_v")}
    return Transformer2017Config.from_preset(row, vocab_size=53, dropout=0.0, **widths)


def pairs_of(batch):
    """The sentences of a padded batch, as plain arrays."""
    for source, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        yield source[source != 0].numpy(), labels[labels != -100].numpy()


@pytest.mark.parametrize("row", PAPER_ROWS)
@torch.no_grad()
def test_logits_are_those_of_the_papers_formulas(row, scramble, batch):
    model = scramble(Transformer2017ForConditionalGeneration(eighth(row))).eval()
    paper = Paper({name: w.double().numpy() for name, w in model.state_dict().items()}, model.config)
    float32, float64 = model(**batch).logits.numpy(), model.double()(**batch).logits.numpy()
    for n, (source, target) in enumerate(pairs_of(batch)):
        expected = paper.logits(source, np.array([model.config.decoder_start_token_id, *target[:-1]]))
        np.testing.assert_allclose(float64[n, : len(target)], expected, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(float32[n, : len(target)], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("row", ["base", "A4", "B1", "B2", "D4", "E"])
def test_loss_and_its_gradient_are_those_of_the_papers_formulas(row, scramble, batch):
    """The gradient along a random direction of all weights, by central differences of the numpy loss."""
    model = scramble(Transformer2017ForConditionalGeneration(eighth(row))).double().train()
    loss = model(**batch).loss
    loss.backward()
    weights = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    direction = {name: np.random.default_rng(17).standard_normal(w.shape) for name, w in weights.items()}
    along = sum((p.grad.numpy() * direction[name]).sum() for name, p in model.named_parameters())

    def loss_at(step):
        moved = {name: w + step * direction[name] for name, w in weights.items()}
        paper = Paper(moved, model.config)
        return paper.loss(pairs_of(batch), model.config.decoder_start_token_id, model.config.label_smoothing)

    assert loss.item() == pytest.approx(loss_at(0.0), rel=1e-10)
    step = 1e-9  # so small that no kink of a ReLU lies within it
    assert along.item() == pytest.approx((loss_at(step) - loss_at(-step)) / (2 * step), rel=1e-5)


def test_loss_in_evaluation_is_not_smoothed(model, batch):
    """So that its exponential is the perplexity that the paper reports."""
    model = model.double()
    paper = Paper({name: w.numpy() for name, w in model.state_dict().items()}, model.config)
    expected = paper.loss(pairs_of(batch), model.config.decoder_start_token_id, smoothing=0.0)
    assert model(**batch).loss.item() == pytest.approx(expected, rel=1e-10)
