from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
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
    logsnr_slope,
)


def bent() -> LearnedSchedule:
    schedule = LearnedSchedule(bins=16)
    torch.nn.init.normal_(schedule.logits, generator=torch.Generator().manual_seed(0))
    return schedule


SCHEDULES: dict[str, NoiseSchedule] = {
    "cosine": CosineSchedule(),
    "short cosine": CosineSchedule(logsnr_min=-15.0, logsnr_max=12.0),
    "linear log-SNR": LinearLogSNRSchedule(),
    "linear beta": LinearBetaSchedule(),
    "sigmoid": SigmoidSchedule(),
    "steep sigmoid": SigmoidSchedule(tau=0.3),
    "karras": KarrasSchedule(),
    "flow": RectifiedFlowSchedule(),
    "shifted cosine": ShiftedSchedule(base=CosineSchedule(), resolution=256),
    "shifted flow": ShiftedSchedule(base=RectifiedFlowSchedule(), resolution=256),
    "interpolated": InterpolatedSchedule(base=CosineSchedule(), resolution=512),
    "zero terminal": ZeroTerminalSNRSchedule(base=LinearBetaSchedule()),
    "zero terminal cosine": ZeroTerminalSNRSchedule(base=CosineSchedule(logsnr_min=-10.0)),
    "learned": bent(),
}
VARIANCE_PRESERVING = [name for name in SCHEDULES if "flow" not in name and name != "karras"]
every = pytest.mark.parametrize("name", SCHEDULES)


def times() -> Tensor:
    """Everywhere, and very near both ends."""
    near = 10 ** -torch.linspace(1, 14, 40, dtype=torch.float64)
    everywhere = torch.linspace(0, 1, 2001, dtype=torch.float64)
    return torch.cat([everywhere, near, 1 - near]).sort().values


@every
def test_logsnr_falls_strictly(name: str) -> None:
    t = torch.linspace(0, 1, 20001, dtype=torch.float64)
    assert (SCHEDULES[name].logsnr(t).diff() < 0).all()


@every
def test_time_inverts_logsnr_and_back(name: str) -> None:
    schedule, t = SCHEDULES[name], times()
    logsnr = schedule.logsnr(t)
    assert (schedule.time(logsnr) - t).abs().max() < 1e-13
    assert (schedule.logsnr(schedule.time(logsnr)) - logsnr).abs().max() < 1e-10


@every
def test_scales_have_the_log_snr_that_is_said(name: str) -> None:
    schedule, t = SCHEDULES[name], times()
    alpha, sigma = schedule.alpha_sigma(t)
    inside = t < 1 if name.startswith("zero") else t <= 1
    assert (2 * (alpha / sigma).log() - schedule.logsnr(t))[inside].abs().max() < 1e-12


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_variance_is_preserved(name: str) -> None:
    alpha, sigma = SCHEDULES[name].alpha_sigma(times())
    assert (alpha**2 + sigma**2 - 1).abs().max() < 1e-14


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_ends_are_finite_in_every_dtype(name: str, dtype: torch.dtype) -> None:
    schedule = SCHEDULES[name]
    ends = torch.tensor([0.0, 1.0], dtype=dtype)
    values = (schedule.logsnr(ends), *schedule.alpha_sigma(ends))
    for value in values:
        assert value.isfinite().all()
        assert value.dtype == dtype
        assert (value >= 0).all() or value is values[0]
    exact = schedule.logsnr(ends.double())
    assert (values[0].double() - exact).abs().max() <= max(1e-4, 20 * torch.finfo(dtype).eps)


@every
def test_float32_is_as_exact_as_its_argument(name: str) -> None:
    schedule, t = SCHEDULES[name], times().float()
    assert (schedule.logsnr(t).double() - schedule.logsnr(t.double())).abs().max() < 2e-4
    logsnr = schedule.logsnr(times()).float()
    assert (schedule.time(logsnr).double() - schedule.time(logsnr.double())).abs().max() < 2e-6


@every
def test_every_shape_of_time_is_taken(name: str) -> None:
    schedule = SCHEDULES[name]
    t = torch.rand(2, 3, dtype=torch.float64)
    whole = schedule.logsnr(t)
    for index in ((0, 1), (1,), ()):
        assert torch.equal(schedule.logsnr(t[index]), whole[index])
        assert schedule.alpha_sigma(t[index])[0].shape == t[index].shape


