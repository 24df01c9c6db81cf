"""What `--recipe` sets: the paper's two, and one for small corpora."""

# What `--recipe` sets. A flag on the command line, or in the file of flags, goes before it.
RECIPES: dict[str, dict[str, object]] = {
    # §5 and Table 3: 100K steps; the last 5 checkpoints are averaged (§6.1).
    "paper-base": {"preset": "base", "vocab_size": 37_000},
    # §6.1: dropout 0.3 comes with the preset; 300K steps; the last 20 checkpoints are averaged.
    "paper-big": {
        "preset": "big",
        "vocab_size": 37_000,
        "max_steps": 300_000,
        "average_checkpoints": 20,
        "save_total_limit": 21,
    },
    # Below some 200 thousand pairs: small vocabulary, strong dropout, small updates
    # (Araabi and Monz, 2020, "Optimizing Transformer for Low-Resource Neural Machine Translation", arXiv 2011.02266;
    # Sennrich and Zhang, 2019, arXiv 1905.11901).
    "small-data": {
        "preset": "small",
        "dropout": 0.3,
        "vocab_size": 6_000,
        "batch_tokens": 3072,
        "learning_rate": 1e-3,
        "warmup_steps": 800,
        "max_steps": -1,
        "num_train_epochs": 40,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "early_stopping_patience": 8,
        "logging_steps": 20,
    },
}
SMALL_DATA_PAIRS = 200_000
