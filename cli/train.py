"""`transformer2017 train`: two text files in, a model folder out."""


def run(argv: list[str]) -> int:
    """Trains as the flags say."""
    from transformer2017.training.train import train

    train(argv)
    return 0
