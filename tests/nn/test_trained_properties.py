"""What each block is for, learned: a task that needs it is solved with it, and not with it removed.

Left out are `SpatialUpsample` and `BlurUpsample`, which enlarge what a linear map has made and learn nothing by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdm_blocks.nn import (
    AttentionPool,
    BlurDownsample,
    ChannelNorm,
    FactorizedConv,
    FourierLogSNREmbedding,
    FrameGroupNorm,
    FramePositions,
    JoinedTextAttention,
    JointAttention,
    LogSNREmbedding,
    MagnitudeNorm,
    MeanPool,
    Pointwise,
    ResidualBlock,
    RMSNorm,
    Rotary,
    ScalarEmbedding,
    SpatialAttention,
    SpatialConv,
    SpatialDownsample,
    TemporalAttention,
    TemporalDownsample,
    TemporalUpsample,
    TextAttention,
    from_last,
    to_last,
)

KINDS, CHANNELS, B, T, SIDE, LENGTH = 4, 12, 8, 4, 3, 3
Draw = torch.Generator


def one_hot(kind: Tensor) -> Tensor:
    """(B, T, H, W) -> (B, KINDS + 1, T, H, W); the last channel says that there is nothing to see."""
    return from_last(F.one_hot(kind, KINDS + 1).float())


def kinds(draw: Draw, *shape: int) -> Tensor:
    return torch.randint(KINDS, shape, generator=draw)


def everywhere(kind: Tensor) -> Tensor:
    """(B,) or (B, T) -> (B, T, H, W)."""
    kind = kind[:, None].expand(-1, T) if kind.ndim == 1 else kind
    return kind[:, :, None, None].expand(-1, -1, SIDE, SIDE)


@dataclass(frozen=True)
class Example:
    """A batch: what is seen, what else the block is told, and the kind to name at each place (-100: none)."""

    x: Tensor
    told: tuple[Tensor, ...]
    answer: Tensor


def frame_before(draw: Draw) -> Example:
    """What was here one frame ago?"""
    seen = kinds(draw, B, T, SIDE, SIDE)
    answer = seen.roll(1, 1)
    answer[:, 0] = -100
    return Example(one_hot(seen), (), answer)


def to_the_left(draw: Draw) -> Example:
    """What is one place to the left?"""
    seen = kinds(draw, B, T, SIDE, SIDE)
    answer = seen.roll(1, 3)
    answer[..., 0] = -100
    return Example(one_hot(seen), (), answer)


def second_of_two(draw: Draw) -> Example:
    """What does the second frame of each pair show here?"""
    seen = kinds(draw, B, T, SIDE, SIDE)
    return Example(one_hot(seen), (), seen[:, 1::2])


def and_the_next(draw: Draw) -> Example:
    """In twice the frames: what is here, and then the kind that comes after it."""
    seen = kinds(draw, B, T, SIDE, SIDE)
    return Example(one_hot(seen), (), torch.stack([seen, (seen + 1) % KINDS], dim=2).flatten(1, 2))


def share_of_the_length(draw: Draw) -> Example:
    """Is the first channel's share of a place's length low, middling or high, however bright the frame is?"""
    x = F.normalize(torch.randn(B, T, SIDE, SIDE, KINDS + 1, generator=draw), dim=-1)
    share, third = x[..., 0], 0.2245  # in five dimensions a third of all directions lies within it
    answer = (share > third).long() + (share > -third).long()
    answer[(share.abs() - third).abs() < 0.08] = -100
    return Example(from_last(x * (5 * torch.rand(B, T, 1, 1, 1, generator=draw)).exp()), (), answer)


def hidden(draw: Draw, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A kind for each row of (rows, places), and a picture of nothing but that kind at one random place."""
    kind = kinds(draw, shape[0])
    place = torch.randint(shape[1], (shape[0], 1), generator=draw)
    return kind, torch.full(shape, KINDS).scatter_(1, place, kind[:, None])


def somewhere_in_the_frame(draw: Draw) -> Example:
    """What is hidden at one place of this frame?"""
    kind, seen = hidden(draw, (B * T, SIDE * SIDE))
    return Example(one_hot(seen.view(B, T, SIDE, SIDE)), (), everywhere(kind.view(B, T)))


def somewhere_in_each_quarter(draw: Draw) -> Example:
    """What is hidden at one place of each 2 x 2 patch?"""
    kind, seen = hidden(draw, (B * T * 2 * 2, 4))
    frames = seen.view(B, T, 2, 2, 2, 2).transpose(3, 4).reshape(B, T, 4, 4)
    return Example(one_hot(frames), (), kind.view(B, T, 2, 2))


def somewhere_in_the_clip(draw: Draw) -> Example:
    """What is hidden at one place of one frame?"""
    kind, seen = hidden(draw, (B, T * SIDE * SIDE))
    return Example(one_hot(seen.view(B, T, SIDE, SIDE)), (), everywhere(kind))


