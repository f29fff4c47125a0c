"""The ancestral sampler of Video Diffusion Models."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vdm_blocks.diffusion.values import check_numbers
from vdm_blocks.sampling.rule import Draw, StepResult, add_scaled_, affine, is_clean, scales
from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["Ancestral"]


@dataclass(frozen=True, kw_only=True)
class Ancestral:
    """z_s ~ N(mean, small^(1 - gamma) large^gamma), the posterior's mean with a variance between its bounds.

    With c = exp(logsnr_t - logsnr_s): mean = c (alpha_s / alpha_t) z_t + (1 - c) alpha_s x0,
    small = (1 - c) sigma_s^2, the variance of q(z_s | z_t, x0), and large = (1 - c) sigma_t^2, that of
    q(z_t | z_s) (arXiv 2204.03458, section 2). The last step gives x0 and adds no noise.

    Args:
        gamma: 0 takes the small variance, 1 the large one; 0.3 is that paper's text-to-video setting.

    Raises:
        ValueError: gamma outside [0, 1].
    """

    gamma: float = 0.3

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"Ancestral got gamma={self.gamma}; it runs from 0, small variance, to 1, large")

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
        draw: Draw,
    ) -> StepResult[None]:
        """One step from z_t to z_s."""
        x0 = denoiser(z_t, t, cond).x0
        if is_clean(s):
            return StepResult(x0, x0, state)
        c = scales(denoiser.schedule, t, s)
        fresh = (1 - c.kept).clamp(min=0)
        z_s = affine(z_t, c.alpha_t * c.sigma_s**2 / (c.sigma_t**2 * c.alpha_s), x0, fresh * c.alpha_s)
        std = fresh.sqrt() * c.sigma_s ** (1 - self.gamma) * c.sigma_t**self.gamma
        add_scaled_(z_s, draw(z_s), std)
        return StepResult(z_s, x0, state)
