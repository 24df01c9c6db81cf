"""The walk: one sentence from text to next word, stop by stop, with the model's own numbers and lines of code."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from .code_lines import CodeLine, find_line
from .recording import Recording
from .terms import StopText, stops_of

MOST_LETTERS = 32  # of the sentence, at the first stop


@dataclass(frozen=True)
class Sentence:
    """The tokens of a translated sentence, as they are shown."""

    text: str
    source_ids: list[int]
    source: list[str]
    target_input: list[str]
    target_output: list[str]


@dataclass(frozen=True)
class Exhibit:
    """One matrix of numbers that a stop shows."""

    name: str
    values: torch.Tensor  # (rows, columns); of integers where the numbers only name something
    rows: tuple[str, ...]
    columns: tuple[str, ...]  # empty where the columns are dimensions, numbered from 0
    shape: str  # that of the model's own tensor, in words
    is_written: bool = False  # as numbers, in place of colours


@dataclass(frozen=True)
class Stop:
    """One stop of the walk."""

    text: StopText
    lines: tuple[CodeLine, ...]
    exhibits: tuple[Exhibit, ...]


def walk_through(
    model: PreTrainedModel,
    record: Recording,
    sentence: Sentence,
    logits: torch.Tensor,
    layer: int,
    vocabulary: dict[int, str],
) -> tuple[Stop, ...]:
    """Makes the stops of the walk.

    Args:
        record: What passed through the model when it read the sentence and its translation.
        logits: (target_len, vocab_size).
        layer: The layer to walk through, counted from 1; in the shallower stack, its last.
        vocabulary: How to show the tokens that are likeliest to come first.
    """
    exhibits = _Exhibits(model, record, sentence, logits, layer, vocabulary)
    return tuple(
        Stop(
            text=text,
            lines=tuple(find_line(model, *place) for place in text.code),
            exhibits=tuple(getattr(exhibits, text.key)()),
        )
        for text in stops_of(model.config)
    )


class _Exhibits:
    """The numbers of each stop: a method a stop, named by its key."""

    def __init__(
        self,
        model: PreTrainedModel,
        record: Recording,
        sentence: Sentence,
        logits: torch.Tensor,
        layer: int,
        vocabulary: dict[int, str],
    ) -> None:
        config = model.config
        self.activation = config.activation_function
        self.record, self.sentence, self.logits, self.vocabulary = record, sentence, logits, vocabulary
        self.matrix = model.get_input_embeddings().weight.detach().float().cpu()  # type: ignore[operator]
        self.source, self.target = tuple(sentence.source), tuple(sentence.target_input)
        self.encoder = f"model.encoder.layers.{min(layer, config.encoder_layers) - 1}"
        self.decoder = f"model.decoder.layers.{min(layer, config.decoder_layers) - 1}"
        self.attention = record.attention[f"{self.encoder}.self_attention"]

    def text(self) -> list[Exhibit]:
        text = self.sentence.text
        numbers = torch.tensor([[ord(letter) for letter in text[:MOST_LETTERS]]])
        shape = f"{len(text)} letters" + (f", the first {MOST_LETTERS} shown" if len(text) > MOST_LETTERS else "")
        return [Exhibit("letters", numbers, ("Unicode number",), tuple(text[:MOST_LETTERS]), shape, is_written=True)]

    def tokens(self) -> list[Exhibit]:
        ids = torch.tensor([self.sentence.source_ids])
        shape = f"(source_len,), here {ids.shape[1]} whole numbers"
        return [Exhibit("token ids", ids, ("id",), self.source, shape, is_written=True)]

    def embedding(self) -> list[Exhibit]:
        rows = self.matrix[self.sentence.source_ids]
        return [self._dimensions("rows of the shared matrix", rows, self.source, "(source_len, d_model)")]

    def positional_encoding(self) -> list[Exhibit]:
        added = self._input() - self.matrix[self.sentence.source_ids] * self.matrix.shape[1] ** 0.5
        return [self._dimensions("positional encoding", added, self.source, "(source_len, d_model)")]

    def input_embedding(self) -> list[Exhibit]:
        return [
            self._dimensions("embedding × √d_model + position", self._input(), self.source, "(source_len, d_model)")
        ]

    def queries(self) -> list[Exhibit]:
        return [self._dimensions("Q of head 1", self.attention.query[0], self.source, self._heads_shape("d_k"))]

    def keys(self) -> list[Exhibit]:
        return [self._dimensions("K of head 1", self.attention.key[0], self.source, self._heads_shape("d_k"))]

    def values(self) -> list[Exhibit]:
        return [self._dimensions("V of head 1", self.attention.value[0], self.source, self._heads_shape("d_v"))]

    def scores(self) -> list[Exhibit]:
        return [self._pairs("scores of head 1", self._scores(self.attention), self.source, self.source)]

    def softmax(self) -> list[Exhibit]:
        return [self._pairs("attention weights of head 1", self.attention.weights[0], self.source, self.source)]

    def heads(self) -> list[Exhibit]:
        gathered = self.attention.heads  # (source_len, heads, d_v)
        joined = self.record.outputs[f"{self.encoder}.self_attention.w_o"]
        return [
            self._dimensions("values gathered by head 1", gathered[:, 0], self.source, "(source_len, heads, d_v)"),
            self._dimensions("Concat(head 1, …, head h)", gathered.flatten(1), self.source, "(source_len, h · d_v)"),
            self._dimensions("Concat(…) W_O + b_O", joined, self.source, "(source_len, d_model)"),
        ]

    def residual(self) -> list[Exhibit]:
        total = self.record.inputs[f"{self.encoder}.self_attention_norm"]
        return [self._dimensions("x + attention", total, self.source, "(source_len, d_model)")]

    def layer_norm(self) -> list[Exhibit]:
        normed = self.record.outputs[f"{self.encoder}.self_attention_norm"]
        total = self.record.inputs[f"{self.encoder}.self_attention_norm"]
        spread = torch.stack([measure(x) for x in (total, normed) for measure in (_mean, _deviation)])
        names = ("▁mean before", "▁deviation before", "▁mean, scaled", "▁deviation, scaled")
        return [
            self._dimensions("LayerNorm(x + attention)", normed, self.source, "(source_len, d_model)"),
            Exhibit(
                "each position's mean and deviation", spread.T, self.source, names, "(source_len, 4)", is_written=True
            ),
        ]

    def feed_forward(self) -> list[Exhibit]:
        inner = self.record.inputs[f"{self.encoder}.feed_forward.w_2"]
        out = self.record.outputs[f"{self.encoder}.feed_forward.w_2"]
        return [
            self._dimensions(
                "max(0, x W_1 + b_1)" if self.activation == "relu" else f"{self.activation}(x W_1 + b_1)",
                inner,
                self.source,
                "(source_len, d_ff)",
            ),
            self._dimensions("… W_2 + b_2", out, self.source, "(source_len, d_model)"),
        ]

    def memory(self) -> list[Exhibit]:
        memory = self.record.inputs[f"{self.decoder}.encoder_decoder_attention.w_k"]
        return [self._dimensions("the encoder's output", memory, self.source, "(source_len, d_model)")]

    def mask(self) -> list[Exhibit]:
        own = self.record.attention[f"{self.decoder}.self_attention"]
        length = len(self.target)
        mask = torch.zeros(length, length) if own.mask is None else own.mask[0]
        return [
            self._pairs("scores of head 1, before the mask", self._scores(own), self.target, self.target),
            self._pairs("the mask: 1 where a key is hidden", (mask < -1e4).float(), self.target, self.target),
            self._pairs("attention weights of head 1, after it", own.weights[0], self.target, self.target),
        ]

    def cross_attention(self) -> list[Exhibit]:
        cross = self.record.attention[f"{self.decoder}.encoder_decoder_attention"]
        written = tuple(self.sentence.target_output)
        return [
            self._dimensions("Q of head 1, from the decoder", cross.query[0], written, "(heads, target_len, d_k)"),
            self._dimensions("K of head 1, from the memory", cross.key[0], self.source, "(heads, source_len, d_k)"),
            self._pairs("attention weights of head 1", cross.weights[0], written, self.source),
        ]

    def projection(self) -> list[Exhibit]:
        last = self.record.inputs["lm_head"]
        tokens = list(self.vocabulary)
        logits = self.logits[:1, tokens]
        names = tuple(self.vocabulary.values())
        first, shape = (self.sentence.target_input[0],), "(target_len, vocab_size)"
        return [
            self._dimensions("the decoder's output", last, self.target, "(target_len, d_model)"),
            Exhibit("logits of the likeliest first words", logits, first, names, shape, is_written=True),
        ]

    def next_word(self) -> list[Exhibit]:
        probabilities = self.logits[:1].softmax(-1)[:, list(self.vocabulary)]
        names = tuple(self.vocabulary.values())
        first, shape = (self.sentence.target_input[0],), "(target_len, vocab_size)"
        return [Exhibit("probability of the first word", probabilities, first, names, shape, is_written=True)]

    def _input(self) -> torch.Tensor:
        """What enters the encoder (source_len, d_model)."""
        return self.record.outputs["model.encoder.embeddings"]

    def _scores(self, values: object) -> torch.Tensor:
        """Q K^T / sqrt(d_k) of head 1, of the very queries and keys that the model's attention was given."""
        return values.query[0] @ values.key[0].T * values.scaling  # type: ignore[attr-defined]

    def _heads_shape(self, width: str) -> str:
        return f"(heads, source_len, {width})"

    def _dimensions(self, name: str, values: torch.Tensor, rows: Sequence[str], shape: str) -> Exhibit:
        values = values.float()
        return Exhibit(name, values, tuple(rows), (), f"{shape}, here {values.shape[0]} × {values.shape[1]}")

    def _pairs(self, name: str, values: torch.Tensor, rows: Sequence[str], columns: Sequence[str]) -> Exhibit:
        shape = f"(heads, {len(rows)}, {len(columns)}), here one head"
        return Exhibit(name, values.float(), tuple(rows), tuple(columns), shape)


def _mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean(-1)


def _deviation(x: torch.Tensor) -> torch.Tensor:
    return x.std(-1, correction=0)