def somewhere_in_the_caption(draw: Draw) -> Example:
    """What does the one word of the caption say that is not empty?"""
    kind, words = hidden(draw, (B, LENGTH))
    states, mask = F.one_hot(words, KINDS + 1).float(), torch.ones(B, LENGTH, dtype=torch.bool)
    return Example(nothing(), (states, mask), everywhere(kind))


def counted_on(draw: Draw) -> Example:
    """Which kind comes so many after the one seen here, as the embedding says?"""
    seen, step = kinds(draw, B, T, SIDE, SIDE), kinds(draw, B)
    return Example(one_hot(seen), (F.one_hot(step, KINDS).float(),), (seen + step.view(-1, 1, 1, 1)) % KINDS)


def the_word_marked(draw: Draw) -> Example:
    """Which kind does the one marked word of the caption name, among others that are not marked?"""
    words, marked = kinds(draw, B, LENGTH), torch.randint(LENGTH, (B,), generator=draw)
    states = F.one_hot(words + 2, KINDS + 4).float()  # two features stay empty
    states[torch.arange(B), marked, 0] = 1
    told = (states, torch.ones(B, LENGTH, dtype=torch.bool))
    return Example(nothing(), told, everywhere(words[torch.arange(B), marked]))


def number_of_the_frame(draw: Draw) -> Example:  # noqa: ARG001
    """Which frame of the clip is this?"""
    return Example(nothing(), (), everywhere(torch.arange(T).expand(B, -1) % KINDS))


def band_of_the_level(draw: Draw) -> Example:
    """In which of sixteen bands of log-SNR, named by the four kinds in turn, does the clip's lie?"""
    band = torch.randint(16, (B,), generator=draw)
    level = band - 7.5 + 0.6 * (torch.rand(B, generator=draw) - 0.5)
    return Example(nothing(), (level,), everywhere(band % KINDS))


def nothing() -> Tensor:
    return one_hot(torch.full((B, T, SIDE, SIDE), KINDS))


class Added(nn.Module):
    """What a layer makes of all that is told, added at every place."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, *told: Tensor) -> Tensor:
        out: Tensor = x + self.layer(*told)[:, :, None, None, None]
        return out


class Numbered(nn.Module):
    """The number of each frame, added at all of its places."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = FramePositions(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return x + from_last(self.layer(T)[:, :, None, None])


class Thinned(nn.Module):
    """Every second one along these axes, and nothing of the others."""

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        for axis in self.axes:
            x = x[(slice(None),) * axis + (slice(None, None, 2),)]
        return x


class Doubled(nn.Module):
    """Every frame twice."""

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2)


class Line(nn.Linear):
    """A number through a linear map alone."""

    def __init__(self) -> None:
        super().__init__(1, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, None])


class Around(nn.Module):
    """A linear map, the block, and a linear map; nothing else in it mixes places, frames or conditions."""

    def __init__(self, block: nn.Module, told: bool) -> None:
        super().__init__()
        self.stem, self.block, self.head = Pointwise(KINDS + 1, CHANNELS), block, Pointwise(CHANNELS, KINDS)
        self.told = told

    def forward(self, example: Example) -> Tensor:
        """(B, KINDS, T, H, W): how likely each kind is."""
        h = from_last(self.stem(to_last(example.x)))
        h = self.block(h, *example.told) if self.told else self.block(h)
        return from_last(self.head(to_last(h)))


class Deaf(nn.Module):
    """The residual block with nothing to be modulated by."""

    def __init__(self) -> None:
        super().__init__()
        self.block = ResidualBlock(CHANNELS, CHANNELS, KINDS)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x, torch.zeros(x.shape[0], KINDS))
        return out


def accuracy(net: nn.Module, example: Example) -> float:
    with torch.no_grad():
        right = (net(example).argmax(1) == example.answer)[example.answer >= 0]
    return float(right.float().mean())


def learn(net: nn.Module, task: Callable[[Draw], Example], steps: int) -> float:
    """The share of right answers on fresh batches after `steps` steps."""
    draw = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    for _ in range(steps):
        example = task(draw)
        optimizer.zero_grad()
        F.cross_entropy(net(example), example.answer, ignore_index=-100).backward()
        optimizer.step()
    return sum(accuracy(net, task(draw)) for _ in range(16)) / 16


@dataclass(frozen=True, kw_only=True)
class Need:
    """A block, a task that cannot be done without it, and what is left when it is removed."""

    make: Callable[[], nn.Module]
    task: Callable[[Draw], Example]
    without: Callable[[], nn.Module] = nn.Identity
    told: bool = False
    still_told: bool = False  # without the block
    chance: float = 1 / KINDS
    steps: int = 150


EMBEDDINGS: dict[str, Callable[[], nn.Module]] = {
    "inverse cosine": lambda: Added(LogSNREmbedding(CHANNELS)),
    "sinusoids": lambda: Added(ScalarEmbedding(CHANNELS, scale=10.0)),
    "Fourier waves": lambda: Added(FourierLogSNREmbedding(CHANNELS)),
}

