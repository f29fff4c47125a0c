"""Which pixels of which moments are rendered."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vdm_blocks.diffusion.values import check_numbers


@dataclass(frozen=True, kw_only=True)
class Raster:
    """Pixels and moments to render: a crop of a full picture of `height` x `width`, `frames` times.

    Frame i shows time `start + i / fps` seconds. Scenes are described in fractions of the full picture, so
    the same scene on a raster twice as fine is the same film seen more sharply.

    Args:
        frames: how many moments, T.
        height: rows of the full picture.
        width: columns of the full picture.
        fps: frames a second.
        start: time of the first frame, seconds.
        crop: (top, left, height, width) in pixels of the full picture; None renders all of it.

    Raises:
        ValueError: for sizes below one, a rate not above zero, or a crop that leaves the picture.

    >>> Raster(frames=2, height=24, width=40, fps=3.0, crop=(4, 8, 16, 24)).shape
    (2, 16, 24)
    """

    frames: int
    height: int
    width: int
    fps: float = 3.0
    start: float = 0.0
    crop: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        check_numbers(self)
        if min(self.frames, self.height, self.width) < 1 or not self.fps > 0:
            raise ValueError(f"a raster needs at least one frame, row and column and fps > 0, got {self}")
        top, left, rows, columns = self.box
        inside = 0 <= top <= top + rows <= self.height and 0 <= left <= left + columns <= self.width
        if min(rows, columns) < 1 or not inside:
            raise ValueError(
                f"crop (top, left, height, width) = {self.crop} does not lie in a picture of "
                f"{self.height} x {self.width}"
            )

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(top, left, height, width) of what is rendered."""
        return self.crop if self.crop is not None else (0, 0, self.height, self.width)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, H, W) of what is rendered."""
        return self.frames, self.box[2], self.box[3]

    @property
    def aspect(self) -> float:
        """Width of the full picture over its height."""
        return self.width / self.height

    def times(self) -> Tensor:
        """(T,) seconds, float64."""
        return self.start + torch.arange(self.frames, dtype=torch.float64) / self.fps

    def rows(self, per_pixel: int = 1) -> Tensor:
        """Row centres in pixels of the full picture, `per_pixel` to a pixel: (H * per_pixel,)."""
        return self.box[0] + (torch.arange(self.box[2] * per_pixel) + 0.5) / per_pixel

    def columns(self, per_pixel: int = 1) -> Tensor:
        """Column centres in pixels of the full picture, `per_pixel` to a pixel: (W * per_pixel,)."""
        return self.box[1] + (torch.arange(self.box[3] * per_pixel) + 0.5) / per_pixel
