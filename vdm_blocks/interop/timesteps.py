"""Between N numbered timesteps, as diffusers counts them, and our continuous time.

Timestep k = 0 .. N - 1 is time t = (k + 1) / N, so that t = 1 is the noisiest timestep and t = 0 lies one step
below timestep 0, where diffusers puts its clean end too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vdm_blocks.diffusion.schedules import NoiseSchedule, VariancePreserving, in_float32
from vdm_blocks.diffusion.values import check_numbers

__all__ = ["TimestepSchedule", "betas_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TimestepSchedule(VariancePreserving):
    """The schedule of a model that was trained at N numbered timesteps: log-SNR in straight lines between them.

    Args:
        alphas_cumprod: (N,) alpha^2 at each timestep, as diffusers' schedulers have it under this name.
        logsnr_min: the lowest log-SNR there is; a schedule that ends in pure noise (alpha = 0) ends here.

    Raises:
        ValueError: a table that does not fall from below 1 to 0 or above.

    >>> schedule = TimestepSchedule(alphas_cumprod=torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64))
    >>> alpha, _ = schedule.alpha_sigma(schedule.at(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)))
    >>> [round(a, 6) for a in (alpha**2).tolist()]
    [0.9, 0.5, 0.1]
    """

    alphas_cumprod: Tensor
    logsnr_min: float = -20.0

    def __post_init__(self) -> None:
        check_numbers(self)
        table = self.alphas_cumprod
        if table.ndim != 1 or len(table) < 2:
            raise ValueError(
                f"alphas_cumprod has shape {tuple(table.shape)}; it must be (N,) with N at least 2"
            )
        falls = bool((table.diff() < 0).all()) and float(table[-1]) >= 0 and float(table[0]) < 1
        if not falls or not bool((self._knots().diff() < 0).all()):
            raise ValueError(
                f"alphas_cumprod runs from {float(table[0]):.4g} to {float(table[-1]):.4g}; it must fall at every "
                f"timestep, begin below 1 and have a log-SNR above logsnr_min={self.logsnr_min} before its end"
            )

    @property
    def count(self) -> int:
        """N, the number of timesteps."""
        return len(self.alphas_cumprod)

    def at(self, timestep: Tensor) -> Tensor:
        """The time of a timestep, whole or between two: (k + 1) / N."""
        return (timestep + 1) / self.count

    def timestep(self, t: Tensor) -> Tensor:
        """The timestep of a time: N t - 1, -1 at the clean end."""
        return t * self.count - 1

    def logsnr(self, t: Tensor) -> Tensor:
        """Log-SNR at `t`, of any shape."""
        knots = self._knots().to(t.device)

        def formula(t: Tensor) -> Tensor:
            index = (t * self.count).floor().clamp(0, self.count - 1).long()
            return torch.lerp(knots.to(t)[index], knots.to(t)[index + 1], t * self.count - index)

        return in_float32(formula, t)

    def time(self, logsnr: Tensor) -> Tensor:
        """The exact inverse of `logsnr`."""
        knots = self._knots().to(logsnr.device)

        def formula(logsnr: Tensor) -> Tensor:
            table = knots.to(logsnr)
            index = (
                torch.searchsorted(-table, -logsnr.contiguous(), right=True).sub(1).clamp(0, self.count - 1)
            )
            return (index + (logsnr - table[index]) / (table[index + 1] - table[index])) / self.count

        return in_float32(formula, logsnr)

    def _knots(self) -> Tensor:
        """Log-SNR at t = 0, 1/N, .., 1; the first is on the line through the next two."""
        alpha2 = self.alphas_cumprod.detach().double().cpu()
        inside = torch.special.logit(alpha2).clamp(min=self.logsnr_min)
        return torch.cat([2 * inside[:1] - inside[1:2], inside])


def betas_of(schedule: NoiseSchedule, count: int = 1000) -> Tensor:
    """The betas (N,) float64 with which a diffusers scheduler has this schedule, for its `trained_betas`.

    beta_k = 1 - alpha_k^2 / alpha_(k-1)^2, alpha_(-1) = 1, at the times (k + 1) / N.

    Raises:
        ValueError: fewer than two timesteps.

    >>> from vdm_blocks.diffusion.schedules import CosineSchedule
    >>> kept = (1 - betas_of(CosineSchedule(), 4)).cumprod(0)
    >>> [round(float(a), 4) for a in kept[:3]]  # cos^2 of 1/4, 2/4 and 3/4 of a right angle
    [0.8535, 0.5, 0.1465]
    """
    if count < 2:
        raise ValueError(
            f"count is {count}; a diffusers scheduler needs at least 2 timesteps, most have 1000"
        )
    t = torch.arange(1, count + 1, dtype=torch.float64) / count
    alpha, sigma = schedule.alpha_sigma(t)
    alpha2 = alpha**2 / (alpha**2 + sigma**2)
    return 1 - alpha2 / torch.cat([torch.ones(1, dtype=torch.float64), alpha2[:-1]])
