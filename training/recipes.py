"""What `--recipe` sets: the paper's two, and one for small corpora."""

# A flag on the command line, or in the file of flags, goes before it.
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
    # Sennrich and Zhang, 2019, arXiv 1905.11901), and a rate that falls to 0: its end was worth more than an average
    # of checkpoints. Subword dropout (Provilkov et al., 2020, arXiv 1910.13267) is left to --bpe_dropout: all else
    # equal, a run with it ended 2.7 BLEU behind after as many updates (docs/results).
    "small-data": {
        "preset": "small",
        "dropout": 0.3,
        "vocab_size": 8_000,
        "batch_tokens": 2048,
        "learning_rate": 1.5e-3,
        "warmup_steps": 1000,
        "lr_scheduler_type": "linear",
        "max_steps": -1,
        "num_train_epochs": 40,  # more for a corpus that would have few updates: see below
        "eval_strategy": "steps",
        "eval_steps": 1 / 20,  # of the run
        "save_strategy": "steps",
        "save_steps": 1 / 20,
        "average_checkpoints": 3,
        "logging_steps": 20,
    },
}
SMALL_DATA_PAIRS = 200_000
# In fewer updates the rate does not rise and fall as it should; in more epochs a corpus is known by heart.
LEAST_UPDATES, MOST_EPOCHS = 4000, 200