@every
def test_slope_is_the_derivative(name: str) -> None:
    schedule, h = SCHEDULES[name], 1e-6
    t = torch.tensor([0.013, 0.3, 0.5001, 0.77, 0.98], dtype=torch.float64)
    numeric = (schedule.logsnr(t + h) - schedule.logsnr(t - h)) / (2 * h)
    assert ((logsnr_slope(schedule, t) - numeric) / numeric).abs().max() < 1e-5


def test_cosine_is_a_cosine() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha, sigma = CosineSchedule().alpha_sigma(t)
    assert (alpha - torch.cos(torch.pi * t / 2)).abs().max() < 5e-5
    assert (sigma - torch.sin(torch.pi * t / 2)).abs().max() < 5e-5
    ends = CosineSchedule(logsnr_min=-17.0, logsnr_max=13.0).logsnr(
        torch.tensor([0.0, 1.0], dtype=torch.float64)
    )
    assert torch.allclose(ends, torch.tensor([13.0, -17.0], dtype=torch.float64), atol=1e-12)


def test_flow_is_a_straight_line() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha, sigma = RectifiedFlowSchedule().alpha_sigma(t)
    assert (alpha + sigma - 1).abs().max() < 1e-15
    assert (sigma - t).abs().max() < 4e-7


def test_linear_beta_is_ddpm_with_many_steps() -> None:
    steps = 100_000
    betas = torch.linspace(0.1, 20, steps, dtype=torch.float64) / steps
    alpha_bar = torch.cumprod(1 - betas, dim=0)[99::100]
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)[100::100]
    alpha, _ = LinearBetaSchedule(offset=1e-12).alpha_sigma(t)
    assert (alpha**2 - alpha_bar).abs().max() < 1e-4


def test_sigmoid_is_the_published_curve_inside() -> None:
    t = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    start, end = torch.sigmoid(torch.tensor([-3.0, 3.0], dtype=torch.float64))
    published = (end - torch.sigmoid(6 * t - 3)) / (end - start)
    alpha, _ = SigmoidSchedule().alpha_sigma(t)
    assert (alpha**2 - published).abs().max() < 1e-7


