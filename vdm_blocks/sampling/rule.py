"""What a step rule is, and the arithmetic that all of them share.

A rule moves z_t to z_s, 0 <= s < t <= 1, with a denoiser's help. It is a value: it changes none of its
arguments and keeps nothing between calls; a multistep rule's history is a state that it takes and gives back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from vdm_blocks.types import Conditioning, Denoiser, Schedule

__all__ = [
    "Draw",
    "Scales",
    "StepResult",
    "StepRule",
    "add_scaled_",
    "affine",
    "is_clean",
    "renoise",
    "scales",
]

State = TypeVar("State")

Draw = Callable[[Tensor], Tensor]
"""Standard normal noise shaped like its argument, fresh at every call."""


@dataclass(frozen=True)
class StepResult(Generic[State]):
    """Where a step led.

    Attributes:
        z: z_s, a new tensor of z_t's shape and dtype.
        x0: the estimate of the clean video that led there.
        state: what the rule wants to be given at the next step.
    """

    z: Tensor
    x0: Tensor
    state: State


@runtime_checkable
class StepRule(Protocol[State]):
    """The contract of a step rule, ours or yours."""

    def start(self, times: Tensor) -> State:
        """The state before the first step of the whole grid `times`; one that does not fit is refused here."""

    def __call__(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Tensor,
        s: Tensor,
        cond: Conditioning,
        state: State,
        draw: Draw,
    ) -> StepResult[State]:
        """From z_t to z_s; `t` and `s` are 0-d float64 CPU tensors. A step to s = 0 gives x0 itself."""


@dataclass(frozen=True)
class Scales:
    """Signal and noise scales at both ends of a step, 0-d."""

    alpha_t: Tensor
    sigma_t: Tensor
    alpha_s: Tensor
    sigma_s: Tensor

    @property
    def kept(self) -> Tensor:
        """exp(logsnr_t - logsnr_s), the share of z_s's log-SNR ratio that z_t has; 0 from pure noise."""
        return (self.alpha_t * self.sigma_s / (self.sigma_t * self.alpha_s)) ** 2

    @property
    def half_step(self) -> Tensor:
        """Half the rise in log-SNR, h = log((alpha_s sigma_t) / (sigma_s alpha_t)); inf from pure noise."""
        return torch.log(self.alpha_s * self.sigma_t) - torch.log(self.sigma_s * self.alpha_t)


def scales(schedule: Schedule, t: Tensor, s: Tensor) -> Scales:
    """The scales of `schedule` at `t` and `s`."""
    return Scales(*schedule.alpha_sigma(t), *schedule.alpha_sigma(s))


def is_clean(s: Tensor) -> bool:
    """Whether a step to `s` ends the chain: time 0 is the clean video by definition."""
    return float(s) == 0.0


def add_scaled_(out: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    """Add scale * x to `out` in place, without a temporary or a wait for the device; `scale` is 0-d."""
    if scale.device.type == "cpu":
        return out.add_(x, alpha=float(scale))
    return out.addcmul_(x, scale.to(x.dtype))


def affine(z_t: Tensor, a: Tensor, x0: Tensor, b: Tensor) -> Tensor:
    """Sum a z_t + b x0 as one new tensor of z_t's dtype; `a` and `b` are 0-d.

    >>> affine(torch.ones(2), torch.tensor(0.5), torch.ones(2), torch.tensor(2.0))
    tensor([2.5000, 2.5000])
    """
    return add_scaled_(z_t * a, x0, b)


def renoise(schedule: Schedule, z_s: Tensor, s: Tensor, t: Tensor, draw: Draw) -> Tensor:
    """A draw from q(z_t | z_s), s <= t (arXiv 2204.03458, section 2).

    Its mean is (alpha_t / alpha_s) z_s, its variance (1 - exp(logsnr_t - logsnr_s)) sigma_t^2.
    """
    c = scales(schedule, t, s)
    z_t = z_s * (c.alpha_t / c.alpha_s)
    return add_scaled_(z_t, draw(z_t), c.sigma_t * (1 - c.kept).clamp(min=0).sqrt())
