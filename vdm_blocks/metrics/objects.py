"""Things in a video: where they are seen, how many pieces there are, what they look like, on which way they go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Sightings", "TrackError", "color_mask", "pieces", "sight", "track_error"]


class Sightings(NamedTuple):
    """What is seen of one thing, frame by frame; NaN where it is not seen.

    Args:
        area: (B, T) pixels.
        centre: (B, T, 2) row and column of the centre of its pixels; the first pixel's centre is 0.5.
        color: (B, T, C) mean over its pixels.
    """

    area: Tensor
    centre: Tensor
    color: Tensor


class TrackError(NamedTuple):
    """Distance (B,) from the true track in heights of the picture, and the share (B,) of frames that miss it."""

    distance: Tensor
    missed: Tensor


def color_mask(video: Tensor, color: Sequence[float], *, angle: float = 0.4, least: float = 0.15) -> Tensor:
    """Where a colour is seen, whatever the light on it.

    Light and shadow scale a pixel and gloss adds white, and neither turns its chroma x - mean(x). So a pixel counts
    when its chroma, of length `least` or more, is within `angle` radians of the colour's own.

    Args:
        video: (B, 3, T, H, W) in [-1, 1].
        color: red, green, blue in [0, 1].
        angle: radians.
        least: in units of [0, 1].

    Returns:
        bool (B, T, H, W).

    Raises:
        ValueError: no such video, or a grey, which has no chroma to look for.
    """
    if video.ndim != 5 or video.shape[1] != 3:
        raise ValueError(f"colours are looked for in videos (B, 3, T, H, W); got {tuple(video.shape)}")
    wanted = torch.tensor(tuple(color), dtype=torch.float32, device=video.device)
    wanted = wanted - wanted.mean()
    if float(wanted.norm()) < 0.1:
        raise ValueError(
            f"{tuple(color)} is grey and has no chroma to look for; take a thing of another colour"
        )
    chroma = (video.float() + 1) / 2
    chroma = chroma - chroma.mean(1, keepdim=True)
    length = chroma.square().sum(1).sqrt()
    along = torch.einsum("bcthw,c->bthw", chroma, wanted / wanted.norm())
    return (length >= least) & (along >= length * torch.cos(torch.tensor(angle)))


def pieces(mask: Tensor, *, least: int = 4) -> Tensor:
    """How many connected pieces of `least` pixels or more a mask has; corners connect.

    Args:
        mask: bool (..., H, W).
        least: smaller ones are noise.

    Returns:
        (...) int64.
    """
    height, width = mask.shape[-2:]
    flat = mask.reshape(-1, 1, height, width)
    own = torch.arange(1, height * width + 1, dtype=torch.float64, device=mask.device).view(
        1, 1, height, width
    )
    label = own * flat
    while True:
        spread = F.max_pool2d(label, 3, 1, padding=1) * flat
        if torch.equal(spread, label):
            break
        label = spread
    counts = torch.zeros(len(flat), height * width + 1, dtype=torch.int64, device=mask.device)
    numbers = label.flatten(1).long()
    counts.scatter_add_(1, numbers, torch.ones_like(numbers))
    return (counts[:, 1:] >= least).sum(1).view(mask.shape[:-2])


def sight(video: Tensor, mask: Tensor, *, least: int = 4) -> Sightings:
    """Area, centre and mean colour of what a mask shows.

    Args:
        video: (B, C, T, H, W).
        mask: bool (B, T, H, W).
        least: fewer pixels than this are no sighting.

    Raises:
        ValueError: shapes that do not belong together.
    """
    if video.ndim != 5 or mask.shape != video[:, 0].shape or mask.dtype != torch.bool:
        raise ValueError(
            f"a mask of a video {tuple(video.shape)} is bool {tuple(video[:, 0].shape) if video.ndim == 5 else ''}; "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    area = mask.sum((2, 3)).double()
    area = area.where(area >= least, torch.nan)
    rows = torch.arange(video.shape[3], device=video.device).double() + 0.5
    columns = torch.arange(video.shape[4], device=video.device).double() + 0.5
    centre = (
        torch.stack([(mask.sum(3) * rows).sum(2), (mask.sum(2) * columns).sum(2)], dim=2) / area[..., None]
    )
    color = torch.einsum("bcthw,bthw->btc", video.double(), mask.double()) / area[..., None]
    return Sightings(area=area, centre=centre, color=color)


def track_error(seen: Sightings, tracks: Tensor, expected: Tensor, *, height: int) -> TrackError:
    """How far a thing is from where it ought to be.

    Args:
        seen: of the video.
        tracks: (B, T, 2) row and column of its true centre.
        expected: bool (B, T), the frames that ought to show it whole.
        height: rows of the picture.

    Returns:
        the mean distance over the expected frames that show it, NaN if none does; and the share that do not.

    Raises:
        ValueError: shapes that do not belong together, or a sample of which no frame is expected to show anything.
    """
    if (
        tracks.shape != seen.centre.shape
        or expected.shape != seen.area.shape
        or not bool(expected.any(1).all())
    ):
        raise ValueError(
            f"tracks {tuple(tracks.shape)} and expected {tuple(expected.shape)} belong to sightings "
            f"{tuple(seen.centre.shape)}, and each sample needs a frame that ought to show the thing"
        )
    found = expected & seen.area.isfinite()
    away = (seen.centre - tracks.double()).square().sum(2).sqrt() / height
    distance = away.where(found, 0.0).sum(1) / found.sum(1)
    return TrackError(distance=distance, missed=1 - found.sum(1) / expected.sum(1))
