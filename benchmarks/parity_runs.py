"""One chain of ours and one of diffusers on the same data from the same noise, for `parity.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.parity_data import Data, DataDenoiser
from vdm_blocks.sampling import StepInfo, StepRule, sample
from vdm_blocks.types import Conditioning, Schedule

Told = Callable[[Tensor], None]
"""What is told z after each step."""


def noise() -> torch.Generator:
    """The steps' noise, the same for both sides."""
    return torch.Generator().manual_seed(1)


def run_ours(
    data: Data, rule: StepRule[Any], schedule: Schedule, times: Tensor, told: Told | None = None
) -> Tensor:
    """Samples of `rule` on a grid."""
    z = data.start(*schedule.alpha_sigma(times[0]))

    def tell(info: StepInfo) -> None:
        if told is not None:
            told(info.z)

    denoiser = DataDenoiser(data, schedule)
    return sample(denoiser, rule, times, z, Conditioning(), generator=noise(), on_step=tell)


def widen(scheduler: Any) -> None:
    """Give a diffusers scheduler, whose timesteps are set, its tables in float64."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    if "sigmas" in vars(scheduler):
        levels = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
        nearest = levels[(scheduler.sigmas.double()[:, None] - levels).abs().argmin(1)]
        scheduler.sigmas = torch.where(scheduler.sigmas == 0, 0.0, nearest)


def run_diffusers(
    data: Data, scheduler: Any, options: Callable[[], dict[str, Any]] = dict, told: Told | None = None
) -> Tensor:
    """Samples of a scheduler whose model predicts x0, each step given `options()`."""
    table = scheduler.alphas_cumprod.double()
    last = table[-1]
    z = data.start(last.sqrt(), (1 - last).sqrt())
    z = z * (1 / last.sqrt() if "Heun" in type(scheduler).__name__ else 1.0)  # its x is z / alpha
    for k in scheduler.timesteps:
        level = table[int(k)]
        x0 = data.denoise(scheduler.scale_model_input(z, k), level.sqrt(), (1 - level).sqrt())
        z = scheduler.step(x0, k, z, **options()).prev_sample
        if told is not None:
            told(z)
    return z
