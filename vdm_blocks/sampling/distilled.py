"""The stochastic sampler of Imagen Video's distilled models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vdm_blocks.sampling.rule import Draw, StepResult, add_scaled_, affine, is_clean, scales
from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["DistilledStochastic"]


@dataclass(frozen=True, kw_only=True)
class DistilledStochastic:
    """A DDIM step of twice the length, and a noisy step of one length back; the last one is DDIM alone.

    On the uniform grid of N steps, with s the time after t and k the one after s,
        z_k = alpha_k x0 + (sigma_k / sigma_t) (z_t - alpha_t x0)
        z_s = (alpha_s / alpha_k) z_k + sqrt(1 - exp(logsnr_s - logsnr_k)) sigma_s n
    (arXiv 2210.02303, section 2.7; arXiv 2210.03142). N evaluations. It asks the model for jumps
    of 2 / N from every time of the grid, and of 1 / N from the last.
    """

    def start(self, times: Tensor) -> Tensor:
        """The grid itself.

        Raises:
            ValueError: a grid that is not uniform or does not end at 0.
        """
        lengths = times[:-1] - times[1:]
        if float(lengths.max() - lengths.min()) > 1e-6 or float(times[-1]) != 0:
            raise ValueError(
                f"DistilledStochastic needs a uniform grid that ends at 0, for its steps of twice the length; this one "
                f"has steps from {float(lengths.min()):.4g} to {float(lengths.max()):.4g} and ends at "
                f"{float(times[-1]):.4g}. Use uniform_times(steps)"
            )
        return times

    def __call__(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Tensor,
        s: Tensor,
        cond: Conditioning,
        state: Tensor,
        draw: Draw,
    ) -> StepResult[Tensor]:
        """One step from z_t to z_s; both must be neighbours on the grid."""
        x0 = denoiser(z_t, t, cond).x0
        if is_clean(s):
            return StepResult(x0, x0, state)
        at = int(torch.searchsorted(-state, -s))
        if float(state[at]) != float(s) or float(state[at - 1]) != float(t):
            raise ValueError(
                f"a step from {float(t)} to {float(s)} is not on the grid that this chain started with"
            )
        k = state[at + 1]
        down, back = scales(denoiser.schedule, t, k), scales(denoiser.schedule, s, k)
        ratio, growth = down.sigma_s / down.sigma_t, back.alpha_t / back.alpha_s
        z_s = affine(z_t, growth * ratio, x0, growth * (down.alpha_s - down.alpha_t * ratio))
        add_scaled_(z_s, draw(z_s), back.sigma_t * (1 - back.kept).clamp(min=0).sqrt())
        return StepResult(z_s, x0, state)
