"""A local network run piece by piece, in memory that the size of the video does not move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from vdm_blocks.types import Conditioning, Network

__all__ = ["TiledNetwork"]


class TiledNetwork(nn.Module):
    """`network` on overlapping tiles of the video, whose inner parts are joined.

    Each tile is read with a margin as wide as the network sees, and the margin is thrown away, so every value of the
    result is computed from all that it depends on: the result is the whole network's, to rounding. That needs a
    network that is local and whose zero padding is its only knowledge of the border (`VideoUNet` without spatial and
    temporal attention is).

    Args:
        network: of any make.
        tile: (frames, height, width) of the inner part of a tile.
        margin: (frames, pixels) that one value depends on, to each side: `VideoUNet.receptive_field()`.
        divisor: tiles start and end at multiples of this many pixels: `VideoUNet.spec.divisor`.

    Raises:
        ValueError: a tile that the divisor does not divide.

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
        if min(tile) < 1 or tile[1] % divisor or tile[2] % divisor:
            raise ValueError(
                f"a tile of {tile} (frames, height, width) must be positive, and height and width must divide by "
                f"{divisor}, the network's own divisor"
            )
        self.network = network
        self.tile = tile
        self.margin = (margin[0], -(-margin[1] // divisor) * divisor)

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """As the network's own; no gradient is kept between tiles that do not need one."""
        out = torch.empty_like(z_t)
        network: Network = self.network
        for read, inner, write in self._tiles(z_t.shape):
            part = network(z_t[read], _crop_level(logsnr, read[2]), _crop(cond, read))
            out[write] = part[inner]
        return out

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
