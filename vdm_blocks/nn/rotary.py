"""Positions as rotations of queries and keys."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Rotary", "grid_positions"]


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """q_i . k_j depends on positions through their difference alone (arXiv 2104.09864, eq. 16 and 34).

    The head's channels are dealt out to the axes of position, `widths[a]` to axis a; within an axis, channel pair
    m is turned by p longest^(-m / pairs). What is left over is not turned. Axes (t, h, w) make a video's positions.

    Attributes:
        widths: channels of a head for each axis, each even.
        longest: ratio of the longest to the shortest wavelength, roughly.

    Raises:
        ValueError: a width that is odd or negative, or a ratio that is not positive and finite.

    >>> rotary = Rotary(widths=(4,))
    >>> x = torch.randn(2, 3, 4)  # (..., S, d)
    >>> turned = rotary.rotate(x, torch.arange(3.0)[:, None])
    >>> torch.allclose(turned.norm(dim=-1), x.norm(dim=-1))
    True
    """

    widths: tuple[int, ...]
    longest: float = 10_000.0

    def __post_init__(self) -> None:
        if not self.widths or any(width < 0 or width % 2 for width in self.widths) or not any(self.widths):
            raise ValueError(f"rotary widths are even, one for each axis of position; got {self.widths}")
        if not 0 < self.longest < math.inf:
            raise ValueError(f"longest is a ratio of wavelengths, positive and finite; got {self.longest}")

    def angles(self, positions: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """(..., S, axes) -> (..., S, sum(widths) / 2), in radians."""
        if positions.shape[-1] != len(self.widths):
            raise ValueError(
                f"positions have {positions.shape[-1]} axes; these rotations are for {len(self.widths)}"
            )
        parts = []
        for axis, width in enumerate(self.widths):
            pairs = torch.arange(width // 2, device=positions.device, dtype=dtype)
            rate = torch.exp(-math.log(self.longest) * 2 / max(width, 1) * pairs)
            parts.append(positions[..., axis, None].to(dtype) * rate)
        return torch.cat(parts, dim=-1)

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """`x` (..., S, d) turned by `positions` (S, axes), or (..., S, axes) that broadcasts against it.

        Raises:
            ValueError: heads of fewer channels than `widths` takes.
        """
        turned = sum(self.widths)
        if x.shape[-1] < turned:
            raise ValueError(
                f"heads of {x.shape[-1]} channels cannot turn {turned}; take fewer or wider heads"
            )
        angle = self.angles(positions, torch.promote_types(x.dtype, torch.float32))
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        a, b, rest = x.split([turned // 2, turned // 2, x.shape[-1] - turned], dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1)


def grid_positions(*sizes: int, device: torch.device | str | None = None) -> Tensor:
    """The coordinates of every cell of a grid, last axis fastest.

    Returns:
        (prod(sizes), len(sizes)), float32.

    >>> grid_positions(2, 2).tolist()
    [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    axes = [torch.arange(size, device=device, dtype=torch.float32) for size in sizes]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
