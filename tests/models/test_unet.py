"""The contract of the video U-Net."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from contract import (
    ATTENDING_BACK,
    BASE,
    CAUSAL,
    GROUPED,
    LOCAL,
    MAGNITUDE,
    ROOT_MEAN,
    SPECS,
    UPSAMPLER,
    Inputs,
    all_get_gradient,
    awaken,
    inputs,
    one_frame,
    randn,
)
from torch import Tensor

from vdm_blocks.models import (
    ChannelNormSpec,
    GroupNormSpec,
    JoinedTextSpec,
    LevelSpec,
    MagnitudeNormSpec,
    RMSNormSpec,
    TemporalAttentionSpec,
    UNetSpec,
    VideoUNet,
)
from vdm_blocks.nn import ResidualBlock, recompute_activations
from vdm_blocks.types import Conditioning

every = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
reading = pytest.mark.parametrize(
    "spec", [BASE, UPSAMPLER, GROUPED], ids=["base", "upsampler", "joined text"]
)
EXACT: dict[str, Any] = {"rtol": 0.0, "atol": 1e-11}


def network(spec: UNetSpec) -> VideoUNet:
    torch.manual_seed(0)
    net = awaken(VideoUNet(spec).double())
    assert isinstance(net, VideoUNet)
    return net


def call(net: VideoUNet, x: Inputs) -> Tensor:
    out: Tensor = net(x.z_t, x.logsnr, x.cond)
    return out


def frame_by_frame(net: VideoUNet, x: Inputs) -> Tensor:
    frames = x.z_t.shape[2]
    return torch.cat([call(net, one_frame(x, t, frames=frames)) for t in range(frames)], dim=2)


@every
@pytest.mark.parametrize("shape", [(1, 1, 4, 12), (2, 5, 8, 4), (3, 2, 20, 12)], ids=str)
def test_shape(spec: UNetSpec, shape: tuple[int, int, int, int]) -> None:
    b, t, h, w = shape
    x = inputs(spec, b, t, (h, w), dtype=torch.float32)
    net = awaken(VideoUNet(spec))
    assert isinstance(net, VideoUNet)
    out = call(net, x)
    assert out.shape == x.z_t.shape
    assert out.isfinite().all()


@every
def test_gradient_reaches_every_parameter(spec: UNetSpec) -> None:
    net = network(spec)
    assert all_get_gradient(net, call(net, inputs(spec))) == []


@every
def test_predicts_zero_at_the_start(spec: UNetSpec) -> None:
    x = inputs(spec, dtype=torch.float32)
    assert not call(VideoUNet(spec), x).any()


@every
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)], ids=str)
def test_half_precision(spec: UNetSpec, dtype: torch.dtype, tolerance: float) -> None:
    net, x = network(spec).to(dtype), inputs(spec).to(dtype)
    out = call(net, x)
    exact = call(net.double(), x.to(torch.float64))
    assert out.dtype == dtype
    assert (out - exact).norm() < tolerance * exact.norm()


@every
def test_autocast_with_its_gradients(spec: UNetSpec) -> None:
    net, x = network(spec).float(), inputs(spec, dtype=torch.float32)
    exact = call(net, x)
    with torch.autocast("cpu", torch.bfloat16):
        out = call(net, x)
    assert (out - exact).norm() < 0.05 * exact.norm()
    assert all_get_gradient(net, out.float()) == []


@every
def test_recomputed_activations_give_the_same_gradients(spec: UNetSpec) -> None:
    x = inputs(spec)
    gradients = []
    for levels, layers in (((), False), (range(len(spec.levels)), False), ((), True), ((0,), True)):
        net = network(spec)
        net.checkpoint_levels(*levels)
        recompute_activations(net, layers)
        call(net, x).square().sum().backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None
        for other in gradients[1:]:
            assert torch.equal(gradient, other[name]), name  # type: ignore[arg-type]


def test_a_level_that_is_not_there_cannot_be_recomputed() -> None:
    with pytest.raises(ValueError, match=r"no level \[2\]; this network has levels 0 to 1"):
        VideoUNet(BASE).checkpoint_levels(0, 2)


@every
def test_starts_frame_by_frame(spec: UNetSpec) -> None:
    net = VideoUNet(spec).double()
    torch.nn.init.normal_(net.head.conv.weight)
    for name, p in net.named_parameters():
        over_time = any(part in name for part in (".time.", ".temporal.", ".frame."))
        if not over_time and not p.any():
            torch.nn.init.normal_(p, std=0.1)
    x = inputs(spec)
    out = call(net, x)
    assert out.std() > 0.1
    torch.testing.assert_close(out, frame_by_frame(net, x), **EXACT)


@every
@pytest.mark.parametrize("images", [(2,), (2, 3)], ids=str)
@pytest.mark.parametrize("per_frame", [False, True], ids=["one caption", "a caption per frame"])
def test_images_are_computed_alone(spec: UNetSpec, images: tuple[int, ...], per_frame: bool) -> None:
    net, x = network(spec), inputs(spec, per_frame=per_frame)
    marked = replace(x, cond=replace(x.cond, images=torch.ones(images, dtype=torch.bool)))
    alone = frame_by_frame(net, x)
    torch.testing.assert_close(call(net, marked), alone, **EXACT)
    assert (call(net, x) - alone).abs().max() > 1e-3


@every
def test_pictures_packed_after_a_clip_leave_it_alone(spec: UNetSpec) -> None:
    net, x = network(spec), inputs(spec, frames=5, per_frame=True)
    images = torch.tensor([[False, False, False, True, True]]).expand(2, -1)
    out = call(net, replace(x, cond=replace(x.cond, images=images)))
    clip = replace(
        x,
        z_t=x.z_t[:, :, :3],
        logsnr=x.logsnr[:, :3],
        cond=Conditioning(
            text=x.cond.text[:, :3] if x.cond.text is not None else None,
            text_mask=x.cond.text_mask[:, :3] if x.cond.text_mask is not None else None,
            video=x.cond.video[:, :, :3] if x.cond.video is not None else None,
            aug_logsnr=x.cond.aug_logsnr,
            fps=x.cond.fps,
        ),
    )
    torch.testing.assert_close(out[:, :, :3], call(net, clip), **EXACT)
    torch.testing.assert_close(out[:, :, 3:], frame_by_frame(net, x)[:, :, 3:], **EXACT)


@every
def test_a_level_per_frame_may_be_the_same_for_all(spec: UNetSpec) -> None:
    net, x = network(spec), inputs(spec)
    each = replace(x, logsnr=x.logsnr[:, None].expand(-1, 3))
    torch.testing.assert_close(call(net, each), call(net, x), **EXACT)


@reading
def test_padding_changes_nothing(spec: UNetSpec) -> None:
    net, x = network(spec), inputs(spec)
    assert x.cond.text is not None
    assert x.cond.text_mask is not None
    longer = replace(
        x.cond,
        text=torch.cat([x.cond.text, 100 * randn(2, 5, spec.text_width)], dim=1),
        text_mask=torch.cat([x.cond.text_mask, torch.zeros(2, 5, dtype=torch.bool)], dim=1),
    )
    torch.testing.assert_close(call(net, replace(x, cond=longer)), call(net, x), **EXACT)


@reading
def test_dropped_text_is_no_text(spec: UNetSpec) -> None:
    net, x = network(spec), inputs(spec)
    one = replace(x, cond=x.cond.drop_text(torch.tensor([False, True])))
    none = replace(x, cond=x.cond.without_text())
    other = replace(x.cond, text=randn(2, 1, spec.text_width, seed=11), text_mask=torch.zeros(2, 1).bool())
    torch.testing.assert_close(call(net, one)[:1], call(net, none)[:1], **EXACT)
    torch.testing.assert_close(call(net, one)[1:], call(net, x)[1:], **EXACT)
    torch.testing.assert_close(call(net, replace(x, cond=other)), call(net, none), **EXACT)
    assert (call(net, x) - call(net, none)).abs().amax((1, 2, 3, 4)).min() > 1e-3


@reading
def test_a_caption_per_frame_may_be_the_same_for_all(spec: UNetSpec) -> None:
    net, x = network(spec), inputs(spec)
    assert x.cond.text is not None
    assert x.cond.text_mask is not None
    each = replace(
        x.cond,
        text=x.cond.text[:, None].expand(-1, 3, -1, -1),
        text_mask=x.cond.text_mask[:, None].expand(-1, 3, -1),
    )
    torch.testing.assert_close(call(net, replace(x, cond=each)), call(net, x), **EXACT)


@every
def test_a_sample_does_not_depend_on_its_batch(spec: UNetSpec) -> None:
    net, x = network(spec), inputs(spec)
    for index in (0, 1):
        alone = x.map(lambda value: value[index : index + 1])  # noqa: B023
        torch.testing.assert_close(call(net, alone), call(net, x)[index : index + 1], **EXACT)


@reading
def test_everything_told_is_heard(spec: UNetSpec) -> None:
    net, x = network(spec), inputs(spec)
    told = {"fps": torch.tensor([50.0, 60.0])}
    if spec.cond_channels:
        assert x.cond.video is not None
        told |= {"aug_logsnr": torch.tensor([-3.0, 4.0]), "video": x.cond.video + 1}
    for name, value in told.items():
        other = replace(x, cond=replace(x.cond, **{name: value.double()}))  # type: ignore[arg-type]
        assert (call(net, other) - call(net, x)).abs().amax((1, 2, 3, 4)).min() > 1e-4, name


def test_time_is_seen() -> None:
    net, x = network(BASE), inputs(BASE)
    turned = replace(x, z_t=x.z_t.flip(2))
    assert (call(net, turned).flip(2) - call(net, x)).abs().max() > 1e-3


@pytest.mark.parametrize("spec", [LOCAL, CAUSAL, replace(LOCAL, fold=1), replace(LOCAL, levels=(LOCAL.levels * 2)[:3]),
                                  ROOT_MEAN, MAGNITUDE],
                         ids=["local", "causal", "unfolded", "three levels", "root mean", "magnitude"])  # fmt: skip
def test_receptive_field_is_exact(spec: UNetSpec) -> None:
    net = network(replace(spec, levels=tuple(replace(level, channels=2) for level in spec.levels)))
    field = net.receptive_field()
    assert field is not None
    frames, pixels = field
    d = spec.divisor
    logsnr = torch.zeros(d, dtype=torch.float64)

    wide = 2 * (pixels // d + 2) * d
    columns = wide // 2 + torch.arange(d)  # every position within a patch, one a sample
    z_t = randn(d, spec.channels, 1, d, wide).requires_grad_()
    net(z_t, logsnr, Conditioning())[torch.arange(d), :, 0, 0, columns].sum().backward()
    assert z_t.grad is not None
    rows, seen = (z_t.grad.abs().sum((1, 2, 3)) > 0).nonzero().unbind(1)
    assert int((seen - columns[rows]).abs().max()) == pixels

    long = 2 * frames + 3
    z_t = randn(1, spec.channels, long, d, d).requires_grad_()
    net(z_t, logsnr[:1], Conditioning())[:, :, long // 2].sum().backward()
    assert z_t.grad is not None
    seen = (z_t.grad.abs().sum((0, 1, 3, 4)) > 0).nonzero()
    assert int((seen - long // 2).abs().max()) == frames


def test_receptive_field_is_everything_with_attention_and_with_groups() -> None:
    assert VideoUNet(BASE).receptive_field() is None
    assert VideoUNet(UPSAMPLER).receptive_field() is None
    assert VideoUNet(replace(LOCAL, norm=GroupNormSpec(groups=2))).receptive_field() is None
    assert VideoUNet(replace(GROUPED, norm=ChannelNormSpec())).receptive_field() is None


@every
def test_channels_lie_last_from_end_to_end(spec: UNetSpec) -> None:
    net, x = network(spec), inputs(spec)
    seen = []
    for unit in net.units():
        unit.register_forward_hook(
            lambda _, __, out: seen.append(out.is_contiguous(memory_format=torch.channels_last_3d))
        )
    assert call(net, x).is_contiguous(memory_format=torch.channels_last_3d)
    assert seen
    assert all(seen)


@pytest.mark.parametrize("scale", [2**-0.5, 1.0], ids=["scaled", "not scaled"])
def test_scaled_skips_keep_variances(scale: float) -> None:
    """Of two independent parts of variance 1 the sum has 2, and a half of it with s^2 = 1/2."""
    torch.manual_seed(0)
    block = ResidualBlock(16, 16, 4, skip_scale=scale)
    with torch.no_grad():
        block.film.weight.zero_()
        block.film.bias.zero_()
        torch.nn.init.normal_(block.conv2.conv.weight, std=(9 * 16 * 0.3558) ** -0.5)  # E silu(n)^2 = 0.3558
        out = block(torch.randn(4, 16, 2, 16, 16), torch.zeros(4, 4))
    assert abs(float(out.var()) / (2 * scale**2) - 1) < 0.1


def test_norms_and_skips_are_those_of_the_plan() -> None:
    x = inputs(LOCAL)
    outs = [
        call(network(replace(LOCAL, norm=norm, skip_scale=skip_scale)), x)
        for norm in (ChannelNormSpec(), GroupNormSpec(groups=2), MagnitudeNormSpec(), RMSNormSpec())
        for skip_scale in (1.0, 0.5)
    ]
    for index, one in enumerate(outs):
        assert all((one - other).abs().max() > 1e-6 for other in outs[:index])


@pytest.mark.parametrize("spec", [CAUSAL, ATTENDING_BACK], ids=["convolution", "attention"])
def test_causal_network_is_blind_to_the_future(spec: UNetSpec) -> None:
    net, x = network(spec), inputs(spec, frames=6)
    z_t = x.z_t.requires_grad_()
    net(z_t, x.logsnr, x.cond)[:, :, 3].sum().backward()
    assert z_t.grad is not None
    assert (z_t.grad.abs().sum((0, 1, 3, 4)) > 0).tolist() == [True] * 4 + [False] * 2


def test_what_does_not_fit_is_refused() -> None:
    net = VideoUNet(UPSAMPLER)
    x = inputs(UPSAMPLER, dtype=torch.float32)
    assert x.cond.video is not None
    assert x.cond.text is not None
    bad = {
        r"frames of 8x10 do not divide by 4.*8x12": replace(x, z_t=x.z_t[..., :10]),
        r"a video of 4 channels; got 0": replace(x, cond=replace(x.cond, video=None)),
        r"a video of 4 channels; got 3": replace(x, cond=replace(x.cond, video=x.cond.video[:, :3])),
        r"not on the grid of z_t": replace(x, cond=replace(x.cond, video=x.cond.video[:, :, :2])),
        r"give aug_logsnr": replace(x, cond=replace(x.cond, aug_logsnr=None)),
        r"give text states": replace(x, cond=replace(x.cond, text=None, text_mask=None)),
        r"width 9; this network was built for 10": replace(
            x, cond=replace(x.cond, text=x.cond.text[..., :9])
        ),
        r"this layer takes 3 channels; got 2": replace(x, z_t=x.z_t[:, :2]),
    }
    for message, wrong in bad.items():
        with pytest.raises(ValueError, match=message):
            call(net, wrong)


def test_state_keys_are_frozen() -> None:
    """Files written today must load tomorrow: a change here is a new file format."""
    spec = UNetSpec(
        levels=(replace(UPSAMPLER.levels[1]), replace(BASE.levels[1], attention=None)), cond_channels=3
    )
    residual = ["conv1.conv.bias", "conv1.conv.weight", "conv2.conv.bias", "conv2.conv.weight", "film.bias",
                "film.weight", "norm.gain"]  # fmt: skip
    temporal = ["temporal.conv.bias", "temporal.conv.weight"]
    text = ["kv.weight", "norm.gain", "out.bias", "out.weight", "q.weight"]
    attention = ["norm.gain", "out.bias", "out.weight", "qkv.weight"]
    mlp = ["mlp.0.bias", "mlp.0.weight", "mlp.2.bias", "mlp.2.weight"]
    expected = [f"context.{part}.{name}" for part in ("aug", "fps", "logsnr") for name in mlp]
    expected += ["context.null", "context.pooled.bias", "context.pooled.weight", "context.text.bias",
                 "context.text.weight", "context.text_norm.bias", "context.text_norm.weight", "film.bias",
                 "film.weight", "head.conv.bias", "head.conv.weight", "stem.conv.bias", "stem.conv.weight"]  # fmt: skip
    for way in ("down", "up"):
        expected += [f"levels.0.{way}.0.block.{name}" for name in residual + temporal]
        expected += [f"levels.0.{way}.0.space.{name}" for name in attention]
        expected += [f"levels.{level}.{way}.0.text.{name}" for level in (0, 1) for name in text]
        expected += [f"levels.1.{way}.0.block.{name}" for name in residual]
        expected += [f"levels.1.{way}.0.time.{name}" for name in [*attention, "bias.table"]]
    expected += [
        f"levels.0.{part}.{name}"
        for part in ("grow.map", "merge", "shrink.map")
        for name in ("bias", "weight")
    ]
    assert sorted(VideoUNet(spec).state_dict()) == sorted(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UNetSpec(levels=()), "levels is empty"),
        (lambda: replace(BASE, text_width=0), "text_width is 0"),
        (lambda: replace(BASE, fold=0), "fold must be at least 1; got 0"),
        (lambda: replace(BASE, cond_channels=-1), "cond_channels"),
        (lambda: replace(BASE, text_width=-1), "text_width"),
        (lambda: replace(BASE, skip_scale=0.0), "skip_scale must be positive and finite; got 0.0"),
        (lambda: replace(BASE, norm=GroupNormSpec(groups=8)), "8 groups do not divide a level's 12 channels"),
        (lambda: TemporalAttentionSpec(window=-1), "window must be at least 0"),
        (lambda: replace(BASE.levels[1], text=JoinedTextSpec(heads=2)), "attends within frames already"),
        (lambda: GroupNormSpec(groups=0), "groups must be at least 1"),
        (lambda: LevelSpec(channels=0), "channels must be at least 1"),
        (lambda: replace(BASE.levels[0], channels=9), "2 heads do not divide a level's 9 channels"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_built_is_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
