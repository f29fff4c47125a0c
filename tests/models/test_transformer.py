"""The contract of the video transformer: the U-Net's, for what both can do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from contract import WIDTH, Inputs, all_get_gradient, awaken, one_frame, randn
from torch import Tensor

from vdm_blocks.models import (
    AttentionPoolSpec,
    FactorizedSpec,
    FourierSpec,
    JointSpec,
    TransformerSpec,
    VideoTransformer,
)
from vdm_blocks.models.plain import from_plain, to_plain
from vdm_blocks.nn import Attend, attend_by_products, attend_fused, use_attend
from vdm_blocks.types import Conditioning

FACTORIZED = TransformerSpec(
    width=16, depth=2, heads=2, mixing=FactorizedSpec(), embedding=12, text_width=WIDTH, text_inner=6
)
JOINT = replace(
    FACTORIZED,
    mixing=JointSpec(),
    cond_channels=4,
    depth=1,
    pool=AttentionPoolSpec(heads=5),
    logsnr=FourierSpec(features=6),
)
SPECS = {"factorized": FACTORIZED, "joint": JOINT}
every = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
EXACT: dict[str, Any] = {"rtol": 0.0, "atol": 1e-11}


def network(spec: TransformerSpec) -> VideoTransformer:
    torch.manual_seed(0)
    net = awaken(VideoTransformer(spec).double())
    assert isinstance(net, VideoTransformer)
    return net


def inputs(
    spec: TransformerSpec,
    frames: int = 3,
    *,
    per_frame: bool = False,
    size: tuple[int, int] = (4, 6),
) -> Inputs:
    lead = (2, frames) if per_frame else (2,)
    grid = (frames, *size)
    return Inputs(
        z_t=randn(2, 3, *grid),
        logsnr=3 * randn(*lead, seed=2),
        cond=Conditioning(
            text=randn(*lead, 4, WIDTH, seed=3),
            text_mask=torch.arange(4) < torch.randint(1, 5, (*lead, 1)),
            video=randn(2, spec.cond_channels, *grid, seed=4) if spec.cond_channels else None,
            aug_logsnr=randn(2, seed=5) if spec.cond_channels else None,
            fps=torch.tensor([3.0, 6.0]).double(),
        ),
    )


def call(net: VideoTransformer, x: Inputs) -> Tensor:
    out: Tensor = net(x.z_t, x.logsnr, x.cond)
    return out


def frame_by_frame(net: VideoTransformer, x: Inputs) -> Tensor:
    frames = x.z_t.shape[2]
    return torch.cat([call(net, one_frame(x, t, frames=frames)) for t in range(frames)], dim=2)


@every
def test_gradient_reaches_every_parameter_and_shape_is_kept(spec: TransformerSpec) -> None:
    net, x = network(spec), inputs(spec)
    out = call(net, x)
    assert out.shape == x.z_t.shape
    assert all_get_gradient(net, out) == []


@every
@pytest.mark.parametrize("grid", [(1, 2, 6), (5, 10, 2), (2, 6, 14)], ids=str)
def test_any_grid_of_patches(spec: TransformerSpec, grid: tuple[int, int, int]) -> None:
    x = inputs(spec, grid[0], size=grid[1:])
    out = call(network(spec), x)
    assert out.shape == x.z_t.shape
    assert out.isfinite().all()


@every
def test_reloads(spec: TransformerSpec) -> None:
    net, x = network(spec), inputs(spec)
    again = VideoTransformer(spec).double()
    again.load_state_dict(net.state_dict())
    assert torch.equal(call(again, x), call(net, x))


def test_frames_do_not_mix_before_attention_across_them_is_trained() -> None:
    net, x = network(FACTORIZED), inputs(FACTORIZED)
    for name, p in net.named_parameters():
        if ".mix.1.film." in name:  # the gate of attention across frames, zero at the start
            torch.nn.init.zeros_(p)
    torch.testing.assert_close(call(net, x), frame_by_frame(net, x), **EXACT)


@every
def test_autocast_with_its_gradients(spec: TransformerSpec) -> None:
    net, x = network(spec).float(), inputs(spec).to(torch.float32)
    exact = call(net, x)
    with torch.autocast("cpu", torch.bfloat16):
        out = call(net, x)
    assert (out - exact).norm() < 0.05 * exact.norm()
    assert all_get_gradient(net, out.float()) == []


@every
@pytest.mark.parametrize("backend", [attend_by_products, attend_fused])
def test_every_backend_agrees(spec: TransformerSpec, backend: Attend) -> None:
    net, x = network(spec), inputs(spec)
    want = call(net, x)
    use_attend(net, backend)
    torch.testing.assert_close(call(net, x), want, **EXACT)


@every
def test_compiles_to_one_graph_that_gives_the_same_numbers_and_gradients(spec: TransformerSpec) -> None:
    net, x = network(replace(spec, depth=1)), inputs(spec)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    want, got = call(net, x), compiled(x.z_t, x.logsnr, x.cond)
    torch.testing.assert_close(got, want, **EXACT)
    leaves = list(net.parameters())
    for a, b in zip(*(torch.autograd.grad(y.square().sum(), leaves) for y in (got, want)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@every
def test_predicts_zero_at_the_start(spec: TransformerSpec) -> None:
    assert not call(VideoTransformer(spec).double(), inputs(spec)).any()


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(spec: TransformerSpec, dtype: torch.dtype) -> None:
    net, x = network(spec).to(dtype), inputs(spec).to(dtype)
    out = call(net, x)
    exact = call(net.double(), x.to(torch.float64))
    assert out.dtype == dtype
    assert (out - exact).norm() < 0.05 * exact.norm()


@every
@pytest.mark.parametrize("images", [(2,), (2, 3)], ids=str)
@pytest.mark.parametrize("per_frame", [False, True])
def test_images_are_computed_alone(spec: TransformerSpec, images: tuple[int, ...], per_frame: bool) -> None:
    net, x = network(spec), inputs(spec, per_frame=per_frame)
    marked = replace(x, cond=replace(x.cond, images=torch.ones(images, dtype=torch.bool)))
    alone = frame_by_frame(net, x)
    torch.testing.assert_close(call(net, marked), alone, **EXACT)
    assert (call(net, x) - alone).abs().max() > 1e-3


@every
def test_padding_and_dropped_text(spec: TransformerSpec) -> None:
    net, x = network(spec), inputs(spec)
    assert x.cond.text is not None
    assert x.cond.text_mask is not None
    longer = replace(
        x.cond,
        text=torch.cat([x.cond.text, randn(2, 3, WIDTH)], dim=1),
        text_mask=torch.nn.functional.pad(x.cond.text_mask, (0, 3)),
    )
    torch.testing.assert_close(call(net, replace(x, cond=longer)), call(net, x), **EXACT)
    one = call(net, replace(x, cond=x.cond.drop_text(torch.tensor([False, True]))))
    none = call(net, replace(x, cond=x.cond.without_text()))
    torch.testing.assert_close(one[:1], none[:1], **EXACT)
    torch.testing.assert_close(one[1:], call(net, x)[1:], **EXACT)
    assert (none - call(net, x)).abs().max() > 1e-3


@every
def test_space_and_time_are_seen(spec: TransformerSpec) -> None:
    net, x = network(spec), inputs(spec)
    for axis in (2, 3, 4):
        turned = Inputs(
            z_t=x.z_t.flip(axis),
            logsnr=x.logsnr,
            cond=replace(x.cond, video=None if x.cond.video is None else x.cond.video.flip(axis)),
        )
        assert (call(net, turned).flip(axis) - call(net, x)).abs().max() > 1e-3


@every
def test_levels_per_frame_are_heard_where_they_are(spec: TransformerSpec) -> None:
    net, x = network(spec), inputs(spec)
    each = x.logsnr[:, None].expand(-1, 3)
    torch.testing.assert_close(call(net, replace(x, logsnr=each)), call(net, x), **EXACT)
    changed = each + torch.tensor([0.0, 0.0, 3.0]).double()
    assert (call(net, replace(x, logsnr=changed)) - call(net, x)).abs().max() > 1e-3


@every
def test_recomputed_activations_give_the_same_gradients(spec: TransformerSpec) -> None:
    net, x = network(spec), inputs(spec)
    want = torch.autograd.grad(call(net, x).square().sum(), list(net.parameters()))
    net.checkpoint_blocks(*range(spec.depth))
    got = torch.autograd.grad(call(net, x).square().sum(), list(net.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    with pytest.raises(ValueError, match=r"no block \[9\]"):
        net.checkpoint_blocks(9)


def test_tokens_may_hold_several_frames() -> None:
    spec = replace(JOINT, patch_frames=2, patch=1)
    net, x = network(spec), inputs(spec, 4)
    assert all_get_gradient(net, call(net, x)) == []
    each = x.logsnr[:, None].expand(-1, 4)
    torch.testing.assert_close(call(net, replace(x, logsnr=each)), call(net, x), **EXACT)
    for cond in (
        replace(x.cond, images=torch.ones(2, dtype=torch.bool)),
        inputs(spec, 4, per_frame=True).cond,
    ):
        with pytest.raises(ValueError, match="each token of this network holds 2 frames"):
            call(net, replace(x, cond=cond))
    with pytest.raises(ValueError, match="nearest that do are 4 frames of 4x6"):
        call(net, inputs(spec, 3))


def test_patches_are_put_back_where_they_came_from() -> None:
    """With stem and head inverse to one another and every block silent, the network is the norm of its input."""
    spec = TransformerSpec(
        width=12, depth=1, heads=1, mixing=JointSpec(), text_width=0, patch_frames=1, embedding=8
    )
    net = VideoTransformer(spec).double()
    with torch.no_grad():
        for part in (net.stem, net.head):
            part.weight.copy_(torch.eye(12))
            part.bias.zero_()
        net.film.weight.zero_()
        net.film.bias.zero_()
    z_t = randn(2, 3, 2, 4, 6)
    out = net(z_t, torch.zeros(2).double(), Conditioning())
    patches = [
        x.unflatten(4, (3, 2)).unflatten(3, (2, 2)).permute(0, 2, 3, 5, 1, 4, 6).flatten(4)
        for x in (z_t, out)
    ]
    torch.testing.assert_close(patches[1], torch.nn.functional.layer_norm(patches[0], (12,)))


@every
def test_a_plan_survives_as_data(spec: TransformerSpec) -> None:
    assert from_plain(TransformerSpec, to_plain(spec)) == spec


def test_what_does_not_fit_is_refused() -> None:
    x = inputs(JOINT)
    assert x.cond.video is not None
    net = network(JOINT)
    bad = {
        "nearest that do are 3 frames of 4x6": replace(x, z_t=x.z_t[..., :5]),
        "a video of 4 channels; got 0": replace(x, cond=replace(x.cond, video=None)),
        "not on the grid": replace(x, cond=replace(x.cond, video=x.cond.video[:, :, :2])),
    }
    for message, wrong in bad.items():
        with pytest.raises(ValueError, match=message):
            call(net, wrong)
    for change, message in (
        ({"heads": 3}, "3 heads do not divide a width of 16"),
        ({"heads": 4}, "take at most 2 heads"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"text_width": -1}, "text_width must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(FACTORIZED, **change)  # type: ignore[arg-type]