def test_karras_levels_are_those_of_the_sampling_table() -> None:
    steps = torch.arange(18, dtype=torch.float64)
    table = (80 ** (1 / 7) + steps / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    alpha, sigma = KarrasSchedule().alpha_sigma(1 - steps / 17)
    assert ((sigma - table) / table).abs().max() < 1e-13
    assert (alpha == 1).all()


def test_shift_moves_the_log_snr_and_the_time_of_a_flow() -> None:
    t, k = torch.linspace(0.05, 0.95, 19, dtype=torch.float64), 256 / 64
    shifted = ShiftedSchedule(base=RectifiedFlowSchedule(logsnr_min=-60.0, logsnr_max=60.0), resolution=256)
    assert (shifted.alpha_sigma(t)[1] - k * t / (1 + (k - 1) * t)).abs().max() < 1e-12
    cosine = ShiftedSchedule(base=CosineSchedule(), resolution=32)
    assert torch.allclose(cosine.logsnr(t), CosineSchedule().logsnr(t) + 2 * math.log(2))


def test_interpolation_starts_and_ends_at_its_two_shifts() -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    added = InterpolatedSchedule(base=CosineSchedule(), resolution=512).logsnr(
        ends
    ) - CosineSchedule().logsnr(ends)
    assert torch.allclose(added, 2 * torch.tensor([32 / 512, 256 / 512], dtype=torch.float64).log())


def test_zero_terminal_snr_is_zero_and_follows_the_published_stretch() -> None:
    base = LinearBetaSchedule()
    schedule = ZeroTerminalSNRSchedule(base=base)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        alpha, sigma = schedule.alpha_sigma(torch.ones((), dtype=dtype))
        assert alpha == 0
        assert sigma == 1
    t = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    first, last = base.alpha_sigma(torch.tensor([0.0, 1.0], dtype=torch.float64))[0]
    published = (base.alpha_sigma(t)[0] - last) * first / (first - last)
    assert (schedule.alpha_sigma(t)[0] - published).abs().max() < 5e-5


@pytest.mark.parametrize("low", [-math.inf, -81.0, 20.0, 20.0 - 9e-7, 21.0, math.inf, math.nan])
def test_bad_ranges_are_refused(low: float) -> None:
    for make in (
        CosineSchedule,
        LinearLogSNRSchedule,
        SigmoidSchedule,
        RectifiedFlowSchedule,
        LearnedSchedule,
    ):
        with pytest.raises(ValueError, match="logsnr_min"):
            make(logsnr_min=low, logsnr_max=20.0)


def test_bad_shapes_of_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="beta_min < beta_max"):
        LinearBetaSchedule(beta_min=2.0, beta_max=1.0)
    with pytest.raises(ValueError, match="offset > 0"):
        LinearBetaSchedule(offset=0.0)
    with pytest.raises(ValueError, match="start / tau"):
        SigmoidSchedule(start=1.0, end=0.0)
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        KarrasSchedule(sigma_min=0.0)
    with pytest.raises(ValueError, match="must be positive"):
        ShiftedSchedule(base=CosineSchedule(), resolution=0)
    with pytest.raises(ValueError, match="closer together"):
        InterpolatedSchedule(base=CosineSchedule(), resolution=512, low=8, high=256)
    with pytest.raises(ValueError, match="must be positive"):
        InterpolatedSchedule(base=CosineSchedule(), resolution=512, low=-8)
    with pytest.raises(ValueError, match="finite and lower"):
        ZeroTerminalSNRSchedule(base=CosineSchedule())
    with pytest.raises(ValueError, match="at least 1"):
        LearnedSchedule(bins=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearBetaSchedule(beta_min=0.0, beta_max=1e-9, offset=10.0),
        lambda: LinearBetaSchedule(offset=1e-40),
        lambda: LinearBetaSchedule(beta_max=1e4),
        lambda: KarrasSchedule(sigma_min=1.0, sigma_max=1.0 + 1e-9),
        lambda: KarrasSchedule(sigma_min=1e-30),
        lambda: ShiftedSchedule(base=CosineSchedule(), resolution=1e30),
        lambda: InterpolatedSchedule(base=CosineSchedule(), resolution=1e-30),
        lambda: ZeroTerminalSNRSchedule(base=LinearBetaSchedule(), logsnr_min=-100.0),
    ],
)
def test_a_schedule_that_hardly_falls_or_falls_too_far_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"log-SNR of .* must fall by 1e-6"):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: KarrasSchedule(rho=1e-4),
        lambda: KarrasSchedule(rho=1e6),
        lambda: KarrasSchedule(sigma_max=math.nan),
        lambda: SigmoidSchedule(start=-1e4, end=-0.9e4),
        lambda: SigmoidSchedule(start=0.0, end=1e-6),
        lambda: SigmoidSchedule(tau=math.nan),
        lambda: LinearBetaSchedule(beta_max=math.nan),
        lambda: LinearBetaSchedule(offset=math.inf),
        lambda: ShiftedSchedule(base=CosineSchedule(), resolution=math.nan),
        lambda: InterpolatedSchedule(base=CosineSchedule(), resolution=64, low=math.nan),
        lambda: ZeroTerminalSNRSchedule(base=LinearBetaSchedule(), logsnr_min=math.nan),
    ],
)
def test_numbers_that_make_no_schedule_are_refused_in_a_sentence(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"\w+ got .*; "):
        make()


@pytest.mark.parametrize("low", [-80.0, -1e-6])
def test_the_longest_and_the_shortest_range_work(low: float) -> None:
    """At the limits of what is accepted both ends are finite in float32, and alpha and sigma not 0."""
    ends = torch.tensor([0.0, 1.0])
    for make in (
        CosineSchedule,
        LinearLogSNRSchedule,
        SigmoidSchedule,
        RectifiedFlowSchedule,
        LearnedSchedule,
    ):
        schedule = make(logsnr_min=low, logsnr_max=low + max(-2 * low, 1e-6))
        values = torch.stack([schedule.logsnr(ends), *schedule.alpha_sigma(ends)])
        assert values.isfinite().all(), schedule
        assert (values[1:] > 0).all(), schedule
