"""How many parameters each row of Table 3 has, by the formula and in the paper.

`python -m transformer2017.configuration.parameter_counts` prints the table of docs/variants.md.
"""

from .configuration_transformer2017 import Transformer2017Config
from .presets import PAPER_PRESETS

# Table 3 of the paper, in millions; it gives no figure for the rows that are not here.
PAPER_MILLIONS = {
    "base": 65, "B1": 58, "B2": 60, "C1": 36, "C2": 50, "C3": 80, "C4": 28, "C5": 168, "C6": 53, "C7": 90, "big": 213,
}  # fmt: skip
VOCAB_SIZE = 37000  # "about 37000 tokens" (§5.1)


def count_parameters(config: Transformer2017Config) -> int:
    """Counts the weights of a model of this configuration, the shared matrix once (§3.4)."""
    d_model, d_ff, heads = config.d_model, config.d_ff, config.num_heads
    norm = 2 * d_model
    queries_or_keys = (d_model + 1) * heads * config.d_k
    values = (d_model + 1) * heads * config.d_v
    attention = 2 * queries_or_keys + values + (heads * config.d_v + 1) * d_model
    feed_forward = (d_model + 1) * d_ff + (d_ff + 1) * d_model
    encoder_layer = attention + feed_forward + 2 * norm
    decoder_layer = 2 * attention + feed_forward + 3 * norm
    layers = config.encoder_layers * encoder_layer + config.decoder_layers * decoder_layer
    positions = 2 * (config.learned_positions or 0) * d_model  # of the encoder and of the decoder
    bias = config.vocab_size if config.logits_bias else 0
    return config.vocab_size * d_model + layers + positions + bias


def table(vocab_size: int = VOCAB_SIZE) -> str:
    """Returns the rows of Table 3 in Markdown: the count, the paper's, and the vocabulary that would give the latter."""
    lines = [
        "| row | parameters | paper | difference | words that the paper's figure needs |",
        "|---|--:|--:|--:|--:|",
    ]
    for name in PAPER_PRESETS:
        config = Transformer2017Config.from_preset(name, vocab_size=vocab_size)
        count = count_parameters(config)
        paper, difference, words = "", "", ""
        if name in PAPER_MILLIONS:
            millions = PAPER_MILLIONS[name]
            paper, difference = f"{millions}M", f"{100 * (count / (millions * 1e6) - 1):+.1f}%"
            rest = count - vocab_size * config.d_model
            fewest, most = (((millions + half) * 1e6 - rest) / config.d_model for half in (-0.5, 0.5))
            words = f"{fewest:,.0f} to {most:,.0f}"
        lines.append(f"| {name} | {count:,} | {paper} | {difference} | {words} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
