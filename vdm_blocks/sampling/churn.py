"""EDM's stochastic sampler: noise is added before each step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vdm_blocks.diffusion.values import check_numbers
from vdm_blocks.sampling.heun import Heun
from vdm_blocks.sampling.rule import Draw, StepResult, StepRule, renoise
from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["EDMChurn"]


@dataclass(frozen=True, kw_only=True)
class EDMChurn:
    """Raise sigma~ = sigma / alpha by a factor 1 + g with fresh noise, then step down.

    g = min(churn / steps, sqrt(2) - 1) where sigma_min <= sigma~ <= sigma_max, else 0 (arXiv 2206.00364,
    algorithm 2). The noise comes in the schedule's own scale, alpha included, so that z has the variance of
    its new time on any schedule; it never rises beyond time 1. With `rule=EDMHeun()` it is the algorithm to
    the letter.

    Args:
        rule: what steps down.
        churn: S_churn; 40 for EDM's ImageNet-64, 0 adds no noise.
        sigma_min: S_min, 0.05 there.
        sigma_max: S_max, 50 there.
        noise_scale: S_noise, the standard deviation of the fresh noise; 1.003 there, 1 keeps the marginals.

    Raises:
        ValueError: negative churn, noise that is not positive, or an empty range of sigma~.
    """

    rule: StepRule[Any] = field(default_factory=Heun)
    churn: float = 40.0
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 <= self.churn < math.inf or not 0 < self.noise_scale < math.inf:
            raise ValueError(
                f"EDMChurn got churn={self.churn}, noise_scale={self.noise_scale}; churn is 0 or more and noise_scale "
                "positive, for example 40 and 1"
            )
        if not 0 <= self.sigma_min < self.sigma_max:
            raise ValueError(
                f"EDMChurn got sigma_min={self.sigma_min}, sigma_max={self.sigma_max}; the range of sigma / alpha in "
                "which noise is added must not be empty, for example 0.05 to 50"
            )

    def start(self, times: Tensor) -> tuple[float, Any]:
        """The factor's g on this grid, and the state of `rule`."""
        return min(self.churn / (len(times) - 1), math.sqrt(2) - 1), self.rule.start(times)

    def __call__(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Tensor,
        s: Tensor,
        cond: Conditioning,
        state: tuple[float, Any],
        draw: Draw,
    ) -> StepResult[tuple[float, Any]]:
        """Up from t, then down to s."""
        g, inner = state
        logsnr = denoiser.schedule.logsnr(t)
        if g > 0 and float(t) < 1 and self.sigma_min <= math.exp(-float(logsnr) / 2) <= self.sigma_max:
            up = denoiser.schedule.time(logsnr - 2 * math.log1p(g)).clamp(max=1)
            z_t = renoise(denoiser.schedule, z_t, t, up, lambda like: draw(like) * self.noise_scale)
            t = up
        result = self.rule(denoiser, z_t, t, s, cond, inner, draw)
        return StepResult(result.z, result.x0, (g, result.state))
