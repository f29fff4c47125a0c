"""The contract of what reads numbers and captions, beside that of the blocks on video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from contract import all_get_gradient, awaken, randn
from torch import Tensor, nn

from vdm_blocks.nn import (
    AttentionPool,
    FourierEmbedding,
    FourierLogSNREmbedding,
    FramePositions,
    LogSNREmbedding,
    MeanPool,
    Pointwise,
    RelativeBias,
    ScalarEmbedding,
)

NUMBERS = (3 * randn(2, 3, seed=2),)
CAPTION = (randn(2, 4, 6, seed=3), torch.arange(4) < torch.tensor([[2], [4]]))
WIDTH = 5


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layer, what it is called with, and the shape of what it answers."""

    make: Callable[[], nn.Module]
    given: tuple[Tensor | int, ...]
    shape: tuple[int, ...]

    def call(self, layer: nn.Module, dtype: torch.dtype) -> Tensor:
        given = (x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in self.given)
        out: Tensor = layer(*given)
        return out


CASES = {
    "LogSNREmbedding": Case(make=lambda: LogSNREmbedding(WIDTH), given=NUMBERS, shape=(2, 3, WIDTH)),
    "ScalarEmbedding": Case(make=lambda: ScalarEmbedding(WIDTH, scale=30.0), given=NUMBERS, shape=(2, 3, WIDTH)),
    "FourierEmbedding": Case(make=lambda: FourierEmbedding(WIDTH), given=NUMBERS, shape=(2, 3, WIDTH)),
    "FourierLogSNREmbedding": Case(make=lambda: FourierLogSNREmbedding(WIDTH), given=NUMBERS, shape=(2, 3, WIDTH)),
    "FramePositions": Case(make=lambda: FramePositions(WIDTH), given=(4,), shape=(1, 4, WIDTH)),
    "RelativeBias": Case(make=lambda: RelativeBias(2, reach=3), given=(4,), shape=(2, 4, 4)),
    "MeanPool": Case(make=lambda: MeanPool(6, WIDTH), given=CAPTION, shape=(2, WIDTH)),
    "AttentionPool": Case(make=lambda: AttentionPool(6, WIDTH, 2), given=CAPTION, shape=(2, WIDTH)),
    "Pointwise": Case(make=lambda: Pointwise(6, WIDTH), given=CAPTION[:1], shape=(2, 4, WIDTH)),
}  # fmt: skip
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def made(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return awaken(case.make())


@every
def test_shape_and_gradient_to_every_parameter(case: Case) -> None:
    layer = made(case).double()
    out = case.call(layer, torch.float64)
    assert out.shape == case.shape
    if list(layer.parameters()):
        missed = all_get_gradient(layer, out)
        assert missed == []


@every
def test_reloads(case: Case) -> None:
    layer, again = made(case), case.make()
    again.load_state_dict(layer.state_dict())
    assert torch.equal(case.call(again, torch.float32), case.call(layer, torch.float32))


@every
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.003)], ids=str)
def test_half_precision(case: Case, dtype: torch.dtype, tolerance: float) -> None:
    """Of the same numbers: a level that comes in half precision is scaled and turned in a whole one."""
    layer = made(case).to(dtype)
    rounded = Case(
        make=case.make,
        given=tuple(x.to(dtype).double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in case.given),
        shape=case.shape,
    )  # fmt: skip
    out = case.call(layer, dtype)
    exact = rounded.call(layer.double(), torch.float64)
    assert (out - exact).norm() <= tolerance * exact.norm()


class All(nn.Module):
    """Every layer: one graph to compile instead of one for each."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(made(case) for case in CASES.values())

    def forward(self, dtype: torch.dtype) -> list[Tensor]:
        return [case.call(layer, dtype) for layer, case in zip(self.layers, CASES.values(), strict=True)]


def test_compiled_in_one_graph_all_are_the_same_with_their_gradients() -> None:
    net = All()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    want, got = net(torch.float32), compiled(torch.float32)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    leaves = list(net.parameters())
    slopes = [
        torch.autograd.grad(sum(y.square().mean() for y in out if y.requires_grad), leaves)
        for out in (got, want)
    ]
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
