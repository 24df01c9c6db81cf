"""The paper's variants by name (Table 3), and two smaller ones to learn with and to serve.

Each preset holds only what differs from the defaults of `Transformer2017Config`, which are the paper's base model.
"""

PAPER_PRESETS: dict[str, dict[str, int | float]] = {
    "base": {},
    # (A) heads, at a constant amount of computation: d_k = d_v = d_model / h.
    "A1": {"num_heads": 1},
    "A2": {"num_heads": 4},
    "A3": {"num_heads": 16},
    "A4": {"num_heads": 32},
    # (B) the size of the keys alone; the values keep d_v = 64.
    "B1": {"d_k": 16, "d_v": 64},
    "B2": {"d_k": 32, "d_v": 64},
    # (C) the size of the model.
    "C1": {"encoder_layers": 2, "decoder_layers": 2},
    "C2": {"encoder_layers": 4, "decoder_layers": 4},
    "C3": {"encoder_layers": 8, "decoder_layers": 8},
    "C4": {"d_model": 256},
    "C5": {"d_model": 1024},
    "C6": {"d_ff": 1024},
    "C7": {"d_ff": 4096},
    # (D) regularisation.
    "D1": {"dropout": 0.0},
    "D2": {"dropout": 0.2},
    "D3": {"label_smoothing": 0.0},
    "D4": {"label_smoothing": 0.2},
    # (E) learned positions in place of sinusoids; the number of positions is not in the paper.
    "E": {"learned_positions": 1024},
    "big": {"d_model": 1024, "d_ff": 4096, "num_heads": 16, "dropout": 0.3},
}

SMALL_PRESETS: dict[str, dict[str, int | float]] = {
    # Learns in minutes on a laptop: pronunciation, transliteration, a first try.
    "tiny": {"encoder_layers": 3, "decoder_layers": 3, "d_model": 128, "d_ff": 512, "num_heads": 4},
    # For corpora below some 200 thousand pairs, which the paper's sizes would learn by heart.
    "small": {
        "encoder_layers": 3,
        "decoder_layers": 3,
        "d_model": 256,
        "d_ff": 1024,
        "num_heads": 4,
        "dropout": 0.3,
    },
}

PRESETS = {**PAPER_PRESETS, **SMALL_PRESETS}
