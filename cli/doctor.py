"""`transformer2017 doctor`: the flags of `train`, looked at before hours are spent."""


def run(argv: list[str]) -> int:
    """Examines the run that the flags describe; 1 if something is wrong with it."""
    from transformer2017.training.doctor import examine

    return 0 if examine(argv) else 1
