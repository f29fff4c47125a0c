"""Schedules made from other schedules: shifted to a resolution, interpolated, or ended at zero SNR."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vdm_blocks.diffusion.schedules import (
    NoiseSchedule,
    PathSchedule,
    VariancePreserving,
    check_ends,
    in_float32,
    scales_at,
)
from vdm_blocks.diffusion.values import check_numbers

__all__ = ["InterpolatedSchedule", "ShiftedSchedule", "ZeroTerminalSNRSchedule", "invert_decreasing"]


def invert_decreasing(fn: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """The t in [0, 1] with fn(t) = value, for a strictly decreasing `fn`, by bisection to the last bit."""
    low, high = torch.zeros_like(value), torch.ones_like(value)
    for _ in range(70 if value.dtype == torch.float64 else 40):
        middle = 0.5 * (low + high)
        above = fn(middle) > value
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return torch.where(fn(high) >= value, high, low)


@dataclass(frozen=True, kw_only=True)
class ShiftedSchedule:
    """logsnr = base + 2 log(reference / resolution): more noise for more pixels (arXiv 2301.11093).

    Neighbouring pixels repeat each other, so at twice the side the same level hides half as much. On the straight
    path this is t' = k t / (1 + (k - 1) t) with k = resolution / reference.

    Attributes:
        base: whose path, and whose log-SNR at the reference.
        resolution: the side of the video in pixels.
        reference: the side at which `base` is right.

    Raises:
        ValueError: a side that is not positive.

    >>> from vdm_blocks.diffusion.schedules import CosineSchedule
    >>> ShiftedSchedule(base=CosineSchedule(), resolution=128).logsnr(torch.tensor(0.5))  # 2 log(1 / 2)
    tensor(-1.3863)
    """

    base: PathSchedule
    resolution: float
    reference: float = 64

    def __post_init__(self) -> None:
        check_numbers(self)
        if not (0 < self.resolution < math.inf and 0 < self.reference < math.inf):
            raise ValueError(
                f"ShiftedSchedule got resolution={self.resolution}, reference={self.reference}; both are sides in "
                "pixels and must be positive"
            )
        check_ends(f"ShiftedSchedule, shifted by {self.shift:.4g},", *_end_levels(self))

    @property
    def shift(self) -> float:
        """What is added to the log-SNR."""
        return 2 * math.log(self.reference / self.resolution)

    def logsnr(self, t: Tensor) -> Tensor:
        """base + shift."""
        return self.base.logsnr(t) + self.shift

    def time(self, logsnr: Tensor) -> Tensor:
        """The base's time at logsnr - shift."""
        return self.base.time(logsnr - self.shift)

    def scales(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the base's path."""
        return self.base.scales(logsnr)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The base's path at the shifted log-SNR."""
        return scales_at(self.logsnr, self.scales, t)


@dataclass(frozen=True, kw_only=True)
class InterpolatedSchedule:
    """logsnr = base + 2 (1 - t) log(low / resolution) + 2 t log(high / resolution) (arXiv 2301.11093).

    Shifted as from side `low` where it is clean and as from side `high` where it is noisy, so that fine detail
    gets noise of its own. The inverse is found by bisection, to the last bit, and carries no gradient.

    Raises:
        ValueError: sides that are not positive, or so far apart that the log-SNR would rise somewhere.
    """

    base: PathSchedule
    resolution: float
    low: float = 32
    high: float = 256

    def __post_init__(self) -> None:
        check_numbers(self)
        if not all(0 < side < math.inf for side in (self.resolution, self.low, self.high)):
            raise ValueError(
                f"InterpolatedSchedule got resolution={self.resolution}, low={self.low}, high={self.high}; all are "
                "sides in pixels and must be positive"
            )
        t = torch.linspace(0, 1, 2049, dtype=torch.float64, device="cpu")
        if not bool((self.logsnr(t).diff() < 0).all()):
            raise ValueError(
                f"InterpolatedSchedule from low={self.low} to high={self.high} does not fall everywhere; bring the "
                "two closer together (on a cosine their ratio must stay below 23)"
            )
        check_ends("InterpolatedSchedule", *_end_levels(self))

    def logsnr(self, t: Tensor) -> Tensor:
        """The base's, shifted by more where it is cleaner."""
        low, high = 2 * math.log(self.low / self.resolution), 2 * math.log(self.high / self.resolution)
        return in_float32(lambda t: self.base.logsnr(t) + low + t * (high - low), t)

    def time(self, logsnr: Tensor) -> Tensor:
        """The inverse, by bisection."""
        return in_float32(lambda x: invert_decreasing(self.logsnr, x), logsnr)

    def scales(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the base's path."""
        return self.base.scales(logsnr)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The base's path at the interpolated log-SNR."""
        return scales_at(self.logsnr, self.scales, t)


@dataclass(frozen=True, kw_only=True)
class ZeroTerminalSNRSchedule(VariancePreserving):
    """`base` with alpha stretched to end at 0: alpha <- (alpha - alpha_1) alpha_0 / (alpha_0 - alpha_1).

    (arXiv 2305.08891, algorithm 1.) At t = 1, z is noise and nothing else: alpha is exactly 0 and sigma 1. The
    log-SNR there would be -inf, which no network takes, so `logsnr` ends at `logsnr_min`, and before the end alpha
    is stretched towards exp(logsnr_min / 2), about 5e-5, instead of 0. Predict V, X0 or FLOW: where alpha is 0 the
    noise says nothing of x0, and `ModelDenoiser` refuses EPS and SCORE.

    Raises:
        ValueError: `logsnr_min` not below where `base` ends.

    >>> from vdm_blocks.diffusion.schedules import LinearBetaSchedule
    >>> ZeroTerminalSNRSchedule(base=LinearBetaSchedule()).alpha_sigma(torch.tensor(1.0))
    (tensor(0.), tensor(1.))
    """

    base: NoiseSchedule
    logsnr_min: float = -20.0

    def __post_init__(self) -> None:
        check_numbers(self)
        end, first = _end_levels(self.base)
        if not -math.inf < self.logsnr_min < end:
            raise ValueError(
                f"ZeroTerminalSNRSchedule got logsnr_min={self.logsnr_min}, but its base ends at {end:.4g}; it must be "
                "finite and lower, for example -20 under a base that ends at -10"
            )
        check_ends("ZeroTerminalSNRSchedule", self.logsnr_min, first)

    def _stretch(self) -> tuple[float, float, float, float]:
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device="cpu")
        first, last = self.base.logsnr(ends).detach().tolist()
        alpha_first, alpha_last, floor = (_sigmoid(x) ** 0.5 for x in (first, last, self.logsnr_min))
        rest_first = _sigmoid(-first) / (1 + alpha_first)
        return (alpha_first - floor) / (alpha_first - alpha_last), alpha_last, floor, rest_first

    def logsnr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / (1 - alpha^2)) of the stretched alpha, with 1 - alpha carried beside alpha."""
        k, alpha_last, floor, rest_first = self._stretch()

        def formula(t: Tensor) -> Tensor:
            alpha, rest = _alpha_and_rest(self.base.logsnr(t))
            alpha, rest = floor + k * (alpha - alpha_last), rest_first + k * (rest - rest_first)
            return 2 * alpha.log() - rest.log() - torch.log1p(alpha)

        return in_float32(formula, t)

    def time(self, logsnr: Tensor) -> Tensor:
        """The stretch undone, then the base's inverse."""
        k, alpha_last, floor, rest_first = self._stretch()

        def formula(logsnr: Tensor) -> Tensor:
            alpha, rest = _alpha_and_rest(logsnr)
            alpha, rest = alpha_last + (alpha - floor) / k, rest_first + (rest - rest_first) / k
            return self.base.time(2 * alpha.log() - rest.log() - torch.log1p(alpha))

        return in_float32(formula, logsnr)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The stretched scales; 0 and 1 at t = 1."""
        alpha, sigma = super().alpha_sigma(t)
        return torch.where(t < 1, alpha, 0.0), torch.where(t < 1, sigma, 1.0)


def _end_levels(schedule: NoiseSchedule) -> tuple[float, float]:
    """The log-SNR at t = 1 and at t = 0."""
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64, device="cpu")
    noisy, clean = schedule.logsnr(ends).detach().tolist()
    return noisy, clean


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _alpha_and_rest(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    alpha = torch.sigmoid(logsnr).sqrt()
    return alpha, torch.sigmoid(-logsnr) / (1 + alpha)
