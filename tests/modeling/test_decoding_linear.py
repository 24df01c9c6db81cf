"""The forms of a linear map that decode fastest compute what torch's own does."""

import pytest
import torch
from torch.nn import functional as F
from transformer2017.modeling.decoding_linear import FewRowsLinear, PackedLinear


@pytest.fixture(params=[1, 64], ids=["any other processor", "Intel"])
def few(request, monkeypatch) -> int:
    """As each processor has it: the same numbers everywhere, and not the same speed."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(FewRowsLinear, "ROWS", request.param)
    return request.param


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", [(48, 16), (16, 48)], ids=str)
def test_as_many_rows_as_there_are(few, shape, has_bias, relu):
    """On both sides of the number up to which rows are few."""
    weight, bias = torch.randn(shape), torch.randn(shape[0]) if has_bias else None
    multiply = PackedLinear(weight, bias, relu)
    for rows in (1, 3, few, few + 1):
        x = torch.randn(rows, shape[1])
        y = F.linear(x, weight, bias)
        torch.testing.assert_close(multiply(x), y.relu() if relu else y, rtol=1e-4, atol=1e-4)
