"""Heun's rule on the probability flow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vdm_blocks.sampling.rule import Draw, StepResult, add_scaled_, affine, is_clean, scales
from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["EDMHeun", "Heun"]


@dataclass(frozen=True, kw_only=True)
class Heun:
    """Heun's rule on dz/dphi = v, phi = atan(sigma / alpha): second order, two evaluations a step.

    With n = sqrt(alpha^2 + sigma^2), z / n = cos(phi) x0 + sin(phi) eps and v = cos(phi) eps - sin(phi) x0
    (arXiv 2202.00512, appendix D), z_s / n_s = z_t / n_t + (phi_s - phi_t) (v_t + v_s) / 2. The angle is
    finite at both ends of any schedule. `EDMHeun` takes the slope in sigma / alpha, which is not.
    """

    def start(self, times: Tensor) -> None:
        """Any grid fits; there is no state."""

    def __call__(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Tensor,
        s: Tensor,
        cond: Conditioning,
        state: None,
        draw: Draw,  # noqa: ARG002
    ) -> StepResult[None]:
        """One step from z_t to z_s, the last of them with one evaluation."""
        x0 = denoiser(z_t, t, cond).x0
        if is_clean(s):
            return StepResult(x0, x0, state)
        c = scales(denoiser.schedule, t, s)
        n_t, n_s = torch.hypot(c.alpha_t, c.sigma_t), torch.hypot(c.alpha_s, c.sigma_s)
        turn = torch.atan2(c.sigma_s, c.alpha_s) - torch.atan2(c.sigma_t, c.alpha_t)
        # v = (alpha z / n - n x0) / sigma at either end.
        a_t, b_t = n_s * c.alpha_t / (n_t * c.sigma_t), n_s * n_t / c.sigma_t
        predicted = affine(z_t, n_s / n_t + turn * a_t, x0, -turn * b_t)
        x0_s = denoiser(predicted, s, cond).x0
        z_s = affine(z_t, n_s / n_t + turn / 2 * a_t, x0, -turn / 2 * b_t)
        add_scaled_(z_s, predicted, turn / 2 * c.alpha_s / c.sigma_s)
        add_scaled_(z_s, x0_s, -turn / 2 * n_s**2 / c.sigma_s)
        return StepResult(z_s, x0, state)


@dataclass(frozen=True, kw_only=True)
class EDMHeun:
    """Heun's rule in sigma~ = sigma / alpha, on x = z / alpha (arXiv 2206.00364, algorithm 1). Second order.

    x_s = x_t + (sigma~_s - sigma~_t) (eps_t + eps_s) / 2. Errors of eps_s are multiplied by sigma~_t / 2, so
    start it from a sigma~ of about 80, where EDM does: a step from the log-SNR -20 multiplies them by 11,000,
    and a grid that is uniform in time makes such a step. `Heun` has no such limit.
    """

    def start(self, times: Tensor) -> None:
        """Any grid fits; there is no state."""

    def __call__(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Tensor,
        s: Tensor,
        cond: Conditioning,
        state: None,
        draw: Draw,  # noqa: ARG002
    ) -> StepResult[None]:
        """One step from z_t to z_s, the last of them with one evaluation."""
        first = denoiser(z_t, t, cond)
        x0, eps = first.x0, first.eps
        if is_clean(s):
            return StepResult(x0, x0, state)
        c = scales(denoiser.schedule, t, s)
        ratio = c.sigma_s / c.sigma_t
        z_s = affine(z_t, ratio, x0, c.alpha_s - c.alpha_t * ratio)
        if bool(c.alpha_t == 0):
            return StepResult(z_s, x0, state)
        half = (c.sigma_s - c.alpha_s * c.sigma_t / c.alpha_t) / 2
        eps_s = denoiser(z_s, s, cond).eps
        add_scaled_(add_scaled_(z_s, eps_s, half), eps, -half)
        return StepResult(z_s, x0, state)
