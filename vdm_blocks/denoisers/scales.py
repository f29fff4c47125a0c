"""Guidance scales as functions of the noise level. 1 is off: the conditional estimate as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Protocol

import torch
from torch import Tensor

from vdm_blocks.diffusion.values import check_numbers, check_value

__all__ = [
    "Constant",
    "Interval",
    "OfLogSNR",
    "Oscillating",
    "Scale",
    "as_scale",
    "guidance_scale_from_paper",
]


class Scale(Protocol):
    """A guidance scale for every noise level."""

    def __call__(self, t: Tensor, logsnr: Tensor) -> Tensor:
        """The scale at time `t`, whose log-SNR is `logsnr`; of their shape, (), (B,) or (B, T)."""


def guidance_scale_from_paper(w: float) -> float:
    """Our scale for the weight w of x = (1 + w) x_cond - w x_uncond (arXiv 2210.02303, section 2.6): 1 + w.

    >>> guidance_scale_from_paper(0.0)  # both mean: no guidance
    1.0
    """
    return 1.0 + w


@dataclass(frozen=True, kw_only=True)
class Constant:
    """The same scale everywhere.

    Raises:
        ValueError: a scale that is not finite.
    """

    scale: float

    def __post_init__(self) -> None:
        check_numbers(self)
        _check_finite("Constant", scale=self.scale)

    def __call__(self, t: Tensor, logsnr: Tensor) -> Tensor:  # noqa: ARG002
        """`scale`."""
        return torch.full_like(logsnr, self.scale)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """`scale` where low_logsnr <= logsnr < high_logsnr, and no guidance elsewhere (arXiv 2404.07724).

    That paper's interval (sigma_lo, sigma_hi] is low_logsnr = -2 log(sigma_hi), high_logsnr = -2
    log(sigma_lo).

    Raises:
        ValueError: an empty interval, or a scale that is not finite.
    """

    scale: float | Scale
    low_logsnr: float = -math.inf
    high_logsnr: float = math.inf

    def __post_init__(self) -> None:
        check_numbers(self)
        if not self.low_logsnr < self.high_logsnr:
            raise ValueError(
                f"Interval got low_logsnr={self.low_logsnr}, high_logsnr={self.high_logsnr}; "
                "the low one, which is the noisier, must be below the high one"
            )
        as_scale(self.scale)

    def __call__(self, t: Tensor, logsnr: Tensor) -> Tensor:
        """The scale inside, 1 outside."""
        inside = (logsnr >= self.low_logsnr) & (logsnr < self.high_logsnr)
        return torch.where(inside, as_scale(self.scale)(t, logsnr), 1.0)


@dataclass(frozen=True, kw_only=True)
class OfLogSNR:
    """Any function of the log-SNR.

    >>> ramp = OfLogSNR(function=lambda logsnr: 1 + 5 * torch.sigmoid(-logsnr))
    >>> ramp(torch.tensor(0.5), torch.tensor(0.0))
    tensor(3.5000)
    """

    function: Callable[[Tensor], Tensor]

    def __call__(self, t: Tensor, logsnr: Tensor) -> Tensor:  # noqa: ARG002
        """`function(logsnr)`."""
        return self.function(logsnr)


@dataclass(frozen=True, kw_only=True)
class Oscillating:
    """Oscillating guidance: `high` for the first steps, then low and high in turn.

    (arXiv 2210.02303, section 2.6.) The paper gives 15 and 1, for the base model and the first two
    super-resolution models; whether these are its w or 1 + w it does not say (`guidance_scale_from_paper`
    converts). How many steps are constant and which of the two comes first then is not published: `constant`
    and `phase` say it here.

    It holds nothing but numbers: the step is found from `t`. An evaluation between two times of the grid
    belongs to the step that it lies in, and one at a time of the grid to the step that starts there.

    Attributes:
        high: the scale of the first steps and of every second one after them.
        low: the scale of the others; 1 saves their second evaluation.
        times: the sampling grid, falling, N + 1 entries; a tensor is stored as a tuple of floats.
        constant: the share of the N steps, from the first, that are all `high`.
        phase: 0 makes the first step after them low, 1 makes it high.

    Raises:
        ValueError: a grid that does not fall, a share outside [0, 1], or another phase.

    >>> scale = Oscillating(high=15.0, low=1.0, times=[1.0, 0.8, 0.6, 0.4, 0.2, 0.0], constant=0.4)
    >>> [scale(t, t).item() for t in torch.tensor([1.0, 0.8, 0.6, 0.5, 0.4, 0.2])]
    [15.0, 15.0, 1.0, 1.0, 15.0, 1.0]
    """

    high: float = 15.0
    low: float = 1.0
    times: Sequence[float] | Tensor
    constant: float = 0.1
    phase: int = 0

    def __post_init__(self) -> None:
        check_numbers(self)
        _check_finite("Oscillating", high=self.high, low=self.low)
        check_value("times", self.times, (Sequence, Tensor), "the sampling grid, such as uniform_times(8)")
        times = tuple(torch.as_tensor(self.times, dtype=torch.float64).tolist())
        if len(times) < 2 or any(not t > s for t, s in pairwise(times)):
            raise ValueError(
                "Oscillating needs the sampling grid itself: two times or more, falling from 1 to 0"
            )
        if not 0 <= self.constant <= 1:
            raise ValueError(f"Oscillating got constant={self.constant}; it is a share of the steps, 0 to 1")
        if self.phase not in (0, 1):
            raise ValueError(f"Oscillating got phase={self.phase}; 0 continues with low, 1 with high")
        object.__setattr__(self, "times", times)

    def __call__(self, t: Tensor, logsnr: Tensor) -> Tensor:
        """`high` or `low`."""
        ascending = torch.as_tensor(self.times, dtype=torch.float64, device=t.device).flip(0)
        slack = 0.0 if t.dtype == torch.float64 else torch.finfo(t.dtype).eps
        count = len(ascending) - 1
        step = count - torch.searchsorted(ascending, t.double() - slack).clamp(1, count)
        first = math.ceil(self.constant * count)
        is_low = (step >= first) & ((step - first + self.phase) % 2 == 0)
        return torch.full_like(logsnr, self.high).masked_fill(is_low, self.low)


def as_scale(scale: float | Scale) -> Scale:
    """A number as a constant scale; a scale as it is.

    Raises:
        ValueError: neither of the two.
    """
    if isinstance(scale, Real):
        return Constant(scale=float(scale))
    if isinstance(scale, (Tensor, type)) or not callable(scale):
        raise ValueError(
            f"scale={scale!r} is neither a number nor a Scale; give 6.0, say, or Oscillating(times=...). For one per "
            "sample give OfLogSNR(function=lambda logsnr: scales)"
        )
    return scale


def _check_finite(name: str, **values: float) -> None:
    for key, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} got {key}={value}; a guidance scale is a finite number, and 1 is off")
