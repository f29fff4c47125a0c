"""Every deterministic rule shows its order of convergence, over every schedule, against the exact flow."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from exact import ExactDenoiser, Mixture, gaussian, mixture
from torch import Tensor

from vdm_blocks.diffusion import (
    CosineSchedule,
    InterpolatedSchedule,
    KarrasSchedule,
    LearnedSchedule,
    LinearBetaSchedule,
    LinearLogSNRSchedule,
    NoiseSchedule,
    RectifiedFlowSchedule,
    ShiftedSchedule,
    SigmoidSchedule,
    ZeroTerminalSNRSchedule,
    diffuse,
)
from vdm_blocks.sampling import DDIM, DPMSolverPP2M, EDMHeun, Heun, StepRule, UniPC, sample
from vdm_blocks.types import Conditioning

SHAPE = (1, 2, 2, 1)
CLEAN = 3.0
NOISY = -3.0

SCHEDULES: dict[str, NoiseSchedule] = {
    "cosine": CosineSchedule(),
    "linear log-SNR": LinearLogSNRSchedule(),
    "linear beta": LinearBetaSchedule(),
    "sigmoid": SigmoidSchedule(),
    "rectified flow": RectifiedFlowSchedule(),
    "karras": KarrasSchedule(),
    "shifted": ShiftedSchedule(base=CosineSchedule(), resolution=128),
    "interpolated": InterpolatedSchedule(base=CosineSchedule(), resolution=128),
    "zero terminal": ZeroTerminalSNRSchedule(base=LinearBetaSchedule()),
    "learned": LearnedSchedule().double().requires_grad_(False),
}

# The counts are where the error has become a power of the step: finer for the higher orders.
ORDERS: list[tuple[StepRule[Any], float, tuple[int, int]]] = [
    (DDIM(), 1, (64, 128)),
    (Heun(), 2, (32, 64)),
    (EDMHeun(), 2, (64, 128)),
    (DPMSolverPP2M(), 2, (64, 128)),
    (UniPC(order=1), 2, (64, 128)),
    (UniPC(order=2), 3, (96, 192)),
]

MIXTURE = mixture(SHAPE, components=3)
GAUSSIAN = gaussian(SHAPE)


def bent_grid(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Times at log-SNRs from NOISY to CLEAN whose spacing varies smoothly by a factor of three."""
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    share = u + 0.5 * torch.sin(torch.pi * u).square() / torch.pi
    return schedule.time(NOISY + (CLEAN - NOISY) * share)


@cache
def problem(data: Mixture, schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    """Where the chains start, and where the exact flow takes them."""
    generator = torch.Generator().manual_seed(3)
    ends = bent_grid(schedule, 1)
    x0 = data.sample(6, generator)
    z = diffuse(x0, torch.randn(x0.shape, dtype=torch.float64, generator=generator), ends[0], schedule)
    return z, data.flow(z, ends[0], ends[1], schedule, steps=300)


def errors(
    rule: StepRule[Any], data: Mixture, schedule: NoiseSchedule, counts: tuple[int, int]
) -> list[float]:
    z, exact = problem(data, schedule)  # type: ignore[arg-type]
    denoiser = ExactDenoiser(data, schedule)
    got = [sample(denoiser, rule, bent_grid(schedule, n), z, Conditioning()) for n in counts]
    return [float((x - exact).square().mean().sqrt()) for x in got]


def order(rule: StepRule[Any], data: Mixture, schedule: NoiseSchedule, counts: tuple[int, int]) -> float:
    coarse, fine = errors(rule, data, schedule, counts)
    return float(torch.log2(torch.tensor(coarse / fine)))


@pytest.mark.parametrize(("rule", "nominal", "counts"), ORDERS, ids=str)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_order_on_a_mixture(
    rule: StepRule[Any], nominal: float, counts: tuple[int, int], schedule: NoiseSchedule
) -> None:
    assert abs(order(rule, MIXTURE, schedule, counts) - nominal) < 0.15


def test_third_order_unipc_is_limited_by_its_start() -> None:
    coarse, fine = errors(UniPC(order=3), GAUSSIAN, SCHEDULES["cosine"], (192, 384))
    assert fine < errors(UniPC(order=2), GAUSSIAN, SCHEDULES["cosine"], (192, 384))[1]
    assert coarse / fine > 2**2.85
