"""Time grids for sampling: float64, N + 1 entries for N steps, from exactly 1 to exactly 0."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vdm_blocks.diffusion.values import check_value
from vdm_blocks.types import Schedule

__all__ = ["check_times", "karras_times", "trailing_times", "uniform_logsnr_times", "uniform_times"]


def _check_steps(steps: int) -> None:
    check_value("steps", steps, int, "a whole number, at least 1")
    if steps < 1:
        raise ValueError(f"a grid of {steps} steps was asked for; it takes at least 1")


def check_times(times: Tensor) -> Tensor:
    """`times` as float64 on the CPU.

    Raises:
        ValueError: no tensor, not one axis, fewer than two entries, outside [0, 1], or not strictly descending.
    """
    check_value("times", times, Tensor, "a grid, a tensor such as uniform_times(8)")
    if times.ndim != 1 or times.shape[0] < 2:
        raise ValueError(f"times has shape {tuple(times.shape)}; it must be (N + 1,) for N >= 1 steps")
    times = times.detach().to(device="cpu", dtype=torch.float64)
    if not bool(torch.isfinite(times).all()) or float(times.max()) > 1 or float(times.min()) < 0:
        raise ValueError(f"times runs from {float(times[0])} to {float(times[-1])}; keep it within [0, 1]")
    if not bool((times[:-1] > times[1:]).all()):
        at = int((times[:-1] <= times[1:]).nonzero()[0])
        raise ValueError(
            f"times must fall at every step, from 1, noise, to 0, clean; times[{at}] = {float(times[at])} is "
            f"followed by {float(times[at + 1])}. Flip an ascending grid with times.flip(0)"
        )
    return times


def uniform_times(steps: int) -> Tensor:
    """Uniform in time (arXiv 2204.03458, section 2).

    Raises:
        ValueError: fewer than one step.

    >>> uniform_times(4)
    tensor([1.0000, 0.7500, 0.5000, 0.2500, 0.0000], dtype=torch.float64)
    """
    _check_steps(steps)
    return torch.arange(steps, -1, -1, dtype=torch.float64) / steps


def trailing_times(steps: int, *, train_steps: int) -> Tensor:
    """Uniform, rounded to a grid of `train_steps`: for a network that only ever saw those times.

    t_i = round(train_steps (1 - i / steps)) / train_steps, so the first step starts from pure noise (arXiv
    2305.08891, section 3.3).

    Raises:
        ValueError: fewer than one step, or more than `train_steps`.

    >>> (trailing_times(3, train_steps=10) * 10).tolist()
    [10.0, 7.0, 3.0, 0.0]
    """
    _check_steps(steps)
    check_value("train_steps", train_steps, int, "a whole number, such as 1000")
    if steps > train_steps:
        raise ValueError(f"{steps} steps do not fit on a grid of train_steps={train_steps}; ask for fewer")
    return (uniform_times(steps) * train_steps).round() / train_steps


def _ends(schedule: Schedule, logsnr_min: float | None, logsnr_max: float | None) -> tuple[float, float]:
    low, high = schedule.logsnr(torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist()
    low, high = low if logsnr_min is None else logsnr_min, high if logsnr_max is None else logsnr_max
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            f"the grid would run from log-SNR {low} to {high}; both must be finite and ascending: "
            "give logsnr_min and logsnr_max, for example -10 and 10"
        )
    return low, high


def _times_of(schedule: Schedule, logsnr: Tensor) -> Tensor:
    times = schedule.time(logsnr).detach().cpu().clamp(0, 1)
    times[0], times[-1] = 1, 0
    if not bool((times[:-1] > times[1:]).all()):
        raise ValueError(
            f"log-SNRs from {float(logsnr[0]):.4g} to {float(logsnr[-1]):.4g} in {len(times) - 1} steps leave the "
            f"range of {schedule}, so several of them are one time; give logsnr_min and logsnr_max within its ends"
        )
    return check_times(times)


def uniform_logsnr_times(
    steps: int, schedule: Schedule, *, logsnr_min: float | None = None, logsnr_max: float | None = None
) -> Tensor:
    """Uniform in log-SNR between the schedule's ends or those given; the first and last time stay 1 and 0.

    Raises:
        ValueError: fewer than one step, or ends that are not finite or too far beyond the schedule's.
    """
    _check_steps(steps)
    low, high = _ends(schedule, logsnr_min, logsnr_max)
    return _times_of(schedule, torch.linspace(low, high, steps + 1, dtype=torch.float64))


def karras_times(
    steps: int,
    schedule: Schedule,
    *,
    rho: float = 7.0,
    logsnr_min: float | None = None,
    logsnr_max: float | None = None,
) -> Tensor:
    """sigma^(1/rho) uniform, sigma = exp(-logsnr / 2) (arXiv 2206.00364, eq. 5, with time 0 as its last point).

    Its noisiest and cleanest sigma are the schedule's own unless given; EDM's are -2 log(80) and -2 log(0.002) as
    log-SNR. The first and last time stay 1 and 0.

    Raises:
        ValueError: fewer than one step, rho outside [0.1, 1000], or ends that are not finite or too far beyond the
            schedule's.
    """
    _check_steps(steps)
    if not 0.1 <= rho <= 1000:
        raise ValueError(f"karras_times got rho={rho}; it must lie between 0.1 and 1000, for example 7")
    low, high = _ends(schedule, logsnr_min, logsnr_max)
    noisy, clean = math.exp(-low / 2 / rho), math.exp(-high / 2 / rho)
    root = torch.linspace(noisy, clean, steps + 1, dtype=torch.float64)
    return _times_of(schedule, -2 * rho * root.log())
