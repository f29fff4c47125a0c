"""A local network run piece by piece, in memory that the size of the video does not move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from vdm_blocks.models.transformer import VideoTransformer
from vdm_blocks.nn.attention import SpatialAttention, TemporalAttention
from vdm_blocks.nn.embedding import FramePositions
from vdm_blocks.nn.joined_text import JoinedTextAttention
from vdm_blocks.nn.joint_attention import JointAttention
from vdm_blocks.types import Conditioning, Network

__all__ = ["TiledNetwork"]

_WHOLE_FRAMES = (nn.GroupNorm, SpatialAttention, JoinedTextAttention, JointAttention, VideoTransformer)
_WHOLE_CLIPS = (TemporalAttention, FramePositions, JointAttention, VideoTransformer)


class TiledNetwork(nn.Module):
    """`network` on overlapping tiles of the video, whose inner parts are joined.

    Each tile is read with a margin as wide as the network sees, and the margin is thrown away, so every value of the
    result is computed from all that it depends on: the result is the whole network's, to rounding. Beyond the video
    and the result, memory is that of one tile. It needs a network that is local along the axes that are cut and whose
    zero padding is its only knowledge of the border:

    - cut in time and space: `VideoUNet` with convolutions and norms per position, margin `receptive_field()`;
    - cut in time alone, tiles as large as a frame: attention within frames and norms over groups of a frame are exact
      too, margin `(receptive_frames(), 0)`.

    Group norms of a frame that is cut would need the statistics of the whole frame first, of each norm after those
    before it: as many passes over the video as there are norms. They are refused; `ChannelNormSpec` needs no statistics
    and costs no pass.

    Args:
        network: of any make.
        tile: (frames, height, width) of the inner part of a tile.
        margin: (frames, pixels) that one value depends on, to each side.
        divisor: tiles start and end at multiples of this many pixels: `VideoUNet.spec.divisor`.

    Raises:
        ValueError: a tile that the divisor does not divide, a negative margin, or, when called, a layer that sees
            beyond a tile.

    The margin is rounded up to the divisor. Work grows by (frames + 2 margin) / frames and so on per axis.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        tile: tuple[int, int, int],
        margin: tuple[int, int],
        divisor: int = 1,
    ) -> None:
        super().__init__()
        if min(*tile, divisor) < 1 or min(margin) < 0 or tile[1] % divisor or tile[2] % divisor:
            raise ValueError(
                f"a tile of {tile} (frames, height, width) must be positive, its margin {margin} 0 or more, and height "
                f"and width must divide by {divisor}, the network's own divisor"
            )
        self.network = network
        self.tile = tile
        self.margin = (margin[0], -(-margin[1] // divisor) * divisor)
        self._wide = _first(network, _WHOLE_FRAMES)
        self._long = _first(network, _WHOLE_CLIPS)

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """As the network's own."""
        self._check(z_t.shape)
        out = torch.empty_like(z_t)
        network: Network = self.network
        for read, inner, write in self._tiles(z_t.shape):
            part = network(z_t[read], _crop_level(logsnr, read[2]), _crop(cond, read))
            out[write] = part[inner]
        return out

    def _check(self, shape: torch.Size) -> None:
        frames, height, width = self.tile
        if self._wide is not None and (height < shape[-2] or width < shape[-1]):
            raise ValueError(
                f"{self._wide} sees a whole frame of {shape[-2]}x{shape[-1]}, so it cannot be cut into tiles of "
                f"{height}x{width}; cut in time alone, or build the network without attention within frames and with "
                "norms per position"
            )
        if self._long is not None and frames < shape[-3]:
            raise ValueError(
                f"{self._long} sees all {shape[-3]} frames, so they cannot be cut into tiles of {frames}; build the "
                "network with temporal convolutions, or with windows, and without frame_positions"
            )

    def _tiles(
        self, shape: torch.Size
    ) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...], tuple[slice, ...]]]:
        spans = [
            list(_spans(size, tile, margin))
            for size, tile, margin in zip(
                shape[2:], self.tile, (self.margin[0], self.margin[1], self.margin[1]), strict=True
            )
        ]
        every = slice(None)
        for t in spans[0]:
            for h in spans[1]:
                for w in spans[2]:
                    yield tuple((every, every, *part) for part in zip(t, h, w, strict=True))  # type: ignore[misc]


def _first(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> str | None:
    """The name of the first layer of these kinds that is not held back by a window; None where there is none."""
    for module in network.modules():
        windowed = isinstance(module, TemporalAttention) and module.window is not None
        if isinstance(module, kinds) and not windowed:
            return type(module).__name__
    return None


def _spans(size: int, tile: int, margin: int) -> Iterator[tuple[slice, slice, slice]]:
    """(read, inner, write) along one axis: `inner` cuts from what was read what is written at `write`."""
    for start in range(0, size, tile):
        stop = min(start + tile, size)
        low, high = max(start - margin, 0), min(stop + margin, size)
        yield slice(low, high), slice(start - low, stop - low), slice(start, stop)


def _crop_level(level: Tensor, frames: slice) -> Tensor:
    return level[:, frames] if level.ndim == 2 else level


def _crop(cond: Conditioning, read: tuple[slice, ...]) -> Conditioning:
    """The conditioning of a tile: what has frames or pixels is cut, the rest is the whole video's."""
    frames = read[2]
    return replace(
        cond,
        video=None if cond.video is None else cond.video[read],
        text=cond.text[:, frames] if cond.text is not None and cond.text.ndim == 4 else cond.text,
        text_mask=cond.text_mask[:, frames]
        if cond.text_mask is not None and cond.text_mask.ndim == 3
        else cond.text_mask,
        images=cond.images[:, frames] if cond.images is not None and cond.images.ndim == 2 else cond.images,
        aug_logsnr=cond.aug_logsnr if cond.aug_logsnr is None else _crop_level(cond.aug_logsnr, frames),
    )
