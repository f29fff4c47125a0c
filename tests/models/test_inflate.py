from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from contract import BASE, LOCAL, awaken, inputs, one_frame, randn
from torch import Tensor, nn

from vdm_blocks.models import (
    Inflated,
    TemporalAttentionSpec,
    TemporalConvSpec,
    UNetSpec,
    VideoUNet,
    inflate,
    inflate_unet,
)
from vdm_blocks.nn import TemporalAttention, TemporalConv


class Block(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, padding=1)
        self.norm = nn.GroupNorm(2, out)

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        h: Tensor = self.norm(self.conv(x))
        return h.relu() + shift[:, None, None, None]


class Pair(nn.Module):
    """Answers with a tuple, as diffusers' blocks do, after a layer on tokens."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tokens = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        tokens = self.tokens(x.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:]), "more"


class ImageNet(nn.Module):
    """Somebody's network on images: (B, 3, H, W), a number each."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Block(3, 4)
        self.pair = Pair(4)
        self.last = nn.ModuleList([Block(4, 6), nn.Conv2d(6, 3, 1)])

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        x = self.last[0](self.pair(self.first(x, shift))[0], shift)
        out: Tensor = self.last[1](x)
        return out


VIDEO, SHIFT = randn(2, 3, 5, 6, 4, dtype=torch.float32), torch.tensor([0.5, -1.0])
EXAMPLE = (torch.zeros(1, 3, 6, 4), torch.zeros(1))


def by_frame(net: nn.Module) -> Tensor:
    frames = VIDEO.transpose(1, 2).flatten(0, 1)
    out: Tensor = net(frames, SHIFT.repeat_interleave(5))
    video: torch.Tensor = out.unflatten(0, (2, 5)).transpose(1, 2)
    return video


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("after", "paths"),
    [
        ([Block], ["first", "last.0"]),
        (["pair", "first"], ["first", "pair"]),
        (["pair.tokens", nn.Conv2d], ["first.conv", "pair.tokens", "last.0.conv", "last.1"]),
    ],
    ids=["by type", "by path", "both"],
)
def test_starts_as_the_image_network_to_the_bit(
    after: list[str | type[nn.Module]], paths: list[str], layout: torch.memory_format
) -> None:
    net = ImageNet().to(memory_format=layout)  # type: ignore[call-overload]
    want = by_frame(net)
    video, report = inflate(net, after=after, layer=TemporalConv, example=EXAMPLE)
    assert torch.equal(video(VIDEO, SHIFT), want)
    assert [path for path, _, _ in report.put] == paths
    assert len(video.temporal) == len(paths)


def test_the_report_says_what_was_put_where_and_what_was_left() -> None:
    _, report = inflate(ImageNet(), after=[Block], layer=TemporalConv, example=EXAMPLE)
    assert report.put == (("first", "Block", 4), ("last.0", "Block", 6))
    assert report.left == ("pair.tokens", "last.1")
    assert str(report).splitlines() == [
        "after first (Block): a layer over time of 4 channels",
        "after last.0 (Block): a layer over time of 6 channels",
        "left alone: pair.tokens, last.1",
    ]


