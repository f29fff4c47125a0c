"""The video U-Net of the cascade: base, temporal and spatial super-resolution alike.

Axes: B batch, C channels, T frames, H height, W width, L text tokens, D text width, E embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vdm_blocks.models.context import Context, ContextEncoder, with_condition
from vdm_blocks.models.spec import (
    GroupNormSpec,
    JoinedTextSpec,
    LevelSpec,
    MagnitudeNormSpec,
    RMSNormSpec,
    TemporalAttentionSpec,
    TemporalConvSpec,
    UNetSpec,
)
from vdm_blocks.nn.attention import SpatialAttention, TemporalAttention, TextAttention
from vdm_blocks.nn.axes import channels_last, check_video, from_last, to_last
from vdm_blocks.nn.blocks import ResidualBlock, modulated_norm
from vdm_blocks.nn.conv import SpatialConv, TemporalConv, zero_
from vdm_blocks.nn.group_norm import FrameGroupNorm
from vdm_blocks.nn.joined_text import JoinedTextAttention
from vdm_blocks.nn.magnitude import MagnitudeNorm
from vdm_blocks.nn.norm import RMSNorm
from vdm_blocks.nn.pointwise import Pointwise
from vdm_blocks.nn.resample import SpatialDownsample, SpatialUpsample, fold_space, unfold_space
from vdm_blocks.types import Conditioning

__all__ = ["VideoUNet"]


def norm_of(spec: UNetSpec) -> Callable[[int], nn.Module] | None:
    """The norm that `spec` asks for, as residual blocks take it."""
    norm = spec.norm
    if isinstance(norm, GroupNormSpec):
        return lambda channels: FrameGroupNorm(norm.groups, channels)
    if isinstance(norm, RMSNormSpec):
        return RMSNorm
    return (lambda _: MagnitudeNorm()) if isinstance(norm, MagnitudeNormSpec) else None


class Unit(nn.Module):
    """A residual block, then what its level asks for: attention in space, to text, and over time."""

    def __init__(self, channels: int, spec: LevelSpec, unet: UNetSpec) -> None:
        super().__init__()
        c, temporal = spec.channels, spec.temporal
        conv = (
            TemporalConv(c, temporal.kernel, causal=temporal.causal)
            if isinstance(temporal, TemporalConvSpec)
            else None
        )
        self.block = ResidualBlock(
            channels, c, unet.embedding, temporal=conv, norm=norm_of(unet), skip_scale=unet.skip_scale
        )
        self.space = SpatialAttention(c, spec.attention.heads) if spec.attention is not None else None
        self.text: TextAttention | JoinedTextAttention | None = None
        if spec.text is not None:
            kind = JoinedTextAttention if isinstance(spec.text, JoinedTextSpec) else TextAttention
            self.text = kind(c, unet.text_inner, spec.text.heads)
        self.time = (
            TemporalAttention(
                c,
                temporal.heads,
                reach=temporal.reach,
                causal=temporal.causal,
                window=temporal.window,
            )
            if isinstance(temporal, TemporalAttentionSpec)
            else None
        )

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """`x` (B, C, T, H, W) -> (B, C', T, H, W)."""
        x = self.block(x, context.emb, context.images)
        if self.space is not None:
            x = self.space(x)
        if self.text is not None:
            assert context.text is not None
            assert context.text_mask is not None
            x = self.text(x, context.text, context.text_mask)
        if self.time is not None:
            x = self.time(x, context.images)
        return x


class Level(nn.Module):
    """The way down and the way up of one resolution; everything coarser happens in between."""

    def __init__(self, spec: LevelSpec, coarser: LevelSpec | None, unet: UNetSpec) -> None:
        super().__init__()
        c = spec.channels
        self.down = nn.ModuleList(Unit(c, spec, unet) for _ in range(spec.blocks))
        self.shrink = SpatialDownsample(c, coarser.channels) if coarser is not None else None
        self.grow = SpatialUpsample(coarser.channels, c) if coarser is not None else None
        self.merge = Pointwise(2 * c, c) if coarser is not None else None
        self.up = nn.ModuleList(Unit(c, spec, unet) for _ in range(spec.blocks))


class VideoUNet(nn.Module):
    """A U-Net on video whose every level says how it mixes space, text and time.

    The noisy video, with the conditioning video concatenated, is folded into patches, passes the levels down and
    up again with one skip connection a level, and unfolds to the prediction. The last convolution starts at zero,
    and with it the prediction. Space-time factorized throughout (arXiv 2210.02303, section 2.4); but for that over
    groups, no norm looks beyond its own position, so with convolution as the only mixing the network is local, and
    `receptive_field` says how local.

    Args:
        spec: the plan.

    Shape: z_t (B, channels, T, H, W), logsnr (B,) or (B, T) -> (B, channels, T, H, W).

    >>> spec = UNetSpec(levels=(LevelSpec(channels=8, temporal=TemporalConvSpec()),), fold=2, text_width=0)
    >>> net = VideoUNet(spec)
    >>> net(torch.zeros(1, 3, 4, 8, 12), torch.zeros(1), Conditioning()).shape
    torch.Size([1, 3, 4, 8, 12])
    """

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.spec = spec
        first = spec.levels[0].channels
        patch = spec.fold**2
        self.context = ContextEncoder(spec, positions=spec.frame_positions)
        self.stem = SpatialConv(patch * (spec.channels + spec.cond_channels), first)
        coarser: list[LevelSpec | None] = [*spec.levels[1:], None]
        self.levels = nn.ModuleList(
            Level(own, next_, spec) for own, next_ in zip(spec.levels, coarser, strict=True)
        )
        self.film = nn.Linear(spec.embedding, 2 * first)
        norm = norm_of(spec)
        self.norm = None if norm is None else norm(first)
        self.head = zero_(SpatialConv(first, patch * spec.channels))
        self._checkpointed: frozenset[int] = frozenset()

    def checkpoint_levels(self, *levels: int) -> None:
        """Recomputes the activations of these levels (0 is the finest) in the backward pass; none turns it off.

        Raises:
            ValueError: a level that the network does not have.
        """
        beyond = [level for level in levels if not 0 <= level < len(self.levels)]
        if beyond:
            raise ValueError(f"no level {beyond}; this network has levels 0 to {len(self.levels) - 1}")
        self._checkpointed = frozenset(levels)

    def units(self) -> Iterator[nn.Module]:
        """The parts that hold nearly all weights and run one after another, in their order.

        They are what to hand to `fully_shard` before the network itself, or to `torch.compile` one by one:

            for unit in network.units():
                fully_shard(unit)
            fully_shard(network)

        `DistributedDataParallel` takes the network whole; give it `find_unused_parameters=True` if there are batches
        of clips of one frame, which leave what mixes frames without a gradient.
        """
        levels = list(self._levels())
        yield from (unit for level in levels for unit in level.down)
        yield from (unit for level in reversed(levels) for unit in level.up)

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """Predicts from the noisy video `z_t` at log-SNR `logsnr` under `cond`.

        Raises:
            ValueError: a grid that does not divide, or a conditioning video that is missing, unasked for, or of
                another grid.
        """
        self._check(z_t)
        x = with_condition(z_t, cond, self.spec)
        context = self.context(logsnr, cond, z_t.dtype, z_t.shape[2])
        x = self.stem(channels_last(fold_space(x, self.spec.fold)))
        levels = list(enumerate(self._levels()))
        skips: list[Tensor] = []
        for index, level in levels:
            x = self._run(level.down, index, x, context)
            if level.shrink is not None:
                skips.append(x if self.spec.skip_scale == 1 else x * self.spec.skip_scale)
                x = level.shrink(x)
        for index, level in reversed(levels):
            if level.grow is not None:
                assert level.merge is not None
                x = from_last(level.merge(torch.cat([to_last(level.grow(x)), to_last(skips.pop())], dim=-1)))
            x = self._run(level.up, index, x, context)
        assert not skips
        x = self.head(F.silu(modulated_norm(x, self.film(context.emb), self.norm)))
        return unfold_space(x, self.spec.fold)

    def receptive_field(self) -> tuple[int, int] | None:
        """(frames, pixels): how far away an input may lie that an output value depends on; None for everywhere.

        The farthest over all positions and to the farther side: a value near the edge of its patch sees farther to
        the other side of it. Attention within frames sees everywhere, and norms over groups do; for time see
        `receptive_frames`.
        """
        frames = self.receptive_frames()
        if frames is None or isinstance(self.spec.norm, GroupNormSpec):
            return None
        pixels, side = 2, 1  # the stem and the head are one position each
        for level in self.spec.levels:
            if level.attention is not None or isinstance(level.text, JoinedTextSpec):
                return None
            pixels += 2 * level.blocks * 2 * side
            if side > 1:
                pixels += side // 2  # the rest of the coarse cell that a position falls into
            side *= 2
        return frames, pixels * self.spec.fold + self.spec.fold - 1

    def receptive_frames(self) -> int | None:
        """How many frames away an input may lie that an output value depends on, in space at all; None for any.

        Attention across frames sees all of them unless it has a window, and a frame that is told its number depends
        on where the clip begins.
        """
        if self.spec.frame_positions:
            return None
        frames = 0
        for level in self.spec.levels:
            reach: int | None = 0
            if isinstance(level.temporal, TemporalAttentionSpec):
                reach = level.temporal.window
            elif isinstance(level.temporal, TemporalConvSpec):
                reach = level.temporal.kernel - 1 if level.temporal.causal else level.temporal.kernel // 2
            if reach is None:
                return None
            frames += 2 * level.blocks * reach
        return frames

    def _levels(self) -> Iterator[Level]:
        for level in self.levels:
            assert isinstance(level, Level)
            yield level

    def _run(self, units: nn.ModuleList, index: int, x: Tensor, context: Context) -> Tensor:
        for unit in units:
            if index in self._checkpointed and torch.is_grad_enabled():
                x = checkpoint(unit, x, context, use_reentrant=False)
            else:
                x = unit(x, context)
        return x

    def _check(self, z_t: Tensor) -> None:
        check_video(z_t, self.spec.channels)
        height, width = z_t.shape[-2:]
        d = self.spec.divisor
        if height % d or width % d:
            raise ValueError(
                f"frames of {height}x{width} do not divide by {d} (fold {self.spec.fold}, "
                f"{len(self.spec.levels)} levels); the nearest that do are "
                f"{math.ceil(height / d) * d}x{math.ceil(width / d) * d}"
            )
