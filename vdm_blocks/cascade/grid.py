"""The grid that a stage of a cascade puts its video on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vdm_blocks.diffusion.values import check_numbers

__all__ = ["Grid"]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Frames, height, width, and frames per second.

    Raises:
        ValueError: a size that is not a whole number or below 1, or a rate that is not positive and finite.

    >>> Grid(frames=32, height=48, width=80, fps=6).over(Grid(frames=32, height=24, width=40, fps=6))
    (1, 2)
    """

    frames: int
    height: int
    width: int
    fps: float

    def __post_init__(self) -> None:
        check_numbers(self)
        if min(self.shape) < 1 or not 0 < self.fps < math.inf:
            raise ValueError(f"a grid has at least one frame, row and column and a positive rate; got {self}")

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width} at {self.fps:g} fps"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, H, W)."""
        return self.frames, self.height, self.width

    def over(self, before: Grid) -> tuple[int, int]:
        """(n, k): this grid has n times the frames and k times the height and width of `before`.

        Raises:
            ValueError: factors that are not whole, differ between height and width, or do not agree with the rates.
        """
        n, k = self.frames // before.frames, self.height // before.height
        if (before.frames * n, before.height * k, before.width * k) != self.shape or n < 1 or k < 1:
            raise ValueError(
                f"{self} is not a whole multiple of {before}: frames and size must each divide, "
                "and height and width by the same factor"
            )
        if abs(before.fps * n - self.fps) > 1e-6 * self.fps:
            raise ValueError(
                f"{self} has {n} times the frames of {before}, so its rate must be {before.fps * n:g} fps"
            )
        return n, k
