"""What is computed twice is not remembered, costs no second convolution, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from allocations import peak_bytes
from contract import awaken, randn
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vdm_blocks.nn import (
    FrameGroupNorm,
    JoinedTextAttention,
    ResidualBlock,
    SpatialAttention,
    TemporalAttention,
    TemporalConv,
    TextAttention,
    recompute_activations,
)

C, E = 16, 4
X = randn(1, C, 4, 6, 8, dtype=torch.float32).contiguous(memory_format=torch.channels_last_3d)
TEXT, MASK = randn(1, 3, 5, dtype=torch.float32), torch.ones(1, 3, dtype=torch.bool)
EMB = randn(1, E, dtype=torch.float32)


def residual() -> nn.Module:
    return ResidualBlock(C, C, E)


def grouped() -> nn.Module:
    return ResidualBlock(C, C, E, temporal=TemporalConv(C), norm=lambda c: FrameGroupNorm(4, c))


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "residual": (residual, (EMB,)),
    "residual, grouped, over time": (grouped, (EMB,)),
    "time": (lambda: TemporalAttention(C, 2), ()),
    "space": (lambda: SpatialAttention(C, 2), ()),
    "text": (lambda: TextAttention(C, 5, 2), (TEXT, MASK)),
    "joined": (lambda: JoinedTextAttention(C, 5, 2), (TEXT, MASK)),
}


class Chain(nn.Module):
    """Four layers in a row, so that what they remember outweighs what one of them needs to run."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(awaken(make()) for _ in range(4))

    def forward(self, x: Tensor, *told: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, *told)
        return x


every = pytest.mark.parametrize("name", LAYERS)


def gradients(net: nn.Module, told: tuple[Tensor, ...]) -> list[Tensor]:
    x = X.clone(memory_format=torch.preserve_format).requires_grad_()
    return list(torch.autograd.grad(net(x, *told).square().sum(), [x, *net.parameters()]))


@every
def test_gradients_are_the_same_to_the_bit(name: str) -> None:
    make, told = LAYERS[name]
    net = Chain(make)
    want = gradients(net, told)
    recompute_activations(net)
    got = gradients(net, told)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    recompute_activations(net, on=False)
    assert not any(getattr(layer, "recomputes", False) for layer in net.modules())


@every
def test_no_convolution_and_no_projection_is_computed_twice(name: str) -> None:
    make, told = LAYERS[name]
    net, counts = Chain(make), []
    aten = torch.ops.aten
    for on in (False, True):
        recompute_activations(net, on)
        counter = FlopCounterMode(display=False)
        x = X.clone(memory_format=torch.preserve_format).requires_grad_()
        with counter:
            net(x, *told).square().sum().backward()
        found = counter.get_flop_counts()["Global"]
        counts.append(
            [found.get(op, 0) for op in (aten.convolution, aten.convolution_backward, aten.addmm, aten.mm)]
        )
    assert counts[0] == counts[1]
    assert sum(counts[0]) > 0


@pytest.mark.parametrize(
    ("name", "share"),
    # Of tensors as large as its input a residual block remembers seven, or two; with a temporal convolution and norms
    # modulated apart nine, or three. Attention over time no longer has its normed input.
    [("residual", 0.5), ("residual, grouped, over time", 0.6), ("time", 0.95)],
)
def test_less_is_remembered(name: str, share: float) -> None:
    make, told = LAYERS[name]
    net = Chain(make)
    large = randn(1, C, 8, 16, 16, dtype=torch.float32).contiguous(memory_format=torch.channels_last_3d)
    large.requires_grad_()

    def train() -> None:
        net(large, *told).square().sum().backward()

    train()  # so that gradients have their place
    peaks = []
    for on in (False, True):
        recompute_activations(net, on)
        peaks.append(peak_bytes(train))
    assert peaks[1] < share * peaks[0]


def test_nothing_is_recomputed_where_nothing_is_to_be_learned() -> None:
    net = Chain(residual)
    recompute_activations(net)
    with torch.no_grad():
        assert not net(X, EMB).requires_grad
