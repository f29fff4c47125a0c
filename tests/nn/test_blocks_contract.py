"""The contract of every block on (B, C, T, H, W)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from contract import all_get_gradient, awaken, randn
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vdm_blocks.nn import (
    Attend,
    BlurDownsample,
    BlurUpsample,
    ChannelNorm,
    FactorizedConv,
    FrameGroupNorm,
    JoinedTextAttention,
    JointAttention,
    MagnitudeNorm,
    ResidualBlock,
    RMSNorm,
    Rotary,
    SpatialAttention,
    SpatialConv,
    SpatialDownsample,
    SpatialUpsample,
    TemporalAttention,
    TemporalConv,
    TemporalDownsample,
    TemporalUpsample,
    TextAttention,
    attend_by_products,
    attend_flex,
    attend_fused,
    attend_xformers,
    use_attend,
)

EMB, TEXT, LENGTH = 7, 5, 4


@dataclass(frozen=True, kw_only=True)
class Case:
    """A block of 6 channels, what else it is called with, and what it does to the shape."""

    make: Callable[[], nn.Module]
    more: Callable[[Tensor], tuple[Tensor, ...]] = lambda x: ()  # noqa: ARG005
    channels: int = 6
    space: tuple[int, int] = (1, 1)  # H' = H space[0] / space[1]
    time: tuple[int, int] = (1, 1)  # T' = T time[0] / time[1]
    even: bool = False
    any_channels: bool = False
    temporal: bool = False
    starts_as_identity: bool = False

    def call(self, block: nn.Module, x: Tensor, images: Tensor | None = None) -> Tensor:
        more = self.more(x)
        out: Tensor = block(x, *more, images) if self.temporal else block(x, *more)
        return out


def emb(x: Tensor) -> tuple[Tensor, ...]:
    return (randn(x.shape[0], EMB, seed=8, dtype=x.dtype),)


def text(x: Tensor) -> tuple[Tensor, ...]:
    mask = torch.arange(LENGTH) <= torch.arange(x.shape[0])[:, None]
    return randn(x.shape[0], LENGTH, TEXT, seed=9, dtype=x.dtype), mask


CASES = {
    "SpatialConv": Case(make=lambda: SpatialConv(6, 8, 5), channels=8),
    "TemporalConv": Case(make=lambda: TemporalConv(6, 3), temporal=True, starts_as_identity=True),
    "TemporalConv causal": Case(make=lambda: TemporalConv(6, 5, causal=True), temporal=True, starts_as_identity=True),
    "FactorizedConv": Case(make=lambda: FactorizedConv(6, 4, 3, frames=5), channels=4, temporal=True),
    "FactorizedConv causal": Case(make=lambda: FactorizedConv(6, 4, 5, causal=True), channels=4, temporal=True),
    "ResidualBlock": Case(make=lambda: ResidualBlock(6, 6, EMB, temporal=TemporalConv(6)), more=emb, temporal=True,
                          starts_as_identity=True),
    "ResidualBlock wider": Case(make=lambda: ResidualBlock(6, 9, EMB), more=emb, channels=9, temporal=True),
    "ResidualBlock scaled": Case(
        make=lambda: ResidualBlock(6, 6, EMB, temporal=TemporalConv(6, 5), norm=lambda c: FrameGroupNorm(2, c),
                                   skip_scale=2**-0.5), more=emb, temporal=True),
    "SpatialAttention": Case(make=lambda: SpatialAttention(6, 2), starts_as_identity=True),
    "TemporalAttention": Case(make=lambda: TemporalAttention(6, 3, reach=2), temporal=True, starts_as_identity=True),
    "TextAttention": Case(make=lambda: TextAttention(6, TEXT, 2), more=text, starts_as_identity=True),
    "ChannelNorm": Case(make=lambda: ChannelNorm(6)),
    "RMSNorm": Case(make=lambda: RMSNorm(6)),
    "SpatialDownsample": Case(make=lambda: SpatialDownsample(6, 8), channels=8, space=(1, 2), even=True),
    "SpatialUpsample": Case(make=lambda: SpatialUpsample(6, 4), channels=4, space=(2, 1)),
    "TemporalDownsample": Case(make=lambda: TemporalDownsample(6), time=(1, 2)),
    "TemporalUpsample": Case(make=lambda: TemporalUpsample(6), time=(2, 1)),
    "TemporalAttention causal": Case(make=lambda: TemporalAttention(6, 2, causal=True), temporal=True,
                                     starts_as_identity=True),
    "TemporalAttention windowed": Case(make=lambda: TemporalAttention(6, 3, window=1), temporal=True,
                                       starts_as_identity=True),
    "TemporalAttention rotary": Case(make=lambda: TemporalAttention(6, 1, rotary=Rotary(widths=(4,))), temporal=True,
                                     starts_as_identity=True),
    "TemporalAttention rotary causal": Case(
        make=lambda: TemporalAttention(6, 1, causal=True, window=2, rotary=Rotary(widths=(6,))), temporal=True,
        starts_as_identity=True),
    "JointAttention": Case(make=lambda: JointAttention(6, 1, rotary=Rotary(widths=(2, 2, 2))), temporal=True,
                           starts_as_identity=True),
    "JointAttention unplaced": Case(make=lambda: JointAttention(6, 2), temporal=True, starts_as_identity=True),
    "JoinedTextAttention": Case(make=lambda: JoinedTextAttention(6, TEXT, 2), more=text, starts_as_identity=True),
    "FrameGroupNorm": Case(make=lambda: FrameGroupNorm(3, 6)),
    "MagnitudeNorm": Case(make=MagnitudeNorm, any_channels=True),
    "BlurDownsample": Case(make=BlurDownsample, space=(1, 2), even=True, any_channels=True),
    "BlurUpsample": Case(make=BlurUpsample, space=(2, 1), any_channels=True),
}  # fmt: skip
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
temporal = pytest.mark.parametrize(
    "case", [c for c in CASES.values() if c.temporal], ids=[n for n, c in CASES.items() if c.temporal]
)


@every
@pytest.mark.parametrize("shape", [(1, 1, 5, 7), (2, 4, 3, 1), (1, 5, 6, 4)], ids=str)
def test_shape(case: Case, shape: tuple[int, ...]) -> None:
    b, t, h, w = (*shape[:2], *(2 * n for n in shape[2:])) if case.even else shape
    t, (more, fewer), (up, down) = t * case.time[1], case.time, case.space
    out = case.call(awaken(case.make()), randn(b, 6, t, h, w, dtype=torch.float32))
    assert out.shape == (b, case.channels, t * more // fewer, h * up // down, w * up // down)


@every
def test_gradient_reaches_every_parameter_and_the_input(case: Case) -> None:
    block, x = awaken(case.make().double()), randn(2, 6, 4, 4, 6).requires_grad_()
    assert all_get_gradient(block, case.call(block, x)) == []
    assert x.grad is not None
    assert bool((x.grad != 0).all())


@every
def test_reloads(case: Case) -> None:
    block, x = awaken(case.make()), randn(2, 6, 4, 4, 6, dtype=torch.float32)
    again = case.make()
    again.load_state_dict(block.state_dict())
    assert torch.equal(case.call(again, x), case.call(block, x))


@every
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.04), (torch.float16, 0.005)], ids=str)
def test_half_precision(case: Case, dtype: torch.dtype, tolerance: float) -> None:
    block, x = awaken(case.make()).to(dtype), randn(2, 6, 4, 4, 6).to(dtype)
    out = case.call(block, x)
    exact = case.call(block.double(), x.double())
    assert out.dtype == dtype
    assert (out - exact).norm() <= tolerance * exact.norm()


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_memory_layout_changes_nothing_and_is_kept(case: Case, dtype: torch.dtype) -> None:
    block, x = awaken(case.make().to(dtype)), randn(2, 6, 4, 4, 6, dtype=dtype)
    out = case.call(block, x.contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(out, case.call(block, x))
    assert out.is_contiguous(memory_format=torch.channels_last_3d)


@every
@pytest.mark.parametrize("bad", [(2, 6, 4, 6), (2, 5, 3, 4, 6)], ids=str)
def test_refuses_another_shape(case: Case, bad: tuple[int, ...]) -> None:
    bad = bad[:4] if case.any_channels else bad
    with pytest.raises(ValueError, match=r"\(B, C, T, H, W\)|channels"):
        case.call(case.make(), torch.zeros(bad))


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.starts_as_identity])
def test_starts_as_the_identity(name: str) -> None:
    case, x = CASES[name], randn(2, 6, 4, 3, 5, dtype=torch.float32)
    assert torch.equal(case.call(case.make(), x), x)


@temporal
def test_starts_frame_by_frame(case: Case) -> None:
    block, x = case.make().double(), randn(2, 6, 4, 3, 5)
    alone = torch.cat([case.call(block, x[:, :, t : t + 1]) for t in range(4)], dim=2)
    torch.testing.assert_close(case.call(block, x), alone, rtol=0, atol=1e-13)


@temporal
@pytest.mark.parametrize("shape", ["(B,)", "(B, T)"])
def test_frames_marked_as_images_are_computed_alone(case: Case, shape: str) -> None:
    block, x = awaken(case.make().double()), randn(2, 6, 4, 3, 5)
    images = torch.tensor([True, False]) if shape == "(B,)" else torch.tensor([[True] * 4, [False] * 4])
    out = case.call(block, x, images)
    alone = torch.cat([case.call(block, x[:, :, t : t + 1]) for t in range(4)], dim=2)
    torch.testing.assert_close(out[:1], alone[:1], rtol=0, atol=1e-12)
    torch.testing.assert_close(out[1:], case.call(block, x)[1:], rtol=0, atol=1e-12)


@temporal
def test_pictures_at_the_end_of_a_clip_neither_give_nor_take(case: Case) -> None:
    block, x = awaken(case.make().double()), randn(2, 6, 5, 3, 5)
    images = torch.tensor([[False, False, False, True, True]] * 2)
    out = case.call(block, x, images)
    torch.testing.assert_close(out[:, :, :3], case.call(block, x[:, :, :3]), rtol=0, atol=1e-12)
    for t in (3, 4):
        torch.testing.assert_close(
            out[:, :, t : t + 1], case.call(block, x[:, :, t : t + 1]), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("name", ["TemporalConv", "FactorizedConv", "TemporalAttention"])
def test_a_mask_of_another_length_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="5 frames; the video has 4"):
        CASES[name].call(CASES[name].make(), torch.zeros(1, 6, 4, 2, 2), torch.zeros(1, 5, dtype=torch.bool))


@pytest.mark.parametrize("name", [n for n in CASES if "causal" in n])
def test_causal_is_blind_to_the_future(name: str) -> None:
    block, x = awaken(CASES[name].make().double()), randn(1, 6, 6, 3, 3).requires_grad_()
    CASES[name].call(block, x)[:, :, 2].square().sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum((0, 1, 3, 4)) > 0
    assert seen.tolist() == [True, True, True, False, False, False]


@every
def test_recomputed_activations_give_the_same_gradients(case: Case) -> None:
    block, x = awaken(case.make().double()), randn(2, 6, 4, 4, 6).requires_grad_()
    leaves = [x, *block.parameters()]
    want = torch.autograd.grad(case.call(block, x).square().sum(), leaves)
    again = checkpoint(lambda y: case.call(block, y), x, use_reentrant=False)
    got = torch.autograd.grad(again.square().sum(), leaves)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("name", [n for n in CASES if "Attention" in n])
@pytest.mark.parametrize("backend", [attend_by_products, attend_fused, attend_flex, attend_xformers])
@pytest.mark.filterwarnings("ignore:(flex attention|xformers) :UserWarning")
def test_every_backend_agrees(name: str, backend: Attend) -> None:
    """The last two need a GPU; where there is none they must say so, and be no different."""
    case = CASES[name]
    block, x = awaken(case.make().double()), randn(2, 6, 4, 3, 5)
    images = torch.tensor([[False, False, True, True]] * 2) if case.temporal else None
    want = case.call(block, x), case.call(block, x, images)
    use_attend(block, backend)
    torch.testing.assert_close((case.call(block, x), case.call(block, x, images)), want, rtol=0, atol=1e-12)


class All(nn.Module):
    """Every block on the same video: one graph to compile instead of one for each."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(awaken(case.make()) for case in CASES.values())

    def forward(self, x: Tensor, more: list[tuple[Tensor, ...]], images: Tensor) -> list[Tensor]:
        return [
            block(x, *extra, images) if case.temporal else block(x, *extra)
            for block, extra, case in zip(self.blocks, more, CASES.values(), strict=True)
        ]


def test_compiled_in_one_graph_all_are_the_same_with_their_gradients() -> None:
    net, x = All(), randn(2, 6, 4, 4, 6, dtype=torch.float32)
    images = torch.tensor([[False, False, True, True]] * 2)
    more = [case.more(x) for case in CASES.values()]
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    want, got = net(x, more, images), compiled(x, more, images)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    leaves = list(net.parameters())
    for a, b in zip(*(torch.autograd.grad(sum(y.square().mean() for y in out), leaves) for out in (got, want)),
                    strict=True):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inductor's own
def test_compiled_to_machine_code_it_is_the_same() -> None:
    case, x = CASES["TemporalConv causal"], randn(2, 6, 4, 4, 6, dtype=torch.float32)
    block = awaken(case.make())
    known = torch._inductor.list_options()
    quick = {"cpp_cache_precompile_headers": False, "compile_threads": 1}  # for one kernel the rest is slower
    options: dict[str, Any] = {name: value for name, value in quick.items() if name in known}
    compiled = torch.compile(block, fullgraph=True, options=options)
    assert isinstance(compiled, nn.Module)
    with torch.no_grad():
        torch.testing.assert_close(case.call(compiled, x), case.call(block, x), rtol=0, atol=1e-5)
