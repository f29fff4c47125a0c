"""The guidance scale as something that a network is told."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from vdm_blocks.diffusion.noise import NoiseSource
from vdm_blocks.distillation.match import draw_uniform
from vdm_blocks.types import Conditioning

__all__ = ["GUIDANCE_SCALE", "ScaleRange", "as_range", "guidance_scale_of", "with_guidance_scale"]

GUIDANCE_SCALE = "guidance_scale"
"""The entry of `Conditioning.extra` that holds the scale, (B,) or (B, T); 1 is no guidance."""


@dataclass(frozen=True, kw_only=True)
class ScaleRange:
    """The scales that a student learns: low + (high - low) u^power, u uniform in [0, 1].

    (1, 16) covers oscillation between 1 and 16. With power 1, the paper's, all scales are alike likely; with 2, half
    of them lie in the lower quarter, where those are that are kept for a whole video.

    Raises:
        ValueError: a range that is empty or not finite, or a power that is not positive.
    """

    low: float = 1.0
    high: float = 16.0
    power: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"ScaleRange got low={self.low}, high={self.high}; give a finite range that covers the scales in use, "
                "for example 1 to 16, where 1 is no guidance"
            )
        if not 0 < self.power < math.inf:
            raise ValueError(
                f"ScaleRange got power={self.power}; it is positive: 1 for all scales alike, 2 for more low ones"
            )

    def draw(self, generator: NoiseSource, like: Tensor) -> Tensor:
        """A scale for each sample of `like`, (B,)."""
        u = draw_uniform(generator, like, key="distillation/scale")
        return (self.low + u**self.power * (self.high - self.low)).to(like.dtype)

    def place(self, scale: Tensor) -> Tensor:
        """Where in the range `scale` lies, from 0 to 1.

        Raises:
            ValueError: scales outside, as far as can be known without waiting for a device.
        """
        u = (scale - self.low) / (self.high - self.low)
        if scale.device.type == "cpu" and bool(((u < -1e-6) | (u > 1 + 1e-6)).any()):
            raise ValueError(
                f"guidance scales from {float(scale.min()):.4g} to {float(scale.max()):.4g} were asked of a student "
                f"that knows {self.low:.4g} to {self.high:.4g}; stay within, or distil it over a wider range"
            )
        return u


def as_range(scales: ScaleRange | tuple[float, float]) -> ScaleRange:
    """A pair as a range; a range as it is."""
    return scales if isinstance(scales, ScaleRange) else ScaleRange(low=scales[0], high=scales[1])


def with_guidance_scale(cond: Conditioning, scale: Tensor) -> Conditioning:
    """The same conditioning with `scale`, (B,) or (B, T), told; the rest is untouched."""
    return replace(cond, extra={**cond.extra, GUIDANCE_SCALE: scale})


def guidance_scale_of(cond: Conditioning) -> Tensor:
    """The scale that `cond` tells.

    Raises:
        ValueError: none.
    """
    if GUIDANCE_SCALE not in cond.extra:
        raise ValueError(
            "this student must be told the guidance scale: wrap it in DistilledGuidance(student, scale=...), or give "
            f"Conditioning(extra={{{GUIDANCE_SCALE!r}: scale}}) with one number a sample"
        )
    return cond.extra[GUIDANCE_SCALE]
