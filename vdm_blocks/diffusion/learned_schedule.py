"""A noise schedule that is learned by making the loss vary less."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vdm_blocks.diffusion.schedules import alpha_sigma_vp, check_range, in_float32, scales_at

__all__ = ["LearnedSchedule"]


class LearnedSchedule(nn.Module):
    """A log-SNR that falls through `bins` straight pieces, whose shares of the time are learned.

    The bound on the likelihood depends on the ends of the log-SNR only, not on the way between them; the way
    decides how much a Monte-Carlo estimate of it varies (arXiv 2107.00630, section 5.1). Piece k
    takes softmax(logits)_k of the time, so the log-SNR falls strictly and its inverse is exact; it starts as a
    straight line. `logits` gets its gradient from `variance_loss` alone, beside or after the network's training: any
    other loss would only move it to the levels that are easy. It may lie on the CPU whatever the network's device is,
    and should when it samples: the times of a sampling loop lie there, and logits on a GPU would be fetched each step.

    Raises:
        ValueError: a range that is not finite and increasing, or no bins.

    >>> schedule = LearnedSchedule(logsnr_min=-10.0, logsnr_max=10.0)
    >>> schedule.logsnr(torch.tensor([0.0, 0.25, 1.0])).tolist()
    [10.0, 5.0, -10.0]
    """

    def __init__(self, *, logsnr_min: float = -20.0, logsnr_max: float = 20.0, bins: int = 64) -> None:
        super().__init__()
        check_range("LearnedSchedule", logsnr_min, logsnr_max)
        if bins < 1:
            raise ValueError(f"LearnedSchedule got bins={bins}; it needs at least 1, and 64 are plenty")
        self.logsnr_min, self.logsnr_max, self.bins = logsnr_min, logsnr_max, bins
        self.logits = nn.Parameter(torch.zeros(bins))

    @property
    def width(self) -> float:
        """How far the log-SNR falls in one piece."""
        return (self.logsnr_max - self.logsnr_min) / self.bins

    def _starts(self, like: Tensor) -> Tensor:
        logits = self.logits.detach().to(device=like.device, dtype=like.dtype)
        starts = torch.cat([logits.new_zeros(1), logits.softmax(dim=0).cumsum(dim=0)])
        return starts / starts[-1]

    def _piece(self, starts: Tensor, t: Tensor) -> Tensor:
        return (torch.searchsorted(starts, t.detach().contiguous(), right=True) - 1).clamp(0, self.bins - 1)

    def logsnr(self, t: Tensor) -> Tensor:
        """The straight piece that `t` falls into, at `t`."""

        def formula(t: Tensor) -> Tensor:
            starts = self._starts(t)
            k = self._piece(starts, t)
            return self.logsnr_max - self.width * (k + (t - starts[k]) / (starts[k + 1] - starts[k]))

        return in_float32(formula, t)

    def time(self, logsnr: Tensor) -> Tensor:
        """The exact inverse, piece by piece."""

        def formula(logsnr: Tensor) -> Tensor:
            starts = self._starts(logsnr)
            place = (self.logsnr_max - logsnr) / self.width
            k = place.detach().floor().long().clamp(0, self.bins - 1)
            return starts[k] + (place - k) * (starts[k + 1] - starts[k])

        return in_float32(formula, logsnr)

    def scales(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """alpha = sqrt(sigmoid(logsnr)), sigma = sqrt(sigmoid(-logsnr))."""
        return alpha_sigma_vp(logsnr)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The variance-preserving scales at time `t`."""
        return scales_at(self.logsnr, self.scales, t)

    def variance_loss(self, t: Tensor, integrand: Tensor) -> Tensor:
        """The second moment of the estimate -dlogsnr/dt * integrand, to be minimised in `logits` alone.

        With times drawn uniformly, E[(integrand * slope)^2] = E[integrand^2 * slope_now * slope], in which
        `slope_now`, the slope that the times were drawn under, and the integrand are constants: no gradient passes
        through the network. It is least where each piece's time is proportional to the integrand's root mean square.

        Args:
            t: the times, drawn uniformly on [0, 1].
            integrand: what is integrated over log-SNR, at those times: 0.5 |eps - eps_hat|^2 for the bound.
        """
        slope = self.width / self.logits.softmax(dim=0)[self._piece(self._starts(t), t)]
        return (integrand.detach().to(slope).square() * slope.detach() * slope).mean()