def test_new_layers_are_trained_and_then_mix_frames_but_not_pictures() -> None:
    net = ImageNet()
    video, _ = inflate(net, after=[Block, "pair"], layer=lambda c: TemporalAttention(c, 2), example=EXAMPLE)
    awaken(video.temporal)
    out, want = video(VIDEO, SHIFT), by_frame(net)
    assert (out - want).abs().max() > 1e-3
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in video.temporal.parameters())
    images = torch.tensor([True, False])
    masked = video(VIDEO, SHIFT, images=images)
    alone = torch.cat([video(VIDEO[:, :, t : t + 1], SHIFT) for t in range(5)], dim=2)
    torch.testing.assert_close(masked[:1], alone[:1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(masked[1:], out[1:])


def test_the_image_network_stays_one() -> None:
    net = ImageNet()
    image = VIDEO[:, :, 0]
    want = net(image, SHIFT)
    keys = list(net.state_dict())
    video, _ = inflate(net, after=[Block], layer=TemporalConv, example=EXAMPLE)
    awaken(video.temporal)
    assert torch.equal(net(image, SHIFT), want)
    assert list(net.state_dict()) == keys


def test_copies_and_saved_weights_work() -> None:
    video, _ = inflate(ImageNet(), after=[Block], layer=TemporalConv, example=EXAMPLE)
    twin = copy.deepcopy(video)
    awaken(twin.temporal)
    assert (twin(VIDEO, SHIFT) - video(VIDEO, SHIFT)).abs().max() > 1e-3
    video.load_state_dict(twin.state_dict())
    assert torch.equal(twin(VIDEO, SHIFT), video(VIDEO, SHIFT))


def test_what_cannot_be_inflated_is_refused() -> None:
    for after, message in (
        (["third"], "no module 'third'; it has first"),
        ([nn.LSTM], "no LSTM"),
        ([], "names no block"),
        (["last"], "last did not run"),
    ):
        with pytest.raises(ValueError, match=message):
            inflate(ImageNet(), after=after, layer=TemporalConv, example=EXAMPLE)
    flat = Inflated(nn.Sequential(nn.Flatten()), [], [])
    with pytest.raises(ValueError, match="must be a tensor of images"):
        flat(VIDEO)


@pytest.mark.parametrize("temporal", [TemporalConvSpec(kernel=5), TemporalAttentionSpec(heads=2)])
@pytest.mark.parametrize("spec", [BASE, LOCAL], ids=["with text", "local"])
def test_a_unet_on_images_becomes_one_on_video(
    spec: UNetSpec, temporal: TemporalConvSpec | TemporalAttentionSpec
) -> None:
    spec = replace(spec, levels=tuple(replace(level, temporal=None) for level in spec.levels))
    image = awaken(VideoUNet(spec))
    assert isinstance(image, VideoUNet)
    video, report = inflate_unet(image, temporal)
    x = inputs(spec, dtype=torch.float32)
    assert torch.equal(video(x.z_t, x.logsnr, x.cond), image(x.z_t, x.logsnr, x.cond))
    alone = [one_frame(x, t, frames=3) for t in range(3)]
    frames = torch.cat([image(y.z_t, y.logsnr, y.cond) for y in alone], dim=2)
    torch.testing.assert_close(video(x.z_t, x.logsnr, x.cond), frames, rtol=1e-4, atol=1e-5)
    assert [path for path, _, _ in report.put] == ["levels.0", "levels.1"]
    awaken(video)
    assert (video(x.z_t, x.logsnr, x.cond) - frames).abs().max() > 1e-3
    with pytest.raises(ValueError, match="already"):
        inflate_unet(video, temporal)


def test_diffusers_image_network() -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, attention_head_dim=8,
    )  # fmt: skip
    kinds = {type(module).__name__: type(module) for module in net.modules()}
    video = randn(2, 3, 4, 8, 8, dtype=torch.float32)
    time = torch.tensor([3, 700])
    folded = net(video.transpose(1, 2).flatten(0, 1), time.repeat_interleave(4), None, False)[0]
    want = folded.unflatten(0, (2, 4)).transpose(1, 2)
    inflated, report = inflate(
        net, after=[kinds["ResnetBlock2D"]], layer=TemporalConv,
        example=(torch.zeros(1, 3, 8, 8), torch.zeros(1), None, False),
    )  # fmt: skip
    assert torch.equal(inflated(video, time, None, False), want)
    assert len(report.put) == sum(isinstance(module, kinds["ResnetBlock2D"]) for module in net.modules())
    assert "conv_in" in report.left
    awaken(inflated.temporal)
    assert (inflated(video, time, None, False) - want).abs().max() > 1e-3


def text_unet() -> tuple[nn.Module, dict[str, type[nn.Module]]]:
    """diffusers' text-to-image U-Net, tiny and at random, and the types it is made of."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    net: nn.Module = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4, attention_head_dim=4, cross_attention_dim=10,
    ).eval()  # fmt: skip
    return net, {type(module).__name__: type(module) for module in net.modules()}


TEXT, STEPS = randn(2, 5, 10, seed=3, dtype=torch.float32), torch.tensor([3, 700])
CLIP = randn(2, 3, 4, 8, 8, seed=2, dtype=torch.float32)
CALL = (torch.zeros(1, 3, 8, 8), torch.zeros(1), torch.zeros(1, 5, 10))


def alone(net: nn.Module) -> Tensor:
    """Every frame through the image network, under its own clip's caption and timestep."""
    out: Tensor = net(
        CLIP.transpose(1, 2).flatten(0, 1), STEPS.repeat_interleave(4), TEXT.repeat_interleave(4, 0)
    )[0]
    video: Tensor = out.unflatten(0, (2, 4)).transpose(1, 2)
    return video


@pytest.mark.parametrize(
    "after", ["ResnetBlock2D", "Transformer2DModel", "BasicTransformerBlock", "mid_block.resnets.1"]
)
def test_diffusers_text_to_image_network(after: str) -> None:
    net, kinds = text_unet()
    want = alone(net).detach()
    weights = {name: w.clone() for name, w in net.state_dict().items()}
    chosen: list[str | type[nn.Module]] = [kinds.get(after, after)]
    video, report = inflate(net, after=chosen, layer=lambda c: TemporalAttention(c, 2), example=CALL)
    assert torch.equal(video(CLIP, STEPS, TEXT), want)
    put = [path for path, _, _ in report.put]
    assert put == [path for path, m in net.named_modules() if type(m).__name__ == after or path == after]
    assert report.put[0][1] == type(net.get_submodule(put[0])).__name__
    assert all(left in dict(net.named_modules()) and left not in put for left in report.left)
    assert {"conv_in", "conv_out"} <= set(report.left)

    # The new layers alone learn, and the picture network stays what it was.
    optimizer = torch.optim.SGD(video.temporal.parameters(), lr=10.0)
    for _ in range(2):  # the first step wakes the last maps, the second all others
        video(CLIP, STEPS, TEXT).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for p in video.temporal.parameters())
    assert all(torch.equal(w, weights[name]) for name, w in net.state_dict().items())
    assert torch.equal(alone(net), want)
    assert (video(CLIP, STEPS, TEXT) - want).abs().max() > 1e-6


def test_each_clip_reads_its_own_caption_in_every_frame() -> None:
    net, kinds = text_unet()
    video, _ = inflate(net, after=[kinds["ResnetBlock2D"]], layer=TemporalConv, example=CALL)
    other = torch.cat([TEXT[:1], TEXT[:1]])
    change = (video(CLIP, STEPS, other) - video(CLIP, STEPS, TEXT)).abs().amax((1, 3, 4))
    assert not change[0].any()
    assert bool((change[1] > 1e-6).all())


def test_tensors_within_a_mapping_go_to_every_frame() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor, more: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"sample": x + more["shift"][:, None, None, None]}

    shift = torch.tensor([1.0, 2.0])
    assert torch.equal(Inflated(Net(), [], [])(CLIP, {"shift": shift}), CLIP + shift.view(2, 1, 1, 1, 1))


def test_the_example_leaves_running_statistics_and_modes_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    network[2].eval()
    before = copy.deepcopy(network.state_dict())
    inflate(network, after=[nn.Conv2d], layer=TemporalConv, example=[torch.randn(2, 3, 4, 4)])
    assert [module.training for module in network] == [True, True, False]
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
