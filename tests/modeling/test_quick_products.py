"""Products of training in float32 on a CPU, and their gradients, are those of torch's own."""

import runpy
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformer2017.modeling import quick_products
from transformer2017.modeling.quick_products import product

QUICK = torch.ops.mkldnn._linear_pointwise


@pytest.fixture(autouse=True)
def quick_on_any_processor(monkeypatch):
    """oneDNN computes the same wherever it is; elsewhere it may only be slower."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(quick_products, "HAS_QUICK_PRODUCTS", True)


@pytest.fixture(params=[(3, 5, 6, 11), (1, 1, 16, 48), (64, 32, 24), (6, 4)], ids=str)
def operands(request) -> list[torch.Tensor]:
    *rows, inputs, outputs = request.param
    sizes = ((*rows, inputs), (outputs, inputs), (outputs,))
    return [torch.randn(size, requires_grad=True) for size in sizes]


@pytest.mark.parametrize("has_bias", [True, False])
def test_output_and_gradients_are_those_of_torch(operands, has_bias):
    inputs, results = operands if has_bias else operands[:2], []
    for multiply in (product, F.linear):
        y = multiply(*inputs)
        of_sum = torch.autograd.grad(y.sum(), inputs, retain_graph=True)  # a number seen as many, without strides
        results.append([y, *of_sum, *torch.autograd.grad(y.square().sum(), inputs)])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("processor", "capability", "is_quick"),
    [
        ("AMD EPYC", "AVX512", True),
        ("AMD EPYC", "AVX2", False),
        ("Intel Xeon", "AVX512", False),
        (None, "AVX512", True),
    ],
)
def test_the_processor_decides(monkeypatch, processor, capability, is_quick):
    """MKL, which torch would take, is the quicker on Intel's own; a torch that does not tell the name has oneDNN's."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": processor}, raising=False)
    if processor is None:  # as in torch 2.10
        monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert runpy.run_path(quick_products.__file__)["HAS_QUICK_PRODUCTS"] is is_quick


def test_no_rows_have_gradients_of_zero():
    """A batch whose labels are all ignored: oneDNN multiplies no empty matrices."""
    inputs = [torch.randn(size, requires_grad=True) for size in ((2, 0, 6), (4, 6), (4,))]
    y = product(*inputs)
    y.sum().backward()
    assert y.shape == (2, 0, 4)
    assert all(each.grad.shape == each.shape and not each.grad.any() for each in inputs)


def test_second_gradients_are_those_of_torch(operands):
    results = []
    for multiply in (product, F.linear):
        first = torch.autograd.grad(multiply(*operands).pow(3).sum(), operands, create_graph=True)
        results.append(torch.autograd.grad(sum(each.square().sum() for each in first), operands))
    for mine, plain in zip(*results, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-3 * plain.abs().max().item())


def test_only_the_gradients_that_are_needed_are_computed(operands):
    x, weight, bias = operands
    weight.requires_grad_(False)
    with patch.object(torch.ops.mkldnn, "_linear_pointwise", wraps=QUICK) as called:
        product(x, weight, bias).sum().backward()
    assert called.call_count == 2  # forward, and the gradient of x
    assert weight.grad is None


def test_transformations_of_torch_func_pass_through(operands):
    x, weight, _ = operands

    def per_row(multiply):
        return torch.func.vmap(torch.func.grad(lambda row: multiply(row[None], weight).square().sum()))

    rows = x.detach().reshape(-1, x.shape[-1])
    torch.testing.assert_close(per_row(product)(rows), per_row(F.linear)(rows), rtol=1e-4, atol=1e-4)


class Shard(torch.Tensor):
    """A tensor that stands for another, as one shared out over devices does."""


@pytest.mark.parametrize("kind", ["autocast", "float64", "bfloat16", "a stand-in"])
def test_everything_else_is_left_to_torch(kind):
    x, weight = torch.randn(3, 6), nn.Parameter(torch.randn(4, 6))
    if kind in ("float64", "bfloat16"):
        x, weight = (each.to(getattr(torch, kind)) for each in (x, weight))
    if kind == "a stand-in":
        weight = torch.randn(4, 6).as_subclass(Shard)
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"),
        patch.object(torch.ops.mkldnn, "_linear_pointwise") as called,
    ):
        y = product(x, weight)
        assert torch.equal(y, F.linear(x, weight))
    called.assert_not_called()


def test_a_training_step_in_float32_has_no_other_products_with_weights(model):
    """Forward, and the gradients of inputs and weights, of every map: none is left to torch by oversight."""
    ids = torch.tensor([[5, 6, 9, 2], [7, 8, 2, 0]])
    torch_linear = F.linear
    with patch.object(F, "linear", side_effect=torch_linear) as left:
        model.train()(input_ids=ids, labels=ids).loss.backward()
    left.assert_not_called()
    with patch.object(torch.ops.mkldnn, "_linear_pointwise", wraps=QUICK) as called:
        model.eval()(input_ids=ids, labels=ids)
    called.assert_not_called()
