"""What every step rule owes: x0 at the end, the identity in place, no trace of having been called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from exact import SHAPE, ExactDenoiser, mixture
from torch import Tensor

from vdm_blocks.diffusion import (
    CosineSchedule,
    KarrasSchedule,
    LinearBetaSchedule,
    NoiseSchedule,
    RectifiedFlowSchedule,
    ZeroTerminalSNRSchedule,
    initial,
    posterior,
    transition,
)
from vdm_blocks.sampling import (
    DDIM,
    Ancestral,
    DistilledStochastic,
    DPMSolverPP2M,
    EDMChurn,
    EDMHeun,
    Heun,
    LangevinCorrector,
    Restart,
    StepRule,
    UniPC,
    sample,
    uniform_times,
)
from vdm_blocks.sampling.rule import renoise
from vdm_blocks.types import Conditioning, Denoised

DETERMINISTIC: list[StepRule[Any]] = [
    DDIM(),
    Heun(),
    EDMHeun(),
    DPMSolverPP2M(),
    *(UniPC(order=k) for k in (1, 2, 3)),
]
STOCHASTIC: list[StepRule[Any]] = [
    DDIM(eta=1.0),
    Ancestral(),
    DPMSolverPP2M(eta=1.0),
    EDMChurn(churn=3.0),
    DistilledStochastic(),
    LangevinCorrector(rule=Ancestral()),
    Restart(noisy_logsnr=-1.0, clean_logsnr=2.0),
]
SCHEDULES: list[NoiseSchedule] = [
    CosineSchedule(),
    RectifiedFlowSchedule(),
    KarrasSchedule(),
    ZeroTerminalSNRSchedule(base=LinearBetaSchedule()),
]
COND = Conditioning()
TIMES = uniform_times(10)


def fixed_draw(like: Tensor) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, generator=torch.Generator().manual_seed(1))


def states(rule: StepRule[Any], schedule: NoiseSchedule) -> list[tuple[int, Tensor, Any]]:
    """(step, z, state) along a chain, so that multistep rules are seen with their history too."""
    denoiser = ExactDenoiser(mixture(), schedule)
    z = initial(torch.randn(2, *SHAPE, dtype=torch.float64), schedule)
    state = rule.start(TIMES)
    found = []
    for i in range(10):
        found.append((i, z, state))
        result = rule(denoiser, z, TIMES[i], TIMES[i + 1], COND, state, fixed_draw)
        z, state = result.z, result.state
    return found


@pytest.mark.parametrize("rule", DETERMINISTIC + STOCHASTIC, ids=str)
def test_a_step_to_zero_noise_returns_x0(rule: StepRule[Any]) -> None:
    denoiser = ExactDenoiser(mixture(), CosineSchedule())
    i, z, state = states(rule, CosineSchedule())[-1]
    result = rule(denoiser, z, TIMES[i], TIMES[i + 1], COND, state, fixed_draw)
    assert torch.equal(result.z, result.x0)
    if not isinstance(rule, EDMChurn):
        assert torch.equal(result.z, denoiser(z, TIMES[i], COND).x0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("rule", DETERMINISTIC, ids=str)
def test_a_step_to_the_same_time_is_the_identity(rule: StepRule[Any], schedule: NoiseSchedule) -> None:
    denoiser = ExactDenoiser(mixture(), schedule)
    for i, z, state in (states(rule, schedule)[k] for k in (0, 5)):
        assert torch.equal(rule(denoiser, z, TIMES[i], TIMES[i], COND, state, fixed_draw).z, z)


@pytest.mark.parametrize("rule", [DDIM(eta=1.0), Ancestral(), DPMSolverPP2M(eta=1.0)], ids=str)
def test_a_stochastic_step_to_the_same_time_adds_nothing(rule: StepRule[Any]) -> None:
    denoiser = ExactDenoiser(mixture(), CosineSchedule())
    i, z, state = states(rule, CosineSchedule())[4]
    torch.testing.assert_close(rule(denoiser, z, TIMES[i], TIMES[i], COND, state, fixed_draw).z, z)


@pytest.mark.parametrize("rule", DETERMINISTIC + STOCHASTIC, ids=str)
def test_the_same_step_twice_gives_the_same_and_changes_nothing(rule: StepRule[Any]) -> None:
    denoiser = ExactDenoiser(mixture(), CosineSchedule())
    i, z, state = states(rule, CosineSchedule())[4]
    before = z.clone()
    a, b = (rule(denoiser, z, TIMES[i], TIMES[i + 1], COND, state, fixed_draw) for _ in range(2))
    assert torch.equal(a.z, b.z)
    assert torch.equal(z, before)
    assert a.z.data_ptr() != z.data_ptr()


class Stored:
    """A denoiser that answers with tensors that are its own."""

    def __init__(self, like: Tensor) -> None:
        self.schedule = CosineSchedule()
        self.x0, self.eps = torch.full_like(like, 0.3), torch.full_like(like, 0.7)

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        return Denoised(self.x0, self.eps)


@pytest.mark.parametrize("rule", DETERMINISTIC + STOCHASTIC, ids=str)
def test_what_the_denoiser_returned_is_not_written_to(rule: StepRule[Any]) -> None:
    noise = torch.randn(2, *SHAPE)
    denoiser = Stored(noise)
    sample(denoiser, rule, TIMES, noise, COND)
    assert bool((denoiser.x0 == 0.3).all())
    assert bool((denoiser.eps == 0.7).all())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("rule", DETERMINISTIC + STOCHASTIC, ids=str)
def test_every_rule_runs_from_pure_noise_on_every_path(rule: StepRule[Any], schedule: NoiseSchedule) -> None:
    """Also from alpha = 0 exactly, where the log-SNR is -inf."""
    noise = initial(torch.randn(2, *SHAPE), schedule)
    denoiser = ExactDenoiser(mixture(), schedule)
    got = sample(denoiser, rule, TIMES, noise, COND, generator=torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(got).all())
    if not isinstance(rule, EDMHeun):
        assert float(got.abs().max()) < 6


def test_an_ancestral_step_is_a_draw_from_the_posterior() -> None:
    schedule = CosineSchedule()
    denoiser = ExactDenoiser(mixture(), schedule)
    z, t, s = torch.randn(2, *SHAPE, dtype=torch.float64), TIMES[3], TIMES[5]
    for gamma in (0.0, 0.3, 1.0):
        mean, std = posterior(z, denoiser(z, t, COND).x0, s, t, schedule, gamma=gamma)
        got = Ancestral(gamma=gamma)(denoiser, z, t, s, COND, None, fixed_draw).z
        torch.testing.assert_close(got, mean + std * fixed_draw(z))
    same = DDIM(eta=1.0)(denoiser, z, t, s, COND, None, fixed_draw).z
    torch.testing.assert_close(same, Ancestral(gamma=0.0)(denoiser, z, t, s, COND, None, fixed_draw).z)


def test_renoise_is_a_draw_from_the_forward_process() -> None:
    z, t, s = torch.randn(2, *SHAPE, dtype=torch.float64), TIMES[3], TIMES[5]
    for schedule in SCHEDULES:
        mean, std = transition(z, s, t, schedule)
        torch.testing.assert_close(renoise(schedule, z, s, t, fixed_draw), mean + std * fixed_draw(z))


def test_2m_is_first_order_after_a_first_step_and_its_sde_contains_it() -> None:
    denoiser = ExactDenoiser(mixture(), CosineSchedule())
    z = torch.randn(2, *SHAPE, dtype=torch.float64)
    first = DPMSolverPP2M()(denoiser, z, TIMES[2], TIMES[3], COND, None, fixed_draw)
    ddim = DDIM()(denoiser, z, TIMES[2], TIMES[3], COND, None, fixed_draw)
    torch.testing.assert_close(first.z, ddim.z)
    ode = DPMSolverPP2M()(denoiser, first.z, TIMES[3], TIMES[4], COND, first.state, fixed_draw)
    sde = DPMSolverPP2M(eta=1e-9)(denoiser, first.z, TIMES[3], TIMES[4], COND, first.state, torch.zeros_like)
    torch.testing.assert_close(ode.z, sde.z, atol=1e-7, rtol=0)


def test_a_uniform_grid_breaks_edm_heun_but_not_heun() -> None:
    """Why `Heun` turns by an angle: the first step from log-SNR -20 multiplies errors by exp(10) / 2."""
    data = mixture()
    denoiser = ExactDenoiser(data, CosineSchedule())
    noise = torch.randn(4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = data.flow(noise, TIMES[0], torch.tensor(1e-3).double(), CosineSchedule(), steps=800)
    edm, ours = (
        float((sample(denoiser, rule, uniform_times(16), noise, COND) - exact).abs().mean())
        for rule in (EDMHeun(), Heun())
    )
    assert ours < 0.03
    assert edm > 20 * ours


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDIM(eta=1.5), "eta=1.5"),
        (lambda: Ancestral(gamma=-0.1), "gamma=-0.1"),
        (lambda: DPMSolverPP2M(eta=-1.0), "eta=-1.0"),
        (lambda: UniPC(order=4), "order=4"),
        (lambda: EDMChurn(churn=-1.0), "churn=-1.0"),
        (lambda: EDMChurn(noise_scale=0.0), "noise_scale=0.0"),
        (lambda: EDMChurn(sigma_min=2.0, sigma_max=1.0), "sigma_min=2.0"),
        (lambda: LangevinCorrector(rule=DDIM(), delta=2.0), "delta=2.0"),
        (lambda: Restart(noisy_logsnr=1.0, clean_logsnr=0.0), "noisy_logsnr=1.0"),
        (lambda: Restart(noisy_logsnr=0.0, clean_logsnr=1.0, count=0), "count=0"),
    ],
)
def test_bad_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_distilled_step_off_its_grid_is_refused() -> None:
    rule = DistilledStochastic()
    z = torch.randn(2, *SHAPE)
    with pytest.raises(ValueError, match="not on the grid"):
        rule(Stored(z), z, TIMES[2], TIMES[4], COND, rule.start(TIMES), fixed_draw)
