from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from allocations import peak_bytes
from contract import ATTENDING_BACK, BASE, GROUPED, LOCAL, NUMBERED_BACK, awaken, inputs
from torch import nn

from vdm_blocks.models import (
    FactorizedSpec,
    GroupNormSpec,
    TextAttentionSpec,
    TransformerSpec,
    UNetSpec,
    VideoTransformer,
    VideoUNet,
)
from vdm_blocks.models.tiled import TiledNetwork
from vdm_blocks.nn import JointAttention

SPEC = replace(
    LOCAL,
    levels=(LOCAL.levels[0], replace(LOCAL.levels[1], text=TextAttentionSpec(heads=1))),
    cond_channels=2,
    text_width=10,
    text_inner=4,
)


def build(spec: UNetSpec = SPEC) -> tuple[VideoUNet, tuple[int, int]]:
    net = awaken(VideoUNet(spec).double())
    assert isinstance(net, VideoUNet)
    field = net.receptive_field()
    assert field is not None
    return net, field


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("tile", [(3, 4, 12), (4, 24, 4), (9, 8, 8)], ids=str)
def test_tiles_join_to_the_whole(tile: tuple[int, int, int], per_frame: bool) -> None:
    net, margin = build()
    x = inputs(SPEC, 2, 7, (12, 20), per_frame=per_frame)
    images = torch.tensor([[False] * 4 + [True] * 3, [False] * 7])
    cond = replace(x.cond, images=images)
    tiled = TiledNetwork(net, tile=tile, margin=margin, divisor=SPEC.divisor)
    with torch.no_grad():
        torch.testing.assert_close(
            tiled(x.z_t, x.logsnr, cond), net(x.z_t, x.logsnr, cond), rtol=0, atol=1e-11
        )


@pytest.mark.parametrize("less", [(1, 0), (0, SPEC.divisor)], ids=["a frame", "a step of the grid"])
def test_a_smaller_margin_is_not_enough(less: tuple[int, int]) -> None:
    net, margin = build()
    size = 2 * (margin[1] + SPEC.divisor)
    size -= size % SPEC.divisor
    x = inputs(SPEC, 1, 2 * margin[0] + 2, (SPEC.divisor, 2 * size))
    tile = (1, SPEC.divisor, SPEC.divisor)
    rounded = -(-margin[1] // SPEC.divisor) * SPEC.divisor
    with torch.no_grad():
        whole = net(x.z_t, x.logsnr, x.cond)
        # One tile in the middle, enough of it to see both sides.
        short = TiledNetwork(
            net, tile=(x.z_t.shape[2] // 2, *tile[1:2], size), margin=(margin[0] - less[0], rounded - less[1]),
            divisor=SPEC.divisor,
        )(x.z_t, x.logsnr, x.cond)  # fmt: skip
    assert (short - whole).abs().max() > 1e-9


def test_gradients_pass_through() -> None:
    net, margin = build()
    x = inputs(SPEC, 1, 3, (8, 8))
    tiled = TiledNetwork(net, tile=(2, 4, 8), margin=margin, divisor=SPEC.divisor)
    z_t = x.z_t.requires_grad_()
    (want,) = torch.autograd.grad(net(z_t, x.logsnr, x.cond).square().sum(), z_t)
    (got,) = torch.autograd.grad(tiled(z_t, x.logsnr, x.cond).square().sum(), z_t)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)


@pytest.mark.parametrize("tile", [(0, 4, 4), (1, 6, 4), (1, 4, 6)], ids=str)
def test_a_tile_off_the_grid_is_refused(tile: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must divide by 4"):
        TiledNetwork(nn.Identity(), tile=tile, margin=(0, 0), divisor=4)


def test_a_negative_margin_is_refused() -> None:
    with pytest.raises(ValueError, match=r"its margin \(0, -1\) 0 or more"):
        TiledNetwork(nn.Identity(), tile=(1, 4, 4), margin=(0, -1))


WINDOWED = replace(
    ATTENDING_BACK,
    levels=(
        replace(
            ATTENDING_BACK.levels[0],
            temporal=replace(ATTENDING_BACK.levels[0].temporal, causal=False),  # type: ignore[type-var]
        ),
    ),
)


@pytest.mark.parametrize("spec", [GROUPED, ATTENDING_BACK, WINDOWED],
                         ids=["groups and attention of a frame", "a window back", "a window both ways"])  # fmt: skip
def test_whole_frames_are_cut_in_time_alone(spec: UNetSpec) -> None:
    net = awaken(VideoUNet(spec).double())
    assert isinstance(net, VideoUNet)
    frames, x = net.receptive_frames(), inputs(spec, 2, 9, (8, 12))
    assert frames is not None
    tiled = TiledNetwork(net, tile=(1, 8, 12), margin=(frames, 0), divisor=spec.divisor)
    with torch.no_grad():
        want = net(x.z_t, x.logsnr, x.cond)
        torch.testing.assert_close(tiled(x.z_t, x.logsnr, x.cond), want, rtol=0, atol=1e-11)
        tiled.margin = (frames - 1, 0)
        assert (tiled(x.z_t, x.logsnr, x.cond) - want).abs().max() > 1e-9


TRANSFORMER = TransformerSpec(width=12, depth=1, heads=2, mixing=FactorizedSpec(), text_width=0)


@pytest.mark.parametrize(
    ("network", "tile", "says"),
    [
        (VideoUNet(replace(LOCAL, norm=GroupNormSpec(groups=2))), (3, 8, 4), "FrameGroupNorm sees a whole frame of 8"),
        (VideoUNet(BASE), (3, 4, 12), "SpatialAttention sees a whole frame"),
        (VideoUNet(BASE), (2, 8, 12), "TemporalAttention sees all 3 frames, so they cannot be cut into tiles of 2"),
        (VideoUNet(NUMBERED_BACK), (2, 8, 12), "FramePositions sees all 3 frames"),
        (JointAttention(3, 1), (2, 8, 12), "JointAttention sees all 3 frames"),
        (VideoTransformer(TRANSFORMER), (3, 8, 4), "VideoTransformer sees a whole frame"),
    ],
    ids=["groups", "space", "time", "numbers", "joint", "transformer"],
)  # fmt: skip
def test_what_sees_beyond_a_tile_is_refused(
    network: nn.Module, tile: tuple[int, int, int], says: str
) -> None:
    x = inputs(LOCAL, 1, 3, (8, 12), dtype=torch.float32)
    with pytest.raises(ValueError, match=says):
        TiledNetwork(network, tile=tile, margin=(0, 0))(x.z_t, x.logsnr, x.cond)


@pytest.mark.parametrize(
    "spec", [LOCAL, replace(LOCAL, norm=GroupNormSpec(groups=2))], ids=["local", "groups"]
)
def test_memory_does_not_grow_with_the_clip(spec: UNetSpec) -> None:
    torch.manual_seed(0)
    net = awaken(VideoUNet(spec))
    assert isinstance(net, VideoUNet)
    frames = net.receptive_frames()
    assert frames is not None
    margin = net.receptive_field() or (frames, 0)
    tiled = TiledNetwork(net, tile=(1, 8, 8), margin=margin, divisor=spec.divisor)

    def beyond_the_result(frames: int) -> int:
        x = inputs(spec, 1, frames, (8, 8), dtype=torch.float32)
        with torch.no_grad():
            peak = peak_bytes(lambda: tiled(x.z_t, x.logsnr, x.cond))
        return peak - x.z_t.nbytes

    tile = 2 * frames + 1
    assert beyond_the_result(3 * tile) <= 1.05 * beyond_the_result(tile + 2)
