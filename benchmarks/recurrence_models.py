"""The two models of the comparison: a recurrent encoder-decoder with attention, and ours, of equal size."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformer2017 import Transformer2017Config, Transformer2017ForConditionalGeneration

PAD, START, END = 0, 1, 2


class Recurrent(nn.Module):
    """torch's own LSTMs with attention: a bidirectional encoder, and a decoder that attends after its last layer.

    Luong et al. (2015), "general" attention; the projection before the softmax is the embedding's matrix again, as in
    the Transformer. Nothing is fed back into the decoder's input, so that a sentence is one call of nn.LSTM.
    """

    def __init__(self, vocab_size: int, d_model: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        inner = dropout if layers > 1 else 0.0
        self.embedding = nn.Embedding(vocab_size, d_model)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        self.encoder = nn.LSTM(d_model, hidden, layers, batch_first=True, bidirectional=True, dropout=inner)
        self.decoder = nn.LSTM(d_model, hidden, layers, batch_first=True, dropout=inner)
        self.query = nn.Linear(hidden, 2 * hidden, bias=False)
        self.join = nn.Linear(3 * hidden, d_model)
        self.dropout = nn.Dropout(dropout)

    def encode(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, source_len) to the memory (batch, source_len, 2 * hidden), and the mask of its padding."""
        lengths = (source != PAD).sum(1)
        x = self.dropout(self.embedding(source) * self.embedding.embedding_dim**0.5)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        memory, _ = pad_packed_sequence(self.encoder(packed)[0], batch_first=True, total_length=source.shape[1])
        return memory, source == PAD

    def decode(self, memory: torch.Tensor, hidden: torch.Tensor, target: torch.Tensor, state: object = None) -> tuple:
        """Logits (batch, target_len, vocab_size) of the words after `target`, and the state after it."""
        x = self.dropout(self.embedding(target) * self.embedding.embedding_dim**0.5)
        output, state = self.decoder(x, state)
        scores = self.query(output) @ memory.transpose(1, 2)  # (batch, target_len, source_len)
        weights = scores.masked_fill(hidden[:, None], float("-inf")).softmax(-1)
        joined = torch.tanh(self.join(torch.cat((output, weights @ memory), -1)))
        return self.dropout(joined) @ self.embedding.weight.T, state

    def forward(self, source: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The label-smoothed loss, as the Transformer's in training mode."""
        target = labels.roll(1, -1).masked_fill(labels.roll(1, -1) == -100, PAD)
        target[:, 0] = START
        logits, _ = self.decode(*self.encode(source), target)
        smoothing = 0.1 if self.training else 0.0
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing)

    @torch.no_grad()
    def translate(self, source: torch.Tensor, steps: int) -> torch.Tensor:
        """Greedy search."""
        memory, hidden = self.encode(source)
        words, state, done = [], None, torch.zeros(len(source), dtype=torch.bool)
        last = torch.full((len(source), 1), START)
        for _ in range(steps):
            logits, state = self.decode(memory, hidden, last, state)
            last = logits[:, -1:].argmax(-1).masked_fill(done[:, None], PAD)
            words.append(last)
            done |= last[:, 0] == END
            if done.all():
                break
        return torch.cat(words, 1)

    def first_layer(self) -> list[nn.Parameter]:
        """The weights of the encoder's first layer."""
        return [p for name, p in self.encoder.named_parameters() if "_l0" in name]


class Attentive(nn.Module):
    """Our Transformer behind the same calls."""

    def __init__(self, config: Transformer2017Config) -> None:
        super().__init__()
        self.transformer = Transformer2017ForConditionalGeneration(config)

    def forward(self, source: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The label-smoothed loss."""
        return self.transformer(input_ids=source, labels=labels).loss

    @torch.no_grad()
    def translate(self, source: torch.Tensor, steps: int) -> torch.Tensor:
        """Greedy search."""
        return self.transformer.generate(input_ids=source, num_beams=1, do_sample=False, max_new_tokens=steps)

    def first_layer(self) -> list[nn.Parameter]:
        """The weights of the encoder's first layer."""
        return list(self.transformer.model.encoder.layers[0].parameters())


def build(kind: str, vocab_size: int, d_model: int, layers: int, dropout: float) -> nn.Module:
    """A Transformer, or a recurrent model with the nearest number of parameters that a hidden size gives."""
    torch.manual_seed(2017)
    config = Transformer2017Config(
        vocab_size=vocab_size, d_model=d_model, d_ff=4 * d_model, num_heads=4, encoder_layers=layers,
        decoder_layers=layers, dropout=dropout,
    )  # fmt: skip
    transformer = Attentive(config)
    if kind == "transformer":
        return transformer
    wanted = parameters(transformer)
    with torch.device("meta"):
        hidden = min(
            range(16, 4 * d_model, 4),
            key=lambda h: abs(parameters(Recurrent(vocab_size, d_model, h, layers, dropout)) - wanted),
        )
    return Recurrent(vocab_size, d_model, hidden, layers, dropout)


def parameters(model: nn.Module) -> int:
    """Parameters, the shared matrix counted once."""
    return sum(p.numel() for p in model.parameters())
