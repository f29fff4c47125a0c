"""Adaptive projected guidance."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vdm_blocks.denoisers.passes import Passes, evaluate_both, is_everywhere
from vdm_blocks.denoisers.scales import Scale, as_scale
from vdm_blocks.denoisers.wrapper import DenoiserWrapper, with_x0
from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.types import Conditioning, Denoised, Denoiser

__all__ = ["ProjectedGuidance"]


class ProjectedGuidance(DenoiserWrapper):
    """x0 = cond + (scale - 1) (d_orthogonal + eta d_parallel), d = cond - uncond shortened to length `radius`.

    (arXiv 2410.02416, section 4.) The part of d along the conditional x0 is what saturates. Both
    parts and the length are taken per sample, of x0; eps is recomputed. The paper's momentum, a memory of the steps
    before, is left out: a denoiser is a function of its arguments.

    Args:
        denoiser: the denoiser to guide.
        scale: as for `ClassifierFreeGuidance`; 1 is off.
        eta: what is kept of the parallel part; 1, with an infinite radius, is classifier-free guidance.
        radius: the greatest length of d, over all axes but the batch; it grows with the square root of their number.
        unconditional: makes the conditioning to push away from.
        both: whether the two evaluations are made apart or together.

    Raises:
        ValueError: a radius that is not positive.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scale: float | Scale = 6.0,
        *,
        eta: float = 0.0,
        radius: float = math.inf,
        unconditional: Callable[[Conditioning], Conditioning] = Conditioning.without_text,
        both: Passes = Passes.APART,
    ) -> None:
        super().__init__(denoiser)
        if not radius > 0:
            raise ValueError(f"radius is {radius}; it must be positive, and math.inf is no limit")
        self.scale = as_scale(scale)
        self.eta = eta
        self.radius = radius
        self.unconditional = unconditional
        self.both = both

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """The guided split of z_t at t, of shape (), (B,) or (B, T)."""
        scale = self.scale(t, self.schedule.logsnr(t))
        if is_everywhere(scale, 1.0):
            return self.denoiser(z_t, t, cond)
        conds = (cond, self.unconditional(cond))
        conditional, unconditional = evaluate_both(self.denoiser, z_t, t, conds, self.both)
        difference = conditional.x0 - unconditional.x0
        difference = difference * (self.radius / _norm(difference)).clamp(max=1)
        direction = conditional.x0 / _norm(conditional.x0)
        parallel = (difference * direction).sum(dim=_axes(direction), keepdim=True) * direction
        update = difference - (1 - self.eta) * parallel
        return with_x0(self.schedule, z_t, t, conditional.x0 + expand_level(scale - 1, update) * update)


def _axes(x: Tensor) -> tuple[int, ...]:
    return tuple(range(1, x.ndim))


def _norm(x: Tensor) -> Tensor:
    """Per sample, at least the smallest normal number."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=_axes(x), keepdim=True)
    return norm.clamp(min=torch.finfo(x.dtype).tiny)
