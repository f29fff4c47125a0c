"""Every stochastic rule keeps the marginals: exactly computed moments on Gaussians, two-sample tests on mixtures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from exact import ExactDenoiser, Mixture, gaussian, mixture
from torch import Tensor

from vdm_blocks.diffusion import CosineSchedule, KarrasSchedule, NoiseSchedule, RectifiedFlowSchedule, diffuse
from vdm_blocks.sampling import (
    DDIM,
    Ancestral,
    DistilledStochastic,
    DPMSolverPP2M,
    Draw,
    EDMChurn,
    EDMHeun,
    Heun,
    LangevinCorrector,
    Restart,
    StepDraw,
    StepResult,
    StepRule,
    karras_times,
    sample,
    uniform_times,
)
from vdm_blocks.types import Conditioning, Denoised, Schedule

SHAPE = (1, 2, 1, 1)
SIZE = 2
GAUSSIAN = gaussian(SHAPE, scale=0.7)
COSINE = CosineSchedule()

STOCHASTIC: dict[str, StepRule[Any]] = {
    "DDIM(0.5)": DDIM(eta=0.5),
    "DDIM(1)": DDIM(eta=1.0),
    "Ancestral(0)": Ancestral(gamma=0.0),
    "Ancestral(0.3)": Ancestral(),
    "Ancestral(1)": Ancestral(gamma=1.0),
    "2M SDE": DPMSolverPP2M(eta=1.0),
    "EDM": EDMChurn(churn=20.0),
    "distilled": DistilledStochastic(),
    "restart": Restart(noisy_logsnr=-2.0, clean_logsnr=1.0, count=2, steps=8),
}


def moments(rule: StepRule[Any], denoiser: ExactDenoiser, times: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance where the chain ends, with no sampling error.

    On Gaussian data a chain is affine in its start and in each draw, so a batch of unit vectors, one for
    every coordinate of every draw, reads its matrix off.
    """
    start_alpha, start_sigma = denoiser.schedule.alpha_sigma(times[0])
    data = denoiser.mixture
    start = start_alpha**2 * data.covariances[0] + start_sigma**2 * torch.eye(SIZE).double()
    draws = 0

    def run(rows: int, unit: bool) -> Tensor:
        nonlocal draws
        draws = 0

        def draw(like: Tensor) -> Tensor:
            nonlocal draws
            noise = torch.zeros_like(like)
            if unit:
                at = 1 + SIZE * (1 + draws)
                noise[at : at + SIZE] = torch.eye(SIZE).double().view(SIZE, *SHAPE)
            draws += 1
            return noise

        z = (start_alpha * data.means[:1]).repeat(rows, 1, 1, 1, 1)
        if unit:
            z[1 : 1 + SIZE] += torch.linalg.cholesky(start).T.reshape(SIZE, *SHAPE)
        state = rule.start(times)
        for t, s in pairwise(times):
            result = rule(denoiser, z, t, s, Conditioning(), state, draw)
            z, state = result.z, result.state
        return z.view(rows, SIZE)

    run(1, unit=False)
    z = run(1 + SIZE * (1 + draws), unit=True)
    columns = z[1:] - z[0]
    return z[0], columns.T @ columns


def moment_error(rule: StepRule[Any], schedule: NoiseSchedule, times: Tensor) -> float:
    mean, covariance = moments(rule, ExactDenoiser(GAUSSIAN, schedule), times)
    alpha, sigma = schedule.alpha_sigma(times[-1])
    truth = alpha**2 * GAUSSIAN.covariances[0] + sigma**2 * torch.eye(SIZE).double()
    wrong = (covariance - truth).abs().max() / truth.diagonal().max()
    return max(float(wrong), float((mean - alpha * GAUSSIAN.means.view(SIZE)).abs().max()))


@pytest.mark.parametrize(
    "schedule", [COSINE, RectifiedFlowSchedule(), KarrasSchedule()], ids=lambda x: type(x).__name__
)
@pytest.mark.parametrize("rule", STOCHASTIC.values(), ids=STOCHASTIC)
def test_mean_and_covariance_converge_to_the_marginals(rule: StepRule[Any], schedule: NoiseSchedule) -> None:
    """Also the strided one-step posterior, whose variance grows as the steps get fewer."""
    coarse, fine = (moment_error(rule, schedule, uniform_times(n)) for n in (40, 160))
    assert fine < 0.07
    assert fine < max(coarse / 3.2, 1e-3)  # first order: a quarter, and some slack


