from __future__ import annotations

import pytest
import torch
from contract import randn
from torch.nn import functional as F

from vdm_blocks.nn import Pointwise, channels_last, to_last


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(64, 60, 40), (3, 5)], ids=["as a convolution", "as a product"])
def test_is_linear_with_its_gradients(
    rows: tuple[int, ...], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    convolutions: list[object] = []
    conv2d = F.conv2d
    monkeypatch.setattr("torch.nn.functional.conv2d", lambda *a: convolutions.append(a) or conv2d(*a))  # type: ignore[func-returns-value, redundant-expr]
    layer = Pointwise(8, 6, bias=bias)
    x = randn(*rows, 8, dtype=torch.float32).requires_grad_()
    leaves = [x, *layer.parameters()]
    out = layer(x)
    assert len(convolutions) == (x.numel() > 10_000)
    want = F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(out, want)
    weight = randn(*rows, 6, seed=3, dtype=torch.float32)
    got = torch.autograd.grad((out * weight).sum(), leaves)
    for a, b in zip(got, torch.autograd.grad((want * weight).sum(), leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_channels_last_stays_so_without_a_copy() -> None:
    layer = Pointwise(8, 8)
    x = to_last(channels_last(randn(1, 8, 8, 32, 40, dtype=torch.float32)))
    assert layer(x).is_contiguous()


def test_takes_rows_that_do_not_lie_one_after_another() -> None:
    layer, x = Pointwise(64, 64), randn(20, 16, 10, 64, dtype=torch.float32).transpose(0, 1)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("dynamic", [False, True], ids=["one size", "any size"])
def test_compiles_to_one_graph_either_way(dynamic: bool) -> None:
    layer, x = Pointwise(64, 64), randn(40, 48, 64, dtype=torch.float32)
    compiled = torch.compile(layer, fullgraph=True, backend="eager", dynamic=dynamic)
    torch.testing.assert_close(compiled(x), F.linear(x, layer.weight, layer.bias))


def test_has_the_parameters_of_linear() -> None:
    layer, plain = Pointwise(3, 4), torch.nn.Linear(3, 4)
    layer.load_state_dict(plain.state_dict())
    x = randn(2, 3, dtype=torch.float32)
    assert torch.equal(layer(x), plain(x))
