"""The two-step target is exact, on any path, wherever alpha or sigma vanish, and in float32."""

from __future__ import annotations

import pytest
import torch
from exact import ExactDenoiser, mixture
from torch import Tensor

from vdm_blocks.diffusion import (
    CosineSchedule,
    KarrasSchedule,
    LinearBetaSchedule,
    NoiseSchedule,
    RectifiedFlowSchedule,
    ZeroTerminalSNRSchedule,
)
from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.distillation import Jumps, ddim_jumps, ddim_step, stochastic_jumps, two_step_target
from vdm_blocks.distillation.targets import first_share, jump_gain
from vdm_blocks.sampling import DDIM, uniform_times
from vdm_blocks.types import Conditioning, Denoised, Schedule

SHAPE = (1, 3, 2, 1)
DATA = mixture(SHAPE)
SCHEDULES: list[NoiseSchedule] = [
    CosineSchedule(),
    CosineSchedule(logsnr_min=-60.0, logsnr_max=60.0),
    RectifiedFlowSchedule(),
    KarrasSchedule(),
    ZeroTerminalSNRSchedule(base=LinearBetaSchedule()),
]
IDS = ["cosine", "wide cosine", "flow", "karras", "zero terminal SNR"]


def level(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def noisy(schedule: NoiseSchedule, t: float, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    alpha, sigma = schedule.alpha_sigma(level(t))
    noise = torch.randn(count, *SHAPE, dtype=torch.float64, generator=generator)
    return alpha * DATA.sample(count, generator) + sigma * noise


class Says:
    """A student that answers with what it is given."""

    def __init__(self, schedule: Schedule, x0: Tensor) -> None:
        self.schedule, self.x0 = schedule, x0

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        return Denoised(self.x0, self.x0)


def step(denoiser: ExactDenoiser | Says, z_t: Tensor, t: float, s: float) -> Tensor:
    """One step of the sampler's own DDIM."""
    return DDIM()(denoiser, z_t, level(t), level(s), Conditioning(), None, torch.randn_like).z


@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
@pytest.mark.parametrize(
    "jumps", [ddim_jumps(uniform_times(3)), stochastic_jumps(4), ddim_jumps(uniform_times(500)[:4])]
)
def test_one_step_of_the_student_lands_where_two_of_the_teacher_land(
    schedule: NoiseSchedule, jumps: Jumps
) -> None:
    teacher = ExactDenoiser(DATA, schedule)
    for t, mid, s in jumps:
        z_t = noisy(schedule, t)
        target = two_step_target(teacher, z_t, level(t), level(mid), level(s), Conditioning())
        reached = step(Says(schedule, target), z_t, t, s)
        wanted = step(teacher, step(teacher, z_t, t, mid), mid, s)
        torch.testing.assert_close(reached, wanted, rtol=1e-12, atol=1e-12)


def test_where_the_halt_is_an_end_it_is_one_step_of_the_teacher() -> None:
    teacher = ExactDenoiser(DATA, SCHEDULES[0])
    z_t = noisy(SCHEDULES[0], 0.5)
    once = teacher(z_t, level(0.5), Conditioning()).x0
    for mid in (0.5, 0.25):
        target = two_step_target(teacher, z_t, level(0.5), level(mid), level(0.25), Conditioning())
        torch.testing.assert_close(target, once, rtol=0, atol=0)
    last = two_step_target(teacher, z_t, level(0.5), level(0.25), level(0.0), Conditioning())
    halfway = step(teacher, z_t, 0.5, 0.25)
    torch.testing.assert_close(last, teacher(halfway, level(0.25), Conditioning()).x0)


def test_it_is_the_formula_of_the_paper() -> None:
    """arXiv 2202.00512, algorithm 2, as it is printed there, where that is safe."""
    schedule = SCHEDULES[0]
    teacher = ExactDenoiser(DATA, schedule)
    t, mid, s = 0.75, 0.6, 0.45
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.alpha_sigma(level(t)), schedule.alpha_sigma(level(s))
    z_t = noisy(schedule, t)
    z_s = step(teacher, step(teacher, z_t, t, mid), mid, s)
    printed = (z_s - sigma_s / sigma_t * z_t) / (alpha_s - sigma_s / sigma_t * alpha_t)
    torch.testing.assert_close(
        two_step_target(teacher, z_t, level(t), level(mid), level(s), Conditioning()),
        printed,
        rtol=1e-10,
        atol=1e-10,
    )


@pytest.mark.parametrize("shape", [(3,), (3, 3)], ids=["per sample", "per frame"])
def test_samples_and_frames_have_jumps_of_their_own(shape: tuple[int, ...]) -> None:
    schedule = SCHEDULES[0]
    teacher = ExactDenoiser(DATA, schedule)
    t = torch.tensor([1.0, 0.6, 0.25], dtype=torch.float64).expand(shape)
    mid = torch.tensor([0.9, 0.6, 0.125], dtype=torch.float64).expand(shape)
    s = torch.tensor([0.7, 0.5, 0.0], dtype=torch.float64).expand(shape)
    alpha, sigma = (expand_level(x, torch.zeros(3, *SHAPE)) for x in schedule.alpha_sigma(t))
    z_t = alpha * DATA.sample(3, torch.Generator().manual_seed(0)) + sigma * noisy(schedule, 1.0)
    target = two_step_target(teacher, z_t, t, mid, s, Conditioning())
    reached = ddim_step(schedule, z_t, target, t, s)
    halfway = ddim_step(schedule, z_t, teacher(z_t, t, Conditioning()).x0, t, mid)
    wanted = ddim_step(schedule, halfway, teacher(halfway, mid, Conditioning()).x0, mid, s)
    torch.testing.assert_close(reached, wanted, rtol=1e-12, atol=1e-12)
    if len(shape) == 1:
        for i in range(3):
            alone = two_step_target(teacher, z_t[i : i + 1], t[i], mid[i], s[i], Conditioning())
            torch.testing.assert_close(target[i : i + 1], alone, rtol=1e-12, atol=1e-12)


def test_shares_at_the_edges() -> None:
    schedule = SCHEDULES[-1]
    t, mid, s = level(1.0), level(0.6), level(0.3)
    assert schedule.alpha_sigma(t)[0] == 0
    gap = (schedule.logsnr(mid) - schedule.logsnr(s)) / 2
    torch.testing.assert_close(first_share(schedule, t, mid, s), gap.exp())
    assert first_share(schedule, t, t, s) == 0
    assert first_share(schedule, t, s, s) == 1
    assert first_share(schedule, t, mid, level(0.0)) == 0
    shares = first_share(
        schedule, *(torch.tensor(x, dtype=torch.float64) for x in zip(*stochastic_jumps(64), strict=True))
    )
    assert bool(((shares >= 0) & (shares <= 1)).all())


def test_gain_keeps_its_digits_where_the_plain_difference_loses_them() -> None:
    schedule = SCHEDULES[0]
    t = torch.tensor([0.5, 0.01])
    s = t - 1e-4
    exact = jump_gain(schedule, t.double(), s.double())
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        schedule.alpha_sigma(t.double()),
        schedule.alpha_sigma(s.double()),
    )
    torch.testing.assert_close(exact, alpha_s - alpha_t * sigma_s / sigma_t, rtol=1e-9, atol=0)


class Single:
    """An exact denoiser that answers in float32."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.exact = schedule, ExactDenoiser(DATA, schedule)

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        answer = self.exact(z_t.double(), t.double(), cond)
        return Denoised(answer.x0.float(), answer.eps.float())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
def test_float32_loses_nothing_on_a_thousand_steps(schedule: NoiseSchedule) -> None:
    """The printed formula divides a difference of two nearly equal numbers by another: see the control."""
    teacher, single = ExactDenoiser(DATA, schedule), Single(schedule)
    worst = control = 0.0
    for t, mid, s in list(ddim_jumps(uniform_times(1024)))[::341]:
        z_t = noisy(schedule, t).float()
        times = level(t), level(mid), level(s)
        exact = two_step_target(teacher, z_t.double(), *times, Conditioning())
        got = two_step_target(single, z_t, *times, Conditioning())
        assert got.dtype == torch.float32
        worst = max(worst, float((got - exact).abs().max()))
        halfway = step(teacher, z_t.double(), t, mid)
        z_s = step(teacher, halfway, mid, s).float()
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (
            schedule.alpha_sigma(times[0]),
            schedule.alpha_sigma(times[2]),
        )
        ratio = (sigma_s / sigma_t).float()
        printed = (z_s - ratio * z_t) / (alpha_s.float() - ratio * alpha_t.float())
        control = max(control, float((printed - exact).abs().max()) if s > 0 else 0.0)
    assert worst < 1e-5
    assert control > 2 * worst
