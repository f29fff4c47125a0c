from __future__ import annotations

import pytest
import torch
from exact import gaussian
from torch import Tensor

from vdm_blocks.diffusion import (
    CosineSchedule,
    KarrasSchedule,
    LinearBetaSchedule,
    NoiseSchedule,
    RectifiedFlowSchedule,
    ZeroTerminalSNRSchedule,
    diffuse,
    expand_level,
    initial,
    posterior,
    transition,
)

SCHEDULES: dict[str, NoiseSchedule] = {
    "cosine": CosineSchedule(),
    "flow": RectifiedFlowSchedule(),
    "karras": KarrasSchedule(),
    "zero terminal": ZeroTerminalSNRSchedule(base=LinearBetaSchedule()),
}
SHAPE = (2, 3, 4, 5, 2)
every = pytest.mark.parametrize("name", SCHEDULES)
PAIRS = {
    "()": (torch.tensor(0.2), torch.tensor(0.7)),
    "(B,)": (torch.tensor([0.1, 0.4]), torch.tensor([0.15, 0.9])),
    "(B, T)": (torch.rand(2, 4) * 0.4, torch.rand(2, 4) * 0.4 + 0.5),
}
levels = pytest.mark.parametrize("level", PAIRS)


def pair(level: str) -> tuple[Tensor, Tensor]:
    s, t = PAIRS[level]
    return s.double(), t.double()


def ones() -> Tensor:
    return torch.ones(SHAPE, dtype=torch.float64)


@every
@levels
def test_noising_in_two_steps_is_noising_in_one(name: str, level: str) -> None:
    """Mean alpha_t / alpha_s alpha_s = alpha_t; variance (alpha_t / alpha_s)^2 sigma_s^2 + std^2 = sigma_t^2."""
    schedule, (s, t) = SCHEDULES[name], pair(level)
    factor, std = transition(ones(), s, t, schedule)
    (alpha_s, sigma_s), (alpha_t, sigma_t) = schedule.alpha_sigma(s), schedule.alpha_sigma(t)
    assert torch.allclose(
        factor * expand_level(alpha_s, factor), ones() * expand_level(alpha_t, factor), atol=1e-14
    )
    variance = (factor * expand_level(sigma_s, factor)) ** 2 + std**2
    assert torch.allclose(variance, ones() * expand_level(sigma_t, factor) ** 2, rtol=1e-12)


@every
@levels
def test_posterior_is_bayes_rule(name: str, level: str) -> None:
    """q(z_s | z_t, x0) from the precisions of q(z_t | z_s) and q(z_s | x0)."""
    schedule, (s, t) = SCHEDULES[name], pair(level)
    g = torch.Generator().manual_seed(0)
    x0, z_t = (torch.randn(SHAPE, generator=g, dtype=torch.float64) for _ in range(2))
    factor, step_std = transition(ones(), s, t, schedule)
    alpha_s, sigma_s = (expand_level(x, x0) for x in schedule.alpha_sigma(s))
    precision = factor**2 / step_std**2 + 1 / sigma_s**2
    expected = (factor * z_t / step_std**2 + alpha_s * x0 / sigma_s**2) / precision
    mean, std = posterior(z_t, x0, s, t, schedule)
    assert torch.allclose(mean, expected, rtol=1e-9, atol=1e-11)
    assert torch.allclose(std.expand(SHAPE) ** -2, precision, rtol=1e-9)


@every
def test_posterior_of_noised_data_has_the_marginal_of_the_earlier_time(name: str) -> None:
    schedule, s, t = SCHEDULES[name], torch.tensor(0.35).double(), torch.tensor(0.6).double()
    g = torch.Generator().manual_seed(0)
    x0 = torch.full((200_000, 1), 0.7, dtype=torch.float64)
    z_t = diffuse(x0, torch.randn(x0.shape, generator=g, dtype=torch.float64), t, schedule)
    mean, std = posterior(z_t, x0, s, t, schedule)
    z_s = mean + std * torch.randn(x0.shape, generator=g, dtype=torch.float64)
    alpha, sigma = schedule.alpha_sigma(s)
    assert abs(float((z_s.mean() - alpha * 0.7) / sigma)) < 4 / 200_000**0.5
    assert abs(float(z_s.var() / sigma**2 - 1)) < 4 * (2 / 200_000) ** 0.5