NORMS: dict[str, Callable[[], nn.Module]] = {
    "channels": lambda: ChannelNorm(CHANNELS),
    "root mean square": lambda: RMSNorm(CHANNELS),
    "magnitude": MagnitudeNorm,
    "groups of a frame": lambda: FrameGroupNorm(1, CHANNELS),
}

NEEDS = {
    "spatial taps": Need(make=lambda: SpatialConv(CHANNELS, CHANNELS), task=to_the_left,
                         without=lambda: SpatialConv(CHANNELS, CHANNELS, 1)),
    "fewer pixels": Need(make=lambda: SpatialDownsample(CHANNELS, CHANNELS), task=somewhere_in_each_quarter,
                         without=lambda: Thinned(3, 4), chance=7 / 16),  # one place in four is kept
    "fewer pixels, blurred": Need(make=BlurDownsample, task=somewhere_in_each_quarter,
                                  without=lambda: Thinned(3, 4), chance=7 / 16),
    "fewer frames": Need(make=lambda: TemporalDownsample(CHANNELS), task=second_of_two, without=lambda: Thinned(2)),
    "more frames": Need(make=lambda: TemporalUpsample(CHANNELS), task=and_the_next, without=Doubled, chance=1 / 2),
    **{f"norm, {name}": Need(make=layer, task=share_of_the_length, steps=300,
                             chance=2 / 3)  # the sign, and never the middle
       for name, layer in NORMS.items()},
    "mean pool": Need(make=lambda: Added(MeanPool(KINDS + 1, CHANNELS)), task=somewhere_in_the_caption, told=True),
    "temporal tap": Need(make=lambda: FactorizedConv(CHANNELS, CHANNELS, 1), task=frame_before,
                         without=lambda: SpatialConv(CHANNELS, CHANNELS, 1)),
    "causal temporal tap": Need(make=lambda: FactorizedConv(CHANNELS, CHANNELS, 1, causal=True), task=frame_before,
                                without=lambda: SpatialConv(CHANNELS, CHANNELS, 1)),
    "temporal attention": Need(make=lambda: TemporalAttention(CHANNELS, 2), task=frame_before),
    "spatial attention": Need(make=lambda: SpatialAttention(CHANNELS, 2), task=somewhere_in_the_frame,
                              chance=1 / KINDS + 0.12),  # one place in nine sees the answer itself
    "joint attention": Need(make=lambda: JointAttention(CHANNELS, 2), task=somewhere_in_the_clip,
                            without=lambda: SpatialAttention(CHANNELS, 2), chance=1 / KINDS + 0.25),  # its own frame
    "text attention": Need(make=lambda: TextAttention(CHANNELS, KINDS + 1, 2), task=somewhere_in_the_caption,
                           told=True),
    "text among keys and values": Need(make=lambda: JoinedTextAttention(CHANNELS, KINDS + 1, 2),
                                       task=somewhere_in_the_caption, told=True,
                                       without=lambda: SpatialAttention(CHANNELS, 2)),
    "temporal attention, rotated": Need(make=lambda: TemporalAttention(CHANNELS, 2, rotary=Rotary(widths=(6,))),
                                        task=frame_before),
    "attention pool": Need(make=lambda: Added(AttentionPool(KINDS + 4, CHANNELS, 2)), task=the_word_marked, told=True,
                           without=lambda: Added(MeanPool(KINDS + 4, CHANNELS)), still_told=True, steps=300,
                           chance=0.5625),  # the kind that comes most often
    "numbers of frames": Need(make=Numbered, task=number_of_the_frame),
    **{f"log-SNR, {name}": Need(make=layer, task=band_of_the_level, told=True,
                                without=lambda: Added(Line()), still_told=True, steps=300,
                                chance=7 / 16)  # four lines name four stretches, of seven bands at best rightly
       for name, layer in EMBEDDINGS.items()},
    "scale and shift": Need(make=lambda: ResidualBlock(CHANNELS, CHANNELS, KINDS), task=counted_on, told=True,
                            without=Deaf, steps=250),
}  # fmt: skip


@pytest.mark.parametrize("need", NEEDS.values(), ids=NEEDS)
def test_is_solved_with_the_block_and_not_without(need: Need) -> None:
    torch.manual_seed(0)
    assert learn(Around(need.make(), need.told), need.task, need.steps) > 0.95
    assert learn(Around(need.without(), need.still_told), need.task, need.steps) < need.chance + 0.12


def test_trained_temporal_attention_sees_the_order_of_frames() -> None:
    torch.manual_seed(0)
    net = Around(TemporalAttention(CHANNELS, 2), False)
    assert learn(net, frame_before, 150) > 0.95
    example = frame_before(torch.Generator().manual_seed(1))
    order = torch.tensor([2, 0, 3, 1])
    shuffled = Example(example.x[:, :, order], (), example.answer)
    with torch.no_grad():
        change = (net(shuffled) - net(example)[:, :, order]).abs().mean()
        scale = net(example).abs().mean()
    assert change > 0.3 * scale
