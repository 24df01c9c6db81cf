"""`python -m transformer2017`, which `accelerate launch -m transformer2017` needs."""

import sys

from transformer2017.cli import main

if __name__ == "__main__":
    sys.exit(main())
