"""What a report counts: differences, ties, and what it lets pass."""

import pytest
import torch
from transformer2017.configuration import RunError, UsageError
from transformer2017.interchange.report import (
    Report,
    greedy_translations,
    longest_translation,
    sample_sources,
    sources_or_samples,
)
from transformers import MarianConfig


def test_a_tie_is_told_from_an_error(exportable):
    """Two tokens with the same row are equally likely, and may change places; any other difference is no tie."""
    sources = sample_sources(exportable.config)
    said = {token for row in greedy_translations(exportable, sources) for token in row}
    seen = said.union(*sources)
    one, twin = min(said), next(token for token in range(4, 97) if token not in seen)
    with torch.no_grad():
        exportable.model.shared.weight[twin] = exportable.model.shared.weight[one]
    ours = greedy_translations(exportable, sources)
    swapped = [[{one: twin, twin: one}.get(token, token) for token in row] for row in ours]
    ties = sum(a != b for a, b in zip(ours, swapped, strict=True))
    assert ties > 0
    longest = longest_translation(exportable)
    report = Report("a conversion")
    report.compare_translations(exportable, sources, swapped, longest)
    assert (report.different_translations, report.ties) == (ties, ties)
    other = next(token for token in range(4, 97) if token not in {*said, one, twin, ours[0][0]})
    wrong = [[other, *ours[0][1:]], *ours[1:]]
    report.compare_translations(exportable, sources, wrong, longest, must_agree=False)
    assert (report.different_translations, report.ties) == (1, 0)
    with pytest.raises(RunError, match="1 of 16 greedy translations differ, and not by rounding"):
        report.compare_translations(exportable, sources, wrong, longest)
    assert "15 equal; 0 of the others part at a tie" in str(report)


def test_not_a_number_and_too_large_a_difference_fail():
    one, far, lost = torch.zeros(3), torch.full((3,), 1e-3), torch.full((3,), torch.nan)
    Report("a conversion").compare_logits([(one, one), (one, far)], tolerance=None)
    for wrong in (far, lost):
        with pytest.raises(RunError, match="The a conversion went wrong"):
            Report("a conversion").compare_logits([(one, one), (one, wrong)], tolerance=1e-5)
    with pytest.raises(RunError):
        Report("a conversion").compare_logits([(one, lost)], tolerance=None)


def test_sentences_longer_than_a_table_of_positions_are_not_compared():
    """A model with few positions is imported all the same, and compared on what it can read."""
    config = MarianConfig(vocab_size=99, max_position_embeddings=6, pad_token_id=0, eos_token_id=2)
    report = Report("x")
    assert max(map(len, sources_or_samples(report, config, None))) == 6
    assert sources_or_samples(report, config, [[5, 2], [5] * 6 + [2]]) == [[5, 2]]
    assert report.lines[-1] == "not compared: 1 sentences longer than its 6 positions"
    config.max_position_embeddings = 1
    with pytest.raises(UsageError, match="a table of 1 positions"):
        sources_or_samples(report, config, None)
