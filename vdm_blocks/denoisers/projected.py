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

__all__ = ["Momentum", "ProjectedGuidance"]


class Momentum:
    """d <- d + beta d_before, for the length of one step: `GuidanceMomentum` makes it, and takes out what it holds.

    Attributes:
        beta: how much of the evaluation before is added; negative, -0.5 say, pushes away from where it went.
        before: that evaluation's d, with its own momentum, (B, C, T, H, W); None at the beginning.
    """

    def __init__(self, beta: float, before: Tensor | None = None) -> None:
        self.beta = beta
        self.before = before

    def carry(self, difference: Tensor) -> Tensor:
        """`difference` with the momentum, which is also what the next evaluation finds as `before`."""
        if self.before is not None:
            difference = torch.add(difference, self.before, alpha=self.beta)
        self.before = difference
        return difference


class ProjectedGuidance(DenoiserWrapper):
    """x0 = cond + (scale - 1) (d_orthogonal + eta d_parallel), d = cond - uncond shortened to length `radius`.

    (arXiv 2410.02416, section 4.) The part of d along the conditional x0 is what saturates. Both
    parts and the length are taken per sample, of x0; eps is recomputed. The paper's momentum, a memory of the steps
    before, belongs to the chain and not to the denoiser: see `GuidanceMomentum`.

    Args:
        denoiser: the denoiser to guide.
        scale: as for `ClassifierFreeGuidance`; 1 is off.
        eta: what is kept of the parallel part; 1, with an infinite radius, is classifier-free guidance.
        radius: the greatest length of d, over all axes but the batch; it grows with the square root of their number.
        unconditional: makes the conditioning to push away from.
        both: whether the two evaluations are made apart or together.
        momentum: that of the step which this is made for, given by `GuidanceMomentum`; None is none.

    Raises:
        ValueError: a radius that is not positive, or an eta that is not finite.
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
        momentum: Momentum | None = None,
    ) -> None:
        super().__init__(denoiser)
        if not radius > 0:
            raise ValueError(f"radius is {radius}; it must be positive, and math.inf is no limit")
        if not math.isfinite(eta):
            raise ValueError(
                f"eta is {eta}; it is what is kept of the parallel part, finite, and 1 is all of it"
            )
        self.scale = as_scale(scale)
        self.eta = eta
        self.radius = radius
        self.unconditional = unconditional
        self.both = both
        self.momentum = momentum

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """The guided split of z_t at t, of shape (), (B,) or (B, T)."""
        scale = self.scale(t, self.schedule.logsnr(t))
        without = cond if is_everywhere(scale, 1.0) else self.unconditional(cond)
        if without is cond:
            return self.denoiser(z_t, t, cond)
        conditional, unconditional = evaluate_both(self.denoiser, z_t, t, (cond, without), self.both)
        difference = conditional.x0 - unconditional.x0
        if self.momentum is not None:
            difference = self.momentum.carry(difference)
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
