"""Looks inside a model while it translates a sentence: attention, alignment, next words, beams, and the walk.

Figures are in `transformer2017.inspection.figures`, which needs matplotlib.
"""

from .beams import Beam, Choice, Hypothesis, Search, why_the_winner_won
from .explanation import KINDS, Explanation, Kind, explain
from .page import write_page
from .walk import Exhibit, Stop

__all__ = [
    "KINDS",
    "Beam",
    "Choice",
    "Exhibit",
    "Explanation",
    "Hypothesis",
    "Kind",
    "Search",
    "Stop",
    "explain",
    "why_the_winner_won",
    "write_page",
]