def test_a_missing_variance_is_seen() -> None:
    """The control: churn with a tenth less noise than its new time has does not converge."""
    wrong = EDMChurn(churn=20.0, noise_scale=0.9)
    assert moment_error(wrong, COSINE, uniform_times(120)) > 0.05


@dataclass(frozen=True)
class IdealStudent:
    """What perfect distillation would give: x0 such that a DDIM step of two grid steps lands on the exact flow."""

    mixture: Mixture
    schedule: Schedule
    steps: int

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        k = (t - 2 / self.steps).clamp(min=0) if float(t) > 1.5 / self.steps else torch.zeros_like(t)
        (alpha_t, sigma_t), (alpha_k, sigma_k) = self.schedule.alpha_sigma(t), self.schedule.alpha_sigma(k)
        z_k = self.mixture.flow(z_t, t, k, self.schedule)
        x0 = (z_k - sigma_k / sigma_t * z_t) / (alpha_k - sigma_k / sigma_t * alpha_t)
        return Denoised(x0, (z_t - alpha_t * x0) / sigma_t)


def test_the_distilled_sampler_is_exact_with_an_ideal_student() -> None:
    """arXiv 2210.02303, section 2.7: in 4 steps, because it jumps 2 / N and goes back 1 / N exactly."""
    student: Any = IdealStudent(GAUSSIAN, COSINE, 4)
    mean, covariance = moments(DistilledStochastic(), student, uniform_times(4))
    torch.testing.assert_close(mean, GAUSSIAN.means.view(SIZE), atol=1e-3, rtol=0)
    torch.testing.assert_close(covariance, GAUSSIAN.covariances[0], atol=1e-3, rtol=0)
    times = uniform_times(4)[:-1]
    alpha, sigma = COSINE.alpha_sigma(times[-1])

    @dataclass(frozen=True)
    class OnWholeGrid(DistilledStochastic):
        def start(self, times: Tensor) -> Tensor:
            return super().start(torch.cat([times, torch.zeros(1).double()]))

    _, covariance = moments(OnWholeGrid(), student, times)
    truth = alpha**2 * GAUSSIAN.covariances[0] + sigma**2 * torch.eye(SIZE).double()
    torch.testing.assert_close(covariance, truth, atol=1e-9, rtol=0)


@dataclass(frozen=True)
class Stay:
    """A rule that goes nowhere, to see the corrector alone."""

    def start(self, times: Tensor) -> None: ...

    def __call__(self, _denoiser: Any, z_t: Tensor, *_rest: Any) -> StepResult[None]:
        return StepResult(z_t, z_t, None)


def test_langevin_keeps_the_variance_it_says() -> None:
    """On standard normal data eps = sigma z, so the kept variance is 1 / (1 - delta sigma^2 / 4)."""
    data = Mixture(
        torch.ones(1).double(),
        torch.zeros(1, *SHAPE).double(),
        torch.eye(SIZE).double()[None],
        torch.zeros(1).long(),
    )
    delta = 0.1
    rule = LangevinCorrector(rule=cast(Any, Stay()), delta=delta, count=1)
    times = torch.linspace(0.5, 0.5 - 1e-9, 400, dtype=torch.float64)
    _, covariance = moments(rule, ExactDenoiser(data, COSINE), times)
    expected = torch.eye(SIZE).double() / (1 - delta * 0.5 / 4)
    torch.testing.assert_close(covariance, expected, atol=1e-6, rtol=0)


def test_langevin_repairs_a_wrong_variance() -> None:
    times = uniform_times(40)[:-4]
    denoiser = ExactDenoiser(GAUSSIAN, COSINE)
    alpha, sigma = COSINE.alpha_sigma(times[-1])
    truth = alpha**2 * GAUSSIAN.covariances[0] + sigma**2 * torch.eye(SIZE).double()

    def wrong(rule: StepRule[Any]) -> float:
        return float((moments(rule, denoiser, times)[1] - truth).abs().max())

    quiet = Ancestral(gamma=0.0)
    assert wrong(LangevinCorrector(rule=quiet, delta=0.1, count=2)) < 0.7 * wrong(quiet)


