"""Restart sampling: back up to a noisier level with fresh noise, and down again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from vdm_blocks.diffusion.values import check_numbers
from vdm_blocks.sampling.heun import Heun
from vdm_blocks.sampling.rule import Draw, StepResult, StepRule, renoise
from vdm_blocks.types import Conditioning, Denoiser, Schedule

__all__ = ["Restart"]


@dataclass(frozen=True, kw_only=True)
class Restart:
    """Where the chain reaches `clean_logsnr`: `count` times up to `noisy_logsnr` by noise, and down by `rule`.

    (arXiv 2306.14878.) The fresh noise forgets errors of the steps before. The
    step that contains clean_logsnr is followed by the restarts, which begin and end at its own end.

    Args:
        rule: every step of the chain, in and out of the restarts; the paper's is Heun's.
        noisy_logsnr: how far up; -2 log(sigma / alpha).
        clean_logsnr: where; above `noisy_logsnr`.
        count: how often.
        steps: the steps of each way down, uniform in log-SNR.

    Raises:
        ValueError: levels in the wrong order, or counts below 1.
    """

    rule: StepRule[Any] = field(default_factory=Heun)
    noisy_logsnr: float
    clean_logsnr: float
    count: int = 1
    steps: int = 4

    def __post_init__(self) -> None:
        check_numbers(self)
        if not -math.inf < self.noisy_logsnr < self.clean_logsnr < math.inf:
            raise ValueError(
                f"Restart got noisy_logsnr={self.noisy_logsnr}, clean_logsnr={self.clean_logsnr}; it goes up from the "
                "clean one to the noisy one, which must be lower; both are finite log-SNRs, for example 1 and -2"
            )
        if self.count < 1 or self.steps < 1:
            raise ValueError(f"Restart got count={self.count}, steps={self.steps}; both must be 1 or more")

    def start(self, times: Tensor) -> Any:
        """The state of `rule`."""
        return self.rule.start(times)

    def __call__(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Tensor,
        s: Tensor,
        cond: Conditioning,
        state: Any,
        draw: Draw,
    ) -> StepResult[Any]:
        """One step of the rule, and the restarts if this is the step that they follow."""
        result = self.rule(denoiser, z_t, t, s, cond, state, draw)
        schedule = denoiser.schedule
        at = schedule.time(torch.full_like(s, self.clean_logsnr)).clamp(0, 1)
        if not float(s) <= float(at) < float(t):
            return result
        times = self._down(schedule, s)
        for _ in range(self.count):
            z = renoise(schedule, result.z, s, times[0], draw)
            state = self.rule.start(times)
            for high, low in pairwise(times):
                result = self.rule(denoiser, z, high, low, cond, state, draw)
                z, state = result.z, result.state
        return result

    def _down(self, schedule: Schedule, s: Tensor) -> Tensor:
        """The times from the noisy level down to `s`."""
        noisy = torch.full_like(s, self.noisy_logsnr)
        share = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
        times = schedule.time(noisy + share * (schedule.logsnr(s) - noisy)).clamp(0, 1)
        times[-1] = s
        return times
