"""Painted backgrounds: smooth, procedural, of any resolution; each one is a few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import pi
from random import Random

import torch
from torch import Tensor

from vdm_blocks.data.raster import Raster

RGB = tuple[float, float, float]
_BLOBS = 10
_ABSENT: RGB = (-9.0, -9.0, 0.01)


@dataclass(frozen=True, kw_only=True)
class Backdrop:
    """Sky, a disc in it, soft blobs (stars, clouds), a ridge and a ground; lengths are parts of the height.

    Args:
        top, low: colours of the sky overhead and at the horizon.
        far, near: colours of the ground at the horizon and at the lower edge.
        ridge: colour of the ridge on the horizon.
        horizon: height of the horizon, 0 at the top, 1 at the bottom.
        wave: how far the horizon swings.
        peak: height of the ridge above the horizon; 0 is none.
        pitch: ridge peaks per picture height.
        sharp: 0 for round hills, 1 for pointed ones.
        shift: slides ridge and horizon sideways.
        stripes: contrast of the stripes on the ground.
        disc: centre x, centre y and radius of sun or moon.
        disc_color: its colour.
        glow: strength of the halo around it.
        blobs: x, y and radius of each soft blob.
        stretch: how much wider than high blobs are.
        blob_color: their colour.
    """

    top: RGB
    low: RGB
    far: RGB
    near: RGB
    ridge: RGB = (0.0, 0.0, 0.0)
    horizon: float = 0.7
    wave: float = 0.0
    peak: float = 0.0
    pitch: float = 1.0
    sharp: float = 0.0
    shift: float = 0.0
    stripes: float = 0.0
    disc: RGB = _ABSENT
    disc_color: RGB = (1.0, 1.0, 1.0)
    glow: float = 0.0
    blobs: tuple[RGB, ...] = ()
    stretch: float = 1.0
    blob_color: RGB = (1.0, 1.0, 1.0)


_GRASS = Backdrop(
    top=(0.36, 0.67, 0.95), low=(0.78, 0.91, 0.99), far=(0.47, 0.76, 0.34), near=(0.26, 0.58, 0.22), wave=0.02
)
_PLACES = {
    "on green grass": replace(_GRASS, ridge=(0.38, 0.66, 0.38), peak=0.10, pitch=0.7),
    "at night": Backdrop(
        top=(0.03, 0.04, 0.16),
        low=(0.15, 0.17, 0.40),
        far=(0.09, 0.11, 0.22),
        near=(0.05, 0.06, 0.14),
        wave=0.02,
        ridge=(0.08, 0.09, 0.22),
        peak=0.08,
        pitch=0.8,
        disc_color=(0.98, 0.96, 0.82),
        glow=0.35,
        blob_color=(0.95, 0.96, 1.0),
    ),
    "in the snow": Backdrop(
        top=(0.66, 0.76, 0.86),
        low=(0.88, 0.92, 0.96),
        far=(0.93, 0.95, 0.98),
        near=(0.82, 0.87, 0.94),
        wave=0.03,
        ridge=(0.70, 0.78, 0.87),
        peak=0.16,
        pitch=1.3,
        sharp=0.8,
    ),
    "by the sea": Backdrop(
        top=(0.42, 0.74, 0.97),
        low=(0.84, 0.94, 0.99),
        far=(0.10, 0.42, 0.68),
        near=(0.20, 0.66, 0.78),
        horizon=0.55,
        stripes=0.16,
    ),
    "in the desert": Backdrop(
        top=(0.50, 0.76, 0.94),
        low=(0.97, 0.91, 0.76),
        far=(0.93, 0.76, 0.47),
        near=(0.84, 0.60, 0.32),
        wave=0.035,
        ridge=(0.88, 0.67, 0.39),
        peak=0.13,
        pitch=0.6,
        disc_color=(1.0, 0.97, 0.78),
        glow=0.4,
    ),
    "at sunset": Backdrop(
        top=(0.42, 0.22, 0.52),
        low=(1.00, 0.58, 0.32),
        far=(0.36, 0.17, 0.30),
        near=(0.20, 0.10, 0.22),
        wave=0.015,
        ridge=(0.46, 0.20, 0.36),
        peak=0.09,
        pitch=0.9,
        disc_color=(1.0, 0.84, 0.42),
        glow=0.6,
    ),
    "in a forest": Backdrop(
        top=(0.62, 0.82, 0.80),
        low=(0.84, 0.93, 0.84),
        far=(0.28, 0.46, 0.22),
        near=(0.20, 0.34, 0.16),
        wave=0.015,
        ridge=(0.11, 0.33, 0.20),
        peak=0.42,
        pitch=3.4,
        sharp=1.0,
    ),
    "in the mountains": Backdrop(
        top=(0.44, 0.64, 0.90),
        low=(0.86, 0.90, 0.95),
        far=(0.52, 0.62, 0.46),
        near=(0.40, 0.50, 0.34),
        wave=0.02,
        ridge=(0.46, 0.48, 0.60),
        peak=0.44,
        pitch=0.75,
        sharp=1.0,
    ),
    "under water": Backdrop(
        top=(0.22, 0.66, 0.86),
        low=(0.04, 0.28, 0.56),
        far=(0.55, 0.62, 0.52),
        near=(0.70, 0.68, 0.48),
        horizon=0.86,
        wave=0.02,
        ridge=(0.05, 0.36, 0.50),
        peak=0.08,
        pitch=1.0,
        blob_color=(0.66, 0.88, 0.96),
    ),
    "on a plain grey background": Backdrop(
        top=(0.62, 0.62, 0.63),
        low=(0.62, 0.62, 0.63),
        far=(0.62, 0.62, 0.63),
        near=(0.62, 0.62, 0.63),
    ),
}
_CLOUDY = ("on green grass", "by the sea", "in the mountains")
_DOTTED = {"at night": 0.012, "under water": 0.018, "in the snow": 0.014}
_LIT = {"at night": (0.10, 0.30), "in the desert": (0.10, 0.30), "at sunset": (0.52, 0.64)}

BACKDROPS = tuple(_PLACES)
"""The phrases that a caption can say of the background."""


def draw_backdrop(place: str, rng: Random) -> Backdrop:
    """A picture of the place, of which `rng` decides the particulars.

    Raises:
        ValueError: for a place that is not in BACKDROPS.
    """
    if place not in _PLACES:
        raise ValueError(f"no backdrop {place!r}: there are {', '.join(BACKDROPS)}")
    base = _PLACES[place]
    if place == "on a plain grey background":
        level = rng.uniform(0.5, 0.72)
        grey = (level, level, level)
        return replace(base, top=grey, low=grey, far=grey, near=grey)
    blobs: list[RGB] = []
    stretch = 1.0
    if place in _CLOUDY:
        stretch = 1.7
        for _ in range(2):
            x, y = rng.uniform(0.1, 1.6), rng.uniform(0.08, 0.3)
            blobs += [
                (x + d, y + rng.uniform(-0.015, 0.015), rng.uniform(0.05, 0.08)) for d in (-0.11, 0.0, 0.11)
            ]
    if place in _DOTTED:
        size = _DOTTED[place]
        blobs = [
            (rng.uniform(0, 1.7), rng.uniform(0, 0.6), size * rng.uniform(0.8, 1.5)) for _ in range(_BLOBS)
        ]
    disc = _ABSENT
    if place in _LIT:
        disc = (rng.uniform(0.2, 1.45), rng.uniform(*_LIT[place]), rng.uniform(0.07, 0.11))
    return replace(
        base,
        horizon=base.horizon + rng.uniform(-0.05, 0.05),
        pitch=base.pitch * rng.uniform(0.85, 1.15),
        peak=base.peak * rng.uniform(0.8, 1.2),
        shift=rng.uniform(0, 10),
        disc=disc,
        blobs=tuple(blobs),
        stretch=stretch,
    )


def _ramp(distance: Tensor, pixel: float) -> Tensor:
    """Share of a pixel beyond an edge at `distance` from its centre."""
    return (distance / pixel + 0.5).clamp(0, 1)


def _over(picture: Tensor, color: Tensor, share: Tensor) -> Tensor:
    return torch.lerp(picture, color, share.unsqueeze(1))


def render_backdrops(backdrops: Sequence[Backdrop], raster: Raster) -> Tensor:
    """N backdrops on the raster's pixels: (N, 3, H, W) in [0, 1]. Edges are one pixel of the raster soft."""
    pixel = 1 / raster.height
    v = (raster.rows() * pixel).view(1, -1, 1)
    u = (raster.columns() * pixel).view(1, 1, -1)

    def table(values: Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor(values)

    numbers = table(
        [[b.horizon, b.wave, b.peak, b.pitch, b.sharp, b.shift, b.stripes, b.glow] for b in backdrops]
    )
    horizon, wave, peak, pitch, sharp, shift, stripes, glow = numbers.view(-1, 8, 1, 1).unbind(1)
    colors = table(
        [[*b.top, *b.low, *b.far, *b.near, *b.ridge, *b.disc_color, *b.blob_color] for b in backdrops]
    )
    top, low, far, near, ridge, disc_color, blob_color = colors.view(-1, 7, 3, 1, 1).unbind(1)

    sky = torch.lerp(top, low, (v / horizon).clamp(0, 1).unsqueeze(1))
    picture = sky.expand(-1, -1, -1, u.shape[-1])
    if any(b.disc != _ABSENT for b in backdrops):
        x, y, radius = table([b.disc for b in backdrops]).view(-1, 3, 1, 1).unbind(1)
        distance = ((u - x) ** 2 + (v - y) ** 2).sqrt()
        picture = _over(picture, disc_color, glow * torch.exp(-((distance / (3 * radius)) ** 2)))
        picture = _over(picture, disc_color, _ramp(radius - distance, pixel))
    if any(b.blobs for b in backdrops):
        blobs = table([(*b.blobs, *(_ABSENT,) * (_BLOBS - len(b.blobs))) for b in backdrops])  # type: ignore[arg-type]
        x, y, radius = blobs.unsqueeze(-1).unbind(2)
        stretch = table([[b.stretch] for b in backdrops]).unsqueeze(-1)
        columns = torch.exp(-(((u - x) / (radius * stretch)) ** 2))
        rows = torch.exp(-(((v.transpose(1, 2) - y) / radius) ** 2))
        mass = torch.einsum("nkh,nkw->nhw", rows, columns)
        picture = _over(picture, blob_color, ((mass - 0.35) * 3).clamp(0, 0.92))
    along = pitch * u + shift
    if any(b.peak for b in backdrops):

        def hills(x: Tensor) -> Tensor:
            return torch.lerp(0.5 - 0.5 * torch.cos(2 * pi * x), (2 * (x % 1) - 1).abs(), sharp)

        height = peak * (0.65 * hills(along) + 0.35 * hills(1.7 * along + 0.3))
        picture = _over(picture, ridge, _ramp(v - (horizon - height), pixel) * (peak > 0))
    edge = horizon + wave * torch.sin(2 * pi * along / pitch.clamp(min=0.5) * 0.9)
    depth = ((v - horizon) / (1 - horizon)).clamp(0, 1)
    shade = 1 + stripes * torch.sin(12 / (depth + 0.25) + shift)
    ground = torch.lerp(far, near, depth.unsqueeze(1)) * shade.unsqueeze(1)
    return torch.lerp(picture, ground, _ramp(v - edge, pixel).unsqueeze(1)).clamp(0, 1)
