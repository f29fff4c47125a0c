"""Motion in closed form."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import pi
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Track:
    """Where an object is at time t of a clip of `duration` seconds, in closed form.

    With p = t / duration - 1/2, in fractions of the picture's width (x) or height (y, size):

        x(t)     = x + dx p + sway sin(2 pi rate t + phase)
        y(t)     = y + dy p - hop |sin(2 pi rate t + phase)|
        size(t)  = size 2^(zoom p)
        angle(t) = rock sin(2 pi rate t + phase) + 2 pi turns p        clockwise, radians

    It knows neither frame rate nor resolution.

    >>> pose = Track(x=0.5, y=0.5, size=0.4, dx=-0.6).at(torch.tensor([0.0, 5.333]), duration=5.333)
    >>> [round(x, 3) for x in pose.x.tolist()]
    [0.8, 0.2]
    """

    x: float
    y: float
    size: float
    dx: float = 0.0
    dy: float = 0.0
    zoom: float = 0.0
    turns: float = 0.0
    sway: float = 0.0
    hop: float = 0.0
    rock: float = 0.0
    rate: float = 0.5
    phase: float = 0.0

    def __post_init__(self) -> None:
        if not self.size > 0:
            raise ValueError(f"an object needs a size above zero, got {self.size}")

    def at(self, t: Tensor, *, duration: float) -> Pose:
        """The pose at times t (T,), seconds."""
        return poses((self,), t, duration=duration)


class Pose(NamedTuple):
    """Centre x (of the width) and y, size (of the height), clockwise angle in radians: each (T,)."""

    x: Tensor
    y: Tensor
    size: Tensor
    angle: Tensor


_NAMES = tuple(field.name for field in fields(Track))


def poses(tracks: tuple[Track, ...], t: Tensor, *, duration: float) -> Pose:
    """One track seen at T times, or T tracks each at its own time.

    Args:
        tracks: 1 or T tracks.
        t: (T,) seconds.
        duration: length of the clips, seconds.
    """
    table = torch.tensor([[getattr(track, name) for name in _NAMES] for track in tracks], dtype=t.dtype)
    x, y, size, dx, dy, zoom, turns, sway, hop, rock, rate, phase = table.unbind(1)
    p = t / duration - 0.5
    wave = torch.sin(2 * pi * rate * t + phase)
    return Pose(
        x=x + dx * p + sway * wave,
        y=y + dy * p - hop * wave.abs(),
        size=size * torch.exp2(zoom * p),
        angle=rock * wave + 2 * pi * turns * p,
    )
