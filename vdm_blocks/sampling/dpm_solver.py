"""DPM-Solver++ with one step of memory, as an ODE and as an SDE."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vdm_blocks.diffusion.values import check_numbers
from vdm_blocks.sampling.rule import Draw, StepResult, add_scaled_, affine, is_clean, scales
from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["DPMSolverPP2M", "PreviousStep"]


@dataclass(frozen=True)
class PreviousStep:
    """What a two-step rule remembers.

    Attributes:
        x0: the estimate of the clean video at the previous step.
        half_step: half the rise in log-SNR of that step, 0-d.
    """

    x0: Tensor
    half_step: Tensor


@dataclass(frozen=True, kw_only=True)
class DPMSolverPP2M:
    """DPM-Solver++(2M): second order with one evaluation a step, and its SDE.

    With h half the rise in log-SNR, r = h_previous / h and k = 1 - exp(-(1 + eta) h),
        z_s = (sigma_s / sigma_t) exp(-eta h) z_t + alpha_s k (x0 + (x0 - x0_previous) / (2 r))
              + sigma_s sqrt(1 - exp(-2 eta h)) n
    (arXiv 2211.01095, algorithm 2; its midpoint SDE for eta > 0). The first step, and one that follows a
    step from alpha = 0, are of first order.

    Args:
        eta: 0 is the ODE; 1 is the SDE that ancestral sampling discretises.

    Raises:
        ValueError: a negative eta.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"DPMSolverPP2M got eta={self.eta}; 0 is the ODE, 1 the usual SDE")

    def start(self, times: Tensor) -> None:
        """Any grid fits; nothing is remembered yet."""

    def __call__(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Tensor,
        s: Tensor,
        cond: Conditioning,
        state: PreviousStep | None,
        draw: Draw,
    ) -> StepResult[PreviousStep | None]:
        """One step from z_t to z_s."""
        x0 = denoiser(z_t, t, cond).x0
        if is_clean(s):
            return StepResult(x0, x0, state)
        if float(s) == float(t):
            return StepResult(z_t.clone(), x0, state)
        c = scales(denoiser.schedule, t, s)
        h = c.half_step
        gain = -c.alpha_s * torch.expm1(-(1 + self.eta) * h)
        ratio = c.sigma_s / c.sigma_t * c.kept ** (self.eta / 2)
        if state is None:
            z_s = affine(z_t, ratio, x0, gain)
        else:
            half = gain * h / (2 * state.half_step)
            z_s = affine(z_t, ratio, x0, gain + half)
            add_scaled_(z_s, state.x0, -half)
        if self.eta > 0:
            add_scaled_(z_s, draw(z_s), c.sigma_s * (-torch.expm1(-2 * self.eta * h)).sqrt())
        return StepResult(z_s, x0, PreviousStep(x0, h))
