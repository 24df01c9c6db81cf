"""`transformer2017 budget`: what a run will take, before there is any data."""


def run(argv: list[str]) -> int:
    """Prints parameters, arithmetic, time, memory and cost."""
    from transformer2017.training.budget import plan

    print("\n".join(plan(argv).lines()))
    return 0
