"""The words of the walk: each stop's term in English and Korean, what happens there, and the code that does it."""

from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedConfig


@dataclass(frozen=True)
class StopText:
    """What a stop says."""

    key: str
    term: str
    korean: str
    section: str  # of the paper
    says: str
    code: tuple[tuple[str, str, str], ...]  # (file of modeling/, class or function, what the line contains)


_MODEL = "modeling_transformer2017"

STOPS = (
    StopText(
        "text",
        "Text",
        "문장",
        "§5.1",
        "What was typed: letters, each of which has a number in Unicode. Those numbers say nothing of words, so the "
        "sentence is first cut into pieces. The line of code below, of the translator of files, leaves out "
        "those that are empty.",
        (("translation", "Translator._sources", "line.strip()"),),
    ),
    StopText(
        "tokens",
        "Tokens",
        "토큰",
        "§5.1",
        "The tokenizer, which is saved beside the model, cuts the sentence into pieces of a vocabulary that source "
        "and target share, and gives each its number. Rare words become several pieces; ▁ marks where a word begins, "
        "and in the pictures · a piece that continues one. </s> ends the sentence.",
        (("translation", "Translator._sources", "self.tokenizer("),),
    ),
    StopText(
        "embedding",
        "Embedding",
        "임베딩",
        "§3.4",
        "Each number picks its row of one learned matrix. The same matrix serves the encoder, the decoder and, at the "
        "end, the choice of the next word.",
        (("embeddings", "InputEmbedding.forward", "self.embed_tokens(ids)"),),
    ),
    StopText(
        "positional_encoding",
        "Positional encoding",
        "위치 인코딩",
        "§3.5",
        "Nothing in attention knows the order of words, so the order is written into the vectors: each position has "
        "its own pattern of sines and cosines, quick waves in the first dimensions and slow ones in the last.",
        (("embeddings", "sinusoidal_encoding", "angles ="), ("embeddings", "sinusoidal_encoding", "angles.sin()")),
    ),
    StopText(
        "input_embedding",
        "Input of the encoder",
        "인코더 입력",
        "§3.4, §3.5",
        "The embedding, scaled by √d_model, and the positional encoding are added. From here on, each position is one "
        "vector of d_model numbers.",
        (("embeddings", "InputEmbedding.forward", "self.dropout(embedded * "),),
    ),
    StopText(
        "queries",
        "Queries",
        "쿼리",
        "§3.2",
        "Each position asks a question: its vector times W_Q, plus a bias (the paper's formula shows none; W_K, W_V "
        "and W_O have one too). The result is split among the heads; head 1 is shown.",
        (("attention", "MultiHeadAttention.forward", "self.w_q, "),),
    ),
    StopText(
        "keys",
        "Keys",
        "키",
        "§3.2",
        "Each position also says what it has to offer: its vector times W_K. A query is compared with every key.",
        (("attention", "MultiHeadAttention.forward", "self.w_k, "),),
    ),
    StopText(
        "values",
        "Values",
        "값(밸류)",
        "§3.2",
        "And each position holds what it hands over to whoever attends to it: its vector times W_V.",
        (("attention", "MultiHeadAttention.forward", "self.w_v)"),),
    ),
    StopText(
        "scores",
        "Scores",
        "어텐션 스코어",
        "§3.2.1",
        "The dot product of each query (row) with each key (column), divided by √d_k so that large d_k does not push "
        "the softmax to its ends. High where question and offer match.",
        (("attention", "scaled_dot_product_attention", "key.transpose("),),
    ),
    StopText(
        "softmax",
        "Softmax and attention weights",
        "소프트맥스와 어텐션 가중치",
        "§3.2.1",
        "The softmax turns each row of scores into shares that sum to 1: how much of each word's value this position "
        "takes. These are the weights that the attention pictures show.",
        (("attention", "scaled_dot_product_attention", "torch.softmax("),),
    ),
    StopText(
        "heads",
        "Heads (multi-head attention)",
        "헤드(멀티헤드 어텐션)",
        "§3.2.2",
        "Each head gathers values by its own weights, so heads can look in different ways. What they gathered is put "
        "side by side and mixed by W_O back into d_model numbers.",
        (
            ("attention", "scaled_dot_product_attention", "attended ="),
            ("attention", "MultiHeadAttention.forward", "self.w_o"),
        ),
    ),
    StopText(
        "residual",
        "Residual connection",
        "잔차 연결",
        "§3.1",
        "What attention found is added to what was there, so nothing is lost and gradients have a short way back.",
        (("encoder", "EncoderLayer.forward", "self.self_attention_norm(x + "),),
    ),
    StopText(
        "layer_norm",
        "Layer normalisation",
        "층 정규화",
        "§3.1",
        "Each position's vector is brought to mean 0 and deviation 1, then scaled and shifted by learned numbers, so "
        "that what the next sub-layer reads keeps its size. In this model it comes after the sum.",
        (("encoder", "EncoderLayer.forward", "self.self_attention_norm("),),
    ),
    StopText(
        "feed_forward",
        "Feed-forward network",
        "피드포워드 신경망",
        "§3.3",
        "Each position by itself goes through two linear maps with a ReLU between them: out to d_ff numbers, of which "
        "many are zero, and back to d_model. Residual and normalisation follow again.",
        (
            ("feed_forward", "FeedForward.forward", "self.w_1"),
            ("feed_forward", "FeedForward.forward", "self.w_2"),
            ("encoder", "EncoderLayer.forward", "self.feed_forward_norm("),
        ),
    ),
    StopText(
        "memory",
        "Encoder output (memory)",
        "인코더 출력",
        "§3.1",
        "After N such layers each source position has been read in the light of all others. The decoder reads this at "
        "every step.",
        ((_MODEL, "Transformer2017Encoder.forward", "x = layer(x, "),),
    ),
    StopText(
        "mask",
        "Masked self-attention",
        "마스크드 셀프 어텐션",
        "§3.2.3",
        "The decoder attends to its own words in the same way, but a word may not look at those after it, which it is "
        "to predict: their scores become very negative before the softmax, and their weights 0. A second mask hides "
        "padding where sentences of several lengths share a batch; one sentence alone needs none.",
        (
            ("attention", "scaled_dot_product_attention", "scores + attention_mask"),
            ("decoder", "DecoderLayer.forward", "self.self_attention("),
        ),
    ),
    StopText(
        "cross_attention",
        "Encoder-decoder attention (cross-attention)",
        "인코더-디코더 어텐션(크로스 어텐션)",
        "§3.2.3",
        "Here the two halves meet: the queries come from the decoder, keys and values from the encoder's output. Rows "
        "are named by the word that is being written.",
        (("decoder", "DecoderLayer.forward", "self.encoder_decoder_attention("),),
    ),
    StopText(
        "projection",
        "Output projection",
        "출력 투영(선형 변환)",
        "§3.4",
        "The decoder's vector is compared with the embedding of every token: a dot product with each row of the "
        "shared matrix gives each token one logit.",
        ((_MODEL, "Transformer2017ForConditionalGeneration.forward", "self.lm_head("),),
    ),
    StopText(
        "next_word",
        "Softmax: the next word",
        "소프트맥스: 다음 단어 확률",
        "§3.4",
        "A last softmax turns logits into probabilities. Beam search adds up their logarithms along a sentence and "
        "chooses; the chosen word goes back into the decoder, and the next step begins.",
        (("decoding_search", "Search._advance", "F.log_softmax("),),
    ),
)


def stops_of(config: PreTrainedConfig) -> tuple[StopText, ...]:
    """What the stops say of a model that is not the paper's in all."""
    instead: dict[str, dict[str, Any]] = {}
    if config.learned_positions is not None:
        instead["positional_encoding"] = {
            "says": "Nothing in attention knows the order of words, so the order is written into the vectors: each "
            "position has a vector of its own. This model has learned them (row E of Table 3); the paper's computes "
            "them, as patterns of sines and cosines.",
            "code": (("embeddings", "InputEmbedding.forward", "self.positions(positions)"),),
        }
    if config.activation_function != "relu":
        instead["feed_forward"] = {
            "says": f"Each position by itself goes through two linear maps with a {config.activation_function} "
            "between them (the paper's is a ReLU): out to d_ff numbers, and back to d_model. Residual and "
            "normalisation follow again."
        }
    if config.logits_bias:
        instead["projection"] = {
            "says": "The decoder's vector is compared with the embedding of every token: a dot product with each row "
            "of the shared matrix, plus a bias that the paper's model does not have, gives each token one logit."
        }
    return tuple(replace(stop, **instead.get(stop.key, {})) for stop in STOPS)
