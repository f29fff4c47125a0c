"""Noise schedules: log-SNR as a strictly decreasing function of time, its exact inverse, and (alpha, sigma).

z_t = alpha_t x0 + sigma_t eps, logsnr = log(alpha^2 / sigma^2); t = 0 is clean and t = 1 is noise. All of them
are finite on the closed interval [0, 1], in bfloat16 and float16 too: they compute in float32 at least and
return the dtype of their argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from vdm_blocks.diffusion.values import check_numbers, check_value

__all__ = [
    "CosineSchedule",
    "LinearBetaSchedule",
    "LinearLogSNRSchedule",
    "NoiseSchedule",
    "PathSchedule",
    "SigmoidSchedule",
    "VariancePreserving",
    "alpha_sigma_vp",
    "check_ends",
    "check_range",
    "check_time",
    "in_float32",
    "logsnr_slope",
    "scales_at",
]


@runtime_checkable
class NoiseSchedule(Protocol):
    """Log-SNR as a strictly decreasing function of time on [0, 1]."""

    def logsnr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) at time `t`, of any shape."""

    def time(self, logsnr: Tensor) -> Tensor:
        """The exact inverse of `logsnr`."""

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal scale and noise scale at time `t`."""


def in_float32(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`fn` of `x`, computed in float32 at least and returned in the dtype of `x`."""
    wide = x if x.dtype == torch.float64 else x.float()
    out = fn(wide)
    return out.to(x.dtype) if x.is_floating_point() else out


