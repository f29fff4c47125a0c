"""DDIM, from deterministic to the posterior's noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vdm_blocks.diffusion.values import check_numbers
from vdm_blocks.sampling.rule import Draw, StepResult, add_scaled_, affine, is_clean, scales
from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["DDIM"]


@dataclass(frozen=True, kw_only=True)
class DDIM:
    """z_s = alpha_s x0 + sqrt(sigma_s^2 - tau^2) eps + tau n: the noise that is there, some of it renewed.

    tau = eta sigma_s sqrt(1 - exp(logsnr_t - logsnr_s)) (arXiv 2010.02502, eq. 12 and 16; arXiv 2202.00512,
    section 2). Written in z_t, with eps = (z_t - alpha_t x0) / sigma_t, so that a step to the same time is the
    identity to the bit. First order.

    Args:
        eta: 0 is deterministic, 1 has the noise of the posterior q(z_s | z_t, x0).

    Raises:
        ValueError: eta outside [0, 1].
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 <= self.eta <= 1:
            raise ValueError(f"DDIM got eta={self.eta}; it runs from 0, deterministic, to 1, ancestral")

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
        tau = self.eta * c.sigma_s * (1 - c.kept).clamp(min=0).sqrt()
        ratio = (c.sigma_s**2 - tau**2).sqrt() / c.sigma_t if self.eta > 0 else c.sigma_s / c.sigma_t
        z_s = affine(z_t, ratio, x0, c.alpha_s - c.alpha_t * ratio)
        if self.eta > 0:
            add_scaled_(z_s, draw(z_s), tau)
        return StepResult(z_s, x0, state)