def ks_statistic(a: Tensor, b: Tensor) -> float:
    """The Kolmogorov-Smirnov distance of two samples of equal size."""
    both = torch.cat([a, b]).sort().values
    share_a = torch.searchsorted(a.sort().values, both, right=True) / len(a)
    share_b = torch.searchsorted(b.sort().values, both, right=True) / len(b)
    return float((share_a - share_b).abs().max())


def worst_ks(x: Tensor, y: Tensor) -> float:
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, -0.6]]).double()
    return max(ks_statistic(x.view(-1, SIZE) @ d, y.view(-1, SIZE) @ d) for d in directions)


COUNT = 3000
# Level 0.001 for each of four directions: sqrt(-log(0.0005) / n). A wrong distribution that is 0.08 away in any of
# the directions is then found with a probability above 0.98 (the statistic's own deviation is 0.013 at most).
CRITICAL = math.sqrt(-math.log(0.0005) / COUNT)
DATA = mixture(SHAPE, components=3, scale=0.25)


def chain(rule: StepRule[Any]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    times = uniform_times(60)
    noise = torch.randn(COUNT, *SHAPE, dtype=torch.float64, generator=generator)
    denoiser = ExactDenoiser(DATA, COSINE)
    return sample(denoiser, rule, times, noise, Conditioning(), generator=generator), DATA.sample(
        COUNT, generator
    )


@pytest.mark.parametrize("rule", STOCHASTIC.values(), ids=STOCHASTIC)
def test_two_samples_of_a_mixture_agree(rule: StepRule[Any]) -> None:
    got, truth = chain(rule)
    assert worst_ks(got, truth) < CRITICAL


def test_the_two_sample_test_has_power() -> None:
    _, truth = chain(DDIM())
    other = DATA.sample(COUNT, torch.Generator().manual_seed(12))
    assert worst_ks(other, truth) < CRITICAL
    spread = other.std(0)
    assert worst_ks(other + 0.2 * spread, truth) > CRITICAL
    assert worst_ks(other.mean(0) + (other - other.mean(0)) * 1.25, truth) > CRITICAL


LANGEVIN_TIME = torch.tensor(0.3, dtype=torch.float64)


def langevin(rule: StepRule[Any], z: Tensor, draw: Draw) -> Tensor:
    """`rule` on its spot, from z."""
    t = LANGEVIN_TIME
    result: Tensor = rule(ExactDenoiser(DATA, COSINE), z, t + 1e-9, t, Conditioning(), None, draw).z
    return result


def test_langevin_s_two_samples_agree_at_a_small_step() -> None:
    """At delta 0.02 the variance is off by half a percent at most, 0.001 in the statistic and far below its power.

    200 corrections leave a correlation of 0.4 with where they began: samples spread by a quarter too far become the
    marginal. Three quarters of the noise keep nothing.
    """
    generator = torch.Generator().manual_seed(3)
    rule = LangevinCorrector(rule=cast(Any, Stay()), delta=0.02, count=200)

    def marginal() -> Tensor:
        x0 = DATA.sample(COUNT, generator)
        return diffuse(x0, torch.randn(x0.shape, dtype=x0.dtype, generator=generator), LANGEVIN_TIME, COSINE)

    z, truth = marginal(), marginal()
    wide = z.mean(0) + 1.25 * (z - z.mean(0))
    draw = StepDraw(generator, 0)
    assert worst_ks(langevin(rule, z, draw), truth) < CRITICAL
    assert worst_ks(wide, truth) > CRITICAL
    assert worst_ks(langevin(rule, wide, draw), truth) < CRITICAL
    assert worst_ks(langevin(rule, z, lambda like: 0.75 * draw(like)), truth) > CRITICAL
    # And after the steps of a chain, on the way to the data.
    got, data = chain(LangevinCorrector(rule=Ancestral(gamma=0.0), delta=0.02))
    assert worst_ks(got, data) < CRITICAL


def test_churn_keeps_unit_variance_on_a_preserving_schedule() -> None:
    """Noise added at scale sigma, without alpha, would bring the variance of N(0, 1) data to 1.25."""
    data = Mixture(
        torch.ones(1).double(),
        torch.zeros(1, *SHAPE).double(),
        torch.eye(SIZE).double()[None],
        torch.zeros(1).long(),
    )
    rule = EDMChurn(rule=cast(Any, Stay()), churn=1e6)
    times = torch.tensor([0.5, 0.4], dtype=torch.float64)
    _, covariance = moments(rule, ExactDenoiser(data, COSINE), times)
    torch.testing.assert_close(covariance, torch.eye(SIZE).double(), atol=1e-12, rtol=0)


def test_restart_noise_is_there_and_has_its_size() -> None:
    """With a single point as data every level is known exactly, restarts included."""
    point = Mixture(
        torch.ones(1).double(),
        torch.full((1, *SHAPE), 0.3).double(),
        1e-18 * torch.eye(SIZE).double()[None],
        torch.zeros(1).long(),
    )
    times = uniform_times(8)[:-2]
    rule = Restart(rule=DDIM(), noisy_logsnr=-3.0, clean_logsnr=float(COSINE.logsnr(times[-1])), count=3)
    mean, covariance = moments(rule, ExactDenoiser(point, COSINE), times)
    alpha, sigma = COSINE.alpha_sigma(times[-1])
    torch.testing.assert_close(mean, torch.full((SIZE,), 0.3 * float(alpha)).double())
    torch.testing.assert_close(covariance, sigma**2 * torch.eye(SIZE).double(), atol=1e-9, rtol=0)
    drawn = 0

    def draw(like: Tensor) -> Tensor:
        nonlocal drawn
        drawn += 1
        return torch.zeros_like(like)

    z = torch.zeros(1, *SHAPE).double()
    rule(ExactDenoiser(point, COSINE), z, times[-2], times[-1], Conditioning(), rule.start(times), draw)
    assert drawn == 3


@dataclass(frozen=True)
class Given:
    """Noise that is known beforehand."""

    noise: Tensor

    def __call__(self, like: Tensor) -> Tensor:
        assert like.shape == self.noise.shape
        return self.noise


def test_churn_is_edm_algorithm_2_to_the_letter() -> None:
    """On a schedule with alpha = 1, against the algorithm written out with its own noise."""
    schedule = KarrasSchedule()
    times = karras_times(12, schedule)
    denoiser = ExactDenoiser(DATA, schedule)
    noise = [
        torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(i))
        for i in range(13)
    ]
    rule = EDMChurn(rule=EDMHeun(), churn=4.0, sigma_min=0.05, sigma_max=50.0, noise_scale=1.003)
    sigmas = [*schedule.alpha_sigma(times)[1].tolist()[:-1], 0.0]
    x = expected = 80.0 * noise[12]
    state = rule.start(times)
    for i in range(12):
        result = rule(denoiser, x, times[i], times[i + 1], Conditioning(), state, Given(noise[i]))
        x, state = result.z, result.state

        sigma, following = sigmas[i], sigmas[i + 1]
        gamma = min(4.0 / 12, math.sqrt(2) - 1) if 0.05 <= sigma <= 50 else 0.0
        raised = sigma * (1 + gamma)
        hat = expected + math.sqrt(raised**2 - sigma**2) * 1.003 * noise[i]

        def slope(at: Tensor, level: float) -> Tensor:
            one, level_ = torch.ones(()).double(), torch.tensor(level).double()
            return (at - DATA.denoise(at, one, level_)) / level

        d = slope(hat, raised)
        expected = hat + (following - raised) * d
        if following > 0:
            expected = hat + (following - raised) * (d + slope(expected, following)) / 2
    torch.testing.assert_close(x, expected, atol=1e-8, rtol=1e-8)


def test_diffused_data_is_where_a_chain_may_start() -> None:
    """A chain from t < 1 with diffused data ends at the data as well."""
    generator = torch.Generator().manual_seed(5)
    x0 = DATA.sample(COUNT, generator)
    t = torch.tensor(0.6, dtype=torch.float64)
    z = diffuse(x0, torch.randn(x0.shape, dtype=torch.float64, generator=generator), t, COSINE)
    got = sample(ExactDenoiser(DATA, COSINE), Heun(), uniform_times(50)[20:], z, Conditioning())
    assert worst_ks(got, DATA.sample(COUNT, generator)) < CRITICAL