def alpha_sigma_vp(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    """The variance-preserving scales: alpha^2 = sigmoid(logsnr), sigma^2 = sigmoid(-logsnr).

    >>> alpha, sigma = alpha_sigma_vp(torch.tensor(0.0))
    >>> round(float(alpha**2), 6), round(float(sigma**2), 6)
    (0.5, 0.5)
    """
    alpha = in_float32(lambda x: torch.sigmoid(x).sqrt(), logsnr)
    return alpha, in_float32(lambda x: torch.sigmoid(-x).sqrt(), logsnr)


def scales_at(
    logsnr: Callable[[Tensor], Tensor], scales: Callable[[Tensor], tuple[Tensor, Tensor]], t: Tensor
) -> tuple[Tensor, Tensor]:
    """`scales(logsnr(t))`, without rounding the log-SNR to a short dtype on the way."""
    alpha, sigma = scales(logsnr(t if t.dtype == torch.float64 else t.float()))
    return (alpha.to(t.dtype), sigma.to(t.dtype)) if t.is_floating_point() else (alpha, sigma)


def logsnr_slope(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """d logsnr / dt at `t`, negative everywhere; a constant to any gradient.

    >>> logsnr_slope(LinearLogSNRSchedule(logsnr_min=-10.0, logsnr_max=10.0), torch.tensor(0.3))
    tensor(-20.)
    """
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        (slope,) = torch.autograd.grad(schedule.logsnr(t).sum(), t)
    return slope


def check_time(t: Tensor) -> None:
    """Refuse times outside [0, 1], on the CPU; on a device it would have to be waited for.

    Raises:
        ValueError: what is no tensor; a time below 0 or above 1, or not a number.

    >>> check_time(torch.tensor(500.0))
    Traceback (most recent call last):
    ...
    ValueError: t is 500.0; times run from 0, clean, to 1, noise: divide a step's number by the number of steps
    """
    check_value("t", t, Tensor, "a tensor of shape (), (B,) or (B, T): torch.tensor(0.5)")
    if t.device.type == "cpu" and not bool(((t >= 0) & (t <= 1)).all()):
        wrong = t[~((t >= 0) & (t <= 1))].flatten()[0]
        raise ValueError(
            f"t is {float(wrong):.4}; times run from 0, clean, to 1, noise: divide a step's number by the number "
            "of steps"
        )


def check_range(name: str, logsnr_min: float, logsnr_max: float) -> None:
    """Refuse a log-SNR range that is empty, upside down, infinite, or out of float32's reach."""
    if not -_FARTHEST <= logsnr_min <= logsnr_max - _SHORTEST or not logsnr_max <= _FARTHEST:
        raise ValueError(
            f"{name} got logsnr_min={logsnr_min}, logsnr_max={logsnr_max}; both must be finite, the minimum "
            "(noise, t=1) at least 1e-6 below the maximum (clean, t=0), for example -20 and 20, and neither beyond "
            "-80 or 80, where float32 has no alpha or sigma left"
        )


def check_ends(what: str, noisy: float, clean: float) -> None:
    """Refuse a schedule whose numbers make its log-SNR too short, too long or not a number."""
    if not -_FARTHEST <= noisy <= clean - _SHORTEST or not clean <= _FARTHEST:
        raise ValueError(
            f"the log-SNR of {what} would run from {clean:.4g}, clean, to {noisy:.4g}, noise; it must fall by 1e-6 at "
            "least and stay between -80 and 80, beyond which float32 has no alpha or sigma left"
        )


_SHORTEST, _FARTHEST = 1e-6, 80.0


@runtime_checkable
class PathSchedule(NoiseSchedule, Protocol):
    """A schedule whose scales follow from the log-SNR alone, so that other log-SNRs fit on its path."""

    def scales(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) on this path at `logsnr`."""


class VariancePreserving:
    """The path of the schedules with alpha^2 + sigma^2 = 1."""

    def logsnr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) at time `t`, of any shape."""
        raise NotImplementedError

    def scales(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """alpha = sqrt(sigmoid(logsnr)), sigma = sqrt(sigmoid(-logsnr))."""
        return alpha_sigma_vp(logsnr)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The scales at time `t`, in its dtype."""
        return scales_at(self.logsnr, self.scales, t)


@dataclass(frozen=True, kw_only=True)
class CosineSchedule(VariancePreserving):
    """logsnr = -2 log tan(a t + b): alpha runs as cos(pi t / 2), cut off where the log-SNR leaves its range.

    b = atan(exp(-logsnr_max / 2)), a = atan(exp(-logsnr_min / 2)) - b (arXiv 2102.09672, eq. 17, made
    continuous as in arXiv 2202.00512).

    Raises:
        ValueError: a range that is not finite and increasing.

    >>> CosineSchedule().logsnr(torch.tensor([0.0, 0.5, 1.0]))
    tensor([ 20.,   0., -20.])
    """

    logsnr_min: float = -20.0
    logsnr_max: float = 20.0

    def __post_init__(self) -> None:
        check_numbers(self)
        check_range("CosineSchedule", self.logsnr_min, self.logsnr_max)

    def _angles(self) -> tuple[float, float, float]:
        b = math.atan(math.exp(-0.5 * self.logsnr_max))
        rest = math.atan(math.exp(0.5 * self.logsnr_min))
        return math.pi / 2 - rest - b, b, rest

    def logsnr(self, t: Tensor) -> Tensor:
        """-2 log tan(a t + b), its upper half from the complement of the angle, which does not cancel."""
        a, b, rest = self._angles()

        def formula(t: Tensor) -> Tensor:
            clean = -2 * torch.tan(a * t + b).log()
            noisy = 2 * torch.tan(a * (1 - t) + rest).log()
            return torch.where(t < 0.5, clean, noisy)

        return in_float32(formula, t)

    def time(self, logsnr: Tensor) -> Tensor:
        """(atan(exp(-logsnr / 2)) - b) / a."""
        a, b, rest = self._angles()

        def formula(logsnr: Tensor) -> Tensor:
            small = torch.atan(torch.exp(-0.5 * logsnr.abs()))
            return torch.where(logsnr > 0, (small - b) / a, 1 - (small - rest) / a)

        return in_float32(formula, logsnr)


@dataclass(frozen=True, kw_only=True)
class LinearLogSNRSchedule(VariancePreserving):
    """logsnr falls in a straight line (a fixed schedule of arXiv 2107.00630)."""

    logsnr_min: float = -20.0
    logsnr_max: float = 20.0

    def __post_init__(self) -> None:
        check_numbers(self)
        check_range("LinearLogSNRSchedule", self.logsnr_min, self.logsnr_max)

    def logsnr(self, t: Tensor) -> Tensor:
        """logsnr_max + t (logsnr_min - logsnr_max)."""
        return in_float32(lambda t: self.logsnr_max + t * (self.logsnr_min - self.logsnr_max), t)

    def time(self, logsnr: Tensor) -> Tensor:
        """(logsnr_max - logsnr) / (logsnr_max - logsnr_min)."""
        return in_float32(lambda x: (self.logsnr_max - x) / (self.logsnr_max - self.logsnr_min), logsnr)


@dataclass(frozen=True, kw_only=True)
class LinearBetaSchedule(VariancePreserving):
    """The linear betas of DDPM in continuous time: alpha^2 = exp(-B).

    B = offset + beta_min t + (beta_max - beta_min) t^2 / 2
    (arXiv 2011.13456, appendix C.) `offset` keeps the log-SNR finite at t = 0, where it is about -log(offset).

    Raises:
        ValueError: betas or an offset that would not make it fall.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    offset: float = 1e-4

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 <= self.beta_min < self.beta_max < math.inf or not 0 < self.offset < math.inf:
            raise ValueError(
                f"LinearBetaSchedule got beta_min={self.beta_min}, beta_max={self.beta_max}, "
                f"offset={self.offset}; it needs 0 <= beta_min < beta_max and offset > 0, for example 0.1, "
                "20 and 1e-4"
            )
        first, last = self.offset, self.offset + 0.5 * (self.beta_min + self.beta_max)
        noisy, clean = (-b - math.log(-math.expm1(-b)) for b in (last, first))
        check_ends(str(self), noisy, clean)

    def logsnr(self, t: Tensor) -> Tensor:
        """-log(exp(B) - 1)."""

        def formula(t: Tensor) -> Tensor:
            b = self.offset + self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2
            return -b - torch.log(-torch.expm1(-b))

        return in_float32(formula, t)

    def time(self, logsnr: Tensor) -> Tensor:
        """The positive root of B(t) = log(1 + exp(-logsnr))."""

        def formula(logsnr: Tensor) -> Tensor:
            rest = (F.softplus(-logsnr, threshold=100) - self.offset).clamp(min=0)
            root = (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * rest).sqrt()
            return 2 * rest / (self.beta_min + root).clamp(min=torch.finfo(rest.dtype).tiny)

        return in_float32(formula, logsnr)


@dataclass(frozen=True, kw_only=True)
class SigmoidSchedule(VariancePreserving):
    """alpha^2 = (S(end) - S(u)) / (S(end) - S(start)), S the sigmoid and u from start / tau to end / tau.

    (arXiv 2212.11972.) The formula is infinite at both ends of time, so u keeps to the part of
    its range where the log-SNR lies within [logsnr_min, logsnr_max].

    Raises:
        ValueError: start not below end, tau not positive, or a bad log-SNR range.
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0
    logsnr_min: float = -20.0
    logsnr_max: float = 20.0

    def __post_init__(self) -> None:
        check_numbers(self)
        check_range("SigmoidSchedule", self.logsnr_min, self.logsnr_max)
        far = 20 * self.tau
        if not (0 < self.tau < math.inf and -far <= self.start <= self.end - 1e-3 * self.tau <= far):
            raise ValueError(
                f"SigmoidSchedule got start={self.start}, end={self.end}, tau={self.tau}; it needs tau > 0, and "
                "start / tau and end / tau from -20 to 20, the first lower by 1e-3 at least, for example -3, 3 and 1"
            )

    def _distance(self, log_odds: Tensor) -> tuple[Tensor, Tensor]:
        """u - start / tau and end / tau - u, where alpha^2 = sigmoid(log_odds); neither is a difference."""
        s, e = self.start / self.tau, self.end / self.tau
        gap = _sigmoid(e) - _sigmoid(s)
        q, p = torch.sigmoid(-log_odds) * gap, torch.sigmoid(log_odds) * gap
        from_start = torch.log1p(q / _sigmoid(s)) - torch.log1p(-q / _sigmoid(-s))
        from_end = torch.log1p(p / _sigmoid(-e)) - torch.log1p(-p / _sigmoid(e))
        return from_start, from_end

    def _ends(self) -> tuple[float, float, float]:
        low = float(self._distance(torch.tensor(self.logsnr_max, dtype=torch.float64, device="cpu"))[0])
        high = float(self._distance(torch.tensor(self.logsnr_min, dtype=torch.float64, device="cpu"))[1])
        return (self.end - self.start) / self.tau - low - high, low, high

    def logsnr(self, t: Tensor) -> Tensor:
        """log((S(end) - S(u)) / (S(u) - S(start))), each difference as a product."""
        length, low, high = self._ends()
        s, e = self.start / self.tau, self.end / self.tau
        constant = math.log(_sigmoid(e) / _sigmoid(-s))

        def formula(t: Tensor) -> Tensor:
            from_start, from_end = low + length * t, high + length * (1 - t)
            return (
                constant - (s + from_start) + torch.log(-torch.expm1(-from_end) / -torch.expm1(-from_start))
            )

        return in_float32(formula, t)

    def time(self, logsnr: Tensor) -> Tensor:
        """The position of u in its range, counted from the nearer end."""
        length, low, high = self._ends()

        def formula(logsnr: Tensor) -> Tensor:
            from_start, from_end = self._distance(logsnr)
            return torch.where(logsnr > 0, (from_start - low) / length, 1 - (from_end - high) / length)

        return in_float32(formula, logsnr)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
