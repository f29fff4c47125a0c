"""Evaluating one denoiser under two conditionings, and mixing the answers."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor

from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.types import Conditioning, Denoised, Denoiser

__all__ = ["Passes", "evaluate_both", "is_everywhere", "lerp"]


class Passes(Enum):
    """How the two evaluations of guidance are made."""

    APART = "one after the other: half the memory, and any conditioning will do"
    TOGETHER = "as one batch of twice the size: faster where the device is not full"


def evaluate_both(
    denoiser: Denoiser, z_t: Tensor, t: Tensor, conds: tuple[Conditioning, Conditioning], passes: Passes
) -> tuple[Denoised, Denoised]:
    """The denoiser's answers under the first and the second conditioning."""
    first, second = conds
    if passes is Passes.APART:
        return denoiser(z_t, t, first), denoiser(z_t, t, second)
    both_t = t if t.ndim == 0 else torch.cat([t, t])
    both = denoiser(torch.cat([z_t, z_t]), both_t, Conditioning.cat([first, second]))
    x0, eps = both.x0.chunk(2), both.eps.chunk(2)
    return Denoised(x0[0], eps[0]), Denoised(x0[1], eps[1])


def is_everywhere(scale: Tensor, value: float) -> bool:
    """Whether `scale` is `value` for every sample, as far as can be known without waiting for a device."""
    return scale.device.type == "cpu" and bool((scale == value).all())


def lerp(start: Denoised, end: Denoised, scale: Tensor) -> Denoised:
    """Start + scale (end - start), in x0 and in eps; they stay consistent, the map being linear."""
    if scale.ndim == 0 and scale.device.type == "cpu":
        weight = float(scale)
        return Denoised(torch.lerp(start.x0, end.x0, weight), torch.lerp(start.eps, end.eps, weight))
    x0_weight, eps_weight = (expand_level(scale, x).to(x) for x in (end.x0, end.eps))
    return Denoised(torch.lerp(start.x0, end.x0, x0_weight), torch.lerp(start.eps, end.eps, eps_weight))