def test_gamma_interpolates_between_the_two_variances() -> None:
    s, t = torch.tensor(0.3).double(), torch.tensor(0.4).double()
    schedule = CosineSchedule()
    sigma_s, sigma_t = schedule.alpha_sigma(s)[1], schedule.alpha_sigma(t)[1]
    small, middle, large = (posterior(ones(), ones(), s, t, schedule, gamma=g)[1] for g in (0.0, 0.5, 1.0))
    assert torch.allclose(large / small, sigma_t / sigma_s)
    assert torch.allclose(middle, (small * large).sqrt())
    assert torch.allclose(large, transition(ones(), s, t, schedule)[1])


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_whole_way_is_finite(name: str, dtype: torch.dtype) -> None:
    schedule, video = SCHEDULES[name], ones().to(dtype)
    for s, t in ((0.0, 1.0), (0.0, 0.001), (0.999, 1.0), (0.5, 0.5), (0.0, 0.0), (1.0, 1.0)):
        for shape in ((), (2,)):
            times = torch.full(shape, s), torch.full(shape, t)
            for value in (*posterior(video, video, *times, schedule), *transition(video, *times, schedule)):
                assert value.isfinite().all()


@every
def test_a_frame_that_does_not_move_stays_as_it_is(name: str) -> None:
    """Context frames of diffusion forcing: s equal to t for them, earlier for the others."""
    t = torch.full((2, 4), 0.6, dtype=torch.float64)
    s = t.clone()
    s[:, 2:] = 0.3
    z_t, x0 = (torch.randn(SHAPE, dtype=torch.float64) for _ in range(2))
    mean, std = posterior(z_t, x0, s, t, SCHEDULES[name])
    assert torch.allclose(mean[:, :, :2], z_t[:, :, :2], rtol=1e-14, atol=0)
    assert (std[:, :, :2] == 0).all()
    assert (std[:, :, 2:] > 0).all()


def test_short_steps_lose_no_digits() -> None:
    """1 - r of a step of 1e-9 in float64, against its derivative; the difference of squares has 7 digits left."""
    schedule, s = CosineSchedule(), torch.tensor(0.5, dtype=torch.float64)
    t = s + 1e-9
    std = transition(ones(), s, t, schedule)[1]
    expected = (schedule.logsnr(s) - schedule.logsnr(t)).sqrt() * schedule.alpha_sigma(t)[1]
    assert float((std / expected - 1).abs().max()) < 1e-8


def test_noise_starts_at_the_scale_of_the_schedule() -> None:
    assert torch.allclose(initial(ones(), CosineSchedule()), ones(), atol=1e-8)
    assert torch.allclose(initial(ones(), KarrasSchedule(sigma_max=80.0)), 80 * ones())


def test_times_in_the_wrong_order_are_refused() -> None:
    late, early = torch.tensor([0.1, 0.8]), torch.tensor([0.2, 0.7])
    with pytest.raises(ValueError, match="cleaner time as s"):
        posterior(ones(), ones(), late, early, CosineSchedule())
    with pytest.raises(ValueError, match="cleaner time as s"):
        transition(ones(), late, early, CosineSchedule())


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan")])
def test_gamma_outside_its_range_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="between 0"):
        posterior(ones(), ones(), torch.tensor(0.1), torch.tensor(0.2), CosineSchedule(), gamma=gamma)


def test_ancestral_steps_with_the_true_posterior_keep_a_gaussian() -> None:
    """x0 drawn from p(x0 | z_t), then z_s from q(z_s | z_t, x0): the marginal at s, for correlated data."""
    data, schedule = gaussian((1, 2, 1, 1)), CosineSchedule()
    s, t = torch.tensor(0.4).double(), torch.tensor(0.7).double()
    g = torch.Generator().manual_seed(0)
    x0 = data.sample(100_000, g)
    z_t = diffuse(x0, torch.randn(x0.shape, generator=g, dtype=torch.float64), t, schedule)
    mean, std = posterior(z_t, x0, s, t, schedule)
    z_s = (mean + std * torch.randn(x0.shape, generator=g, dtype=torch.float64)).flatten(1)
    alpha, sigma = schedule.alpha_sigma(s)
    expected = alpha**2 * data.covariances[0] + sigma**2 * torch.eye(2)
    assert torch.allclose(z_s.T.cov(), expected, atol=0.01)
