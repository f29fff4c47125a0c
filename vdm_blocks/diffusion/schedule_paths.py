"""The schedules that do not preserve variance: straight lines from data to noise, and growing noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vdm_blocks.diffusion.schedules import check_ends, check_range, in_float32, scales_at
from vdm_blocks.diffusion.values import check_numbers

__all__ = ["KarrasSchedule", "RectifiedFlowSchedule"]


@dataclass(frozen=True, kw_only=True)
class RectifiedFlowSchedule:
    """alpha = 1 - t, sigma = t: a straight line from data to noise (arXiv 2209.03003, eq. 1, with t = 1 the noise).

    alpha^2 + sigma^2 is not 1. The log-SNR, 2 log((1 - t) / t), would be infinite at both ends; alpha and sigma
    therefore run from 1 - 3e-7 and 3e-7, where it is logsnr_max and logsnr_min.

    Raises:
        ValueError: a range that is not finite and increasing.

    >>> RectifiedFlowSchedule().alpha_sigma(torch.tensor(0.25))
    (tensor(0.7500), tensor(0.2500))
    """

    logsnr_min: float = -30.0
    logsnr_max: float = 30.0

    def __post_init__(self) -> None:
        check_numbers(self)
        check_range("RectifiedFlowSchedule", self.logsnr_min, self.logsnr_max)

    def _ends(self) -> tuple[float, float, float]:
        low, rest = 1 / (1 + math.exp(0.5 * self.logsnr_max)), 1 / (1 + math.exp(-0.5 * self.logsnr_min))
        return 1 - low - rest, low, rest

    def scales(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """alpha = sigmoid(logsnr / 2), sigma = sigmoid(-logsnr / 2)."""
        alpha = in_float32(lambda x: torch.sigmoid(0.5 * x), logsnr)
        return alpha, in_float32(lambda x: torch.sigmoid(-0.5 * x), logsnr)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """1 - t and t, up to 3e-7 at the ends."""
        length, low, rest = self._ends()
        return in_float32(lambda t: rest + length * (1 - t), t), in_float32(lambda t: low + length * t, t)

    def logsnr(self, t: Tensor) -> Tensor:
        """2 log(alpha / sigma)."""
        length, low, rest = self._ends()
        return in_float32(lambda t: 2 * torch.log((rest + length * (1 - t)) / (low + length * t)), t)

    def time(self, logsnr: Tensor) -> Tensor:
        """1 / (1 + exp(logsnr / 2)), counted from the nearer end."""
        length, low, rest = self._ends()

        def formula(logsnr: Tensor) -> Tensor:
            small = torch.sigmoid(-0.5 * logsnr.abs())
            return torch.where(logsnr > 0, (small - low) / length, 1 - (small - rest) / length)

        return in_float32(formula, logsnr)


@dataclass(frozen=True, kw_only=True)
class KarrasSchedule:
    """EDM's levels: sigma = (sigma_min^(1/rho) + t (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho.

    (arXiv 2206.00364, eq. 5, with t = 1 the noise.)
    Variance exploding: alpha is 1, z_t = x0 + sigma eps, and z_1 has the variance of the data plus sigma_max^2.
    Sampling therefore starts from sigma_max times standard normal noise. `z_t / hypot(1, sigma)` is what a
    variance-preserving schedule of the same log-SNR, -2 log sigma, would give.

    Raises:
        ValueError: levels that are not positive and increasing, or `rho` outside [0.1, 1000].

    >>> KarrasSchedule().alpha_sigma(torch.tensor([0.0, 1.0]))[1]
    tensor([2.0000e-03, 8.0000e+01])
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 < self.sigma_min < self.sigma_max < math.inf or not 0.1 <= self.rho <= 1000:
            raise ValueError(
                f"KarrasSchedule got sigma_min={self.sigma_min}, sigma_max={self.sigma_max}, rho={self.rho}; it "
                "needs 0 < sigma_min < sigma_max and rho from 0.1 to 1000, for example 0.002, 80 and 7"
            )
        check_ends(str(self), -2 * math.log(self.sigma_max), -2 * math.log(self.sigma_min))

    def _ends(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    def scales(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """alpha = 1, sigma = exp(-logsnr / 2)."""
        return torch.ones_like(logsnr), in_float32(lambda x: torch.exp(-0.5 * x), logsnr)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """1 and sigma(t)."""
        return scales_at(self.logsnr, self.scales, t)

    def logsnr(self, t: Tensor) -> Tensor:
        """-2 log sigma."""
        low, high = self._ends()
        return in_float32(lambda t: -2 * self.rho * torch.log(low + t * (high - low)), t)

    def time(self, logsnr: Tensor) -> Tensor:
        """(sigma^(1/rho) - sigma_min^(1/rho)) / (sigma_max^(1/rho) - sigma_min^(1/rho))."""
        low, high = self._ends()
        return in_float32(lambda x: (torch.exp(-x / (2 * self.rho)) - low) / (high - low), logsnr)
