from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from exact import ExactDenoiser, gaussian, mixture
from torch import Tensor

from vdm_blocks.diffusion import (
    CosineSchedule,
    KarrasSchedule,
    KeyedNoise,
    LearnedSchedule,
    LinearLogSNRSchedule,
    NoiseSchedule,
    RectifiedFlowSchedule,
    SigmoidSchedule,
    diffuse,
    expand_level,
    logsnr_slope,
)
from vdm_blocks.training import (
    Bits,
    DiscreteDecoder,
    HutchinsonTrace,
    bits_per_dimension,
    dequantize,
    flow_log_likelihood,
    variational_bound,
)
from vdm_blocks.types import Conditioning, Denoised

NOTHING = Conditioning()
SHAPE = (3, 8, 16, 32)


def bent() -> LearnedSchedule:
    schedule = LearnedSchedule(bins=8)
    torch.nn.init.normal_(schedule.logits, std=0.5, generator=torch.Generator().manual_seed(0))
    return schedule


SCHEDULES: dict[str, NoiseSchedule] = {  # all from 20 to -20
    "cosine": CosineSchedule(),
    "linear": LinearLogSNRSchedule(),
    "sigmoid": SigmoidSchedule(),
    "flow": RectifiedFlowSchedule(logsnr_min=-20.0, logsnr_max=20.0),
    "karras": KarrasSchedule(sigma_min=math.exp(-10), sigma_max=math.exp(10)),
    "learned": bent(),
}


class Diagonal:
    """The best denoiser of independent Gaussians of mean 0, for videos too large for a full covariance."""

    def __init__(self, variance: Tensor, schedule: NoiseSchedule) -> None:
        self.variance, self.schedule = variance, schedule

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        alpha, sigma = (expand_level(level, z_t) for level in self.schedule.alpha_sigma(t))
        marginal = alpha**2 * self.variance + sigma**2
        return Denoised(z_t * (alpha * self.variance / marginal), z_t * (sigma / marginal))


@pytest.mark.parametrize("name", ["cosine", "flow"])
def test_bits_are_the_entropy_to_three_decimals(name: str) -> None:
    """1024 videos of 12288 numbers; the seed is fixed, the standard error is about 0.0004."""
    g = torch.Generator().manual_seed(0)
    variance = torch.rand(SHAPE, generator=g) * 0.4 + 0.05
    entropy = 0.5 * float((2 * math.pi * math.e * variance.double()).log2().mean())
    denoiser = Diagonal(variance, SCHEDULES[name])
    parts = []
    for _ in range(2):
        x0 = torch.randn(512, *SHAPE, generator=g) * variance.sqrt()
        parts.append(variational_bound(denoiser, x0, NOTHING, generator=g, draws=8))
    bits = Bits.cat(parts)
    assert bits.standard_error < 7e-4
    assert abs(bits.mean - entropy) < 2.5 * bits.standard_error
    assert abs(bits.mean - entropy) < 1e-3


@pytest.mark.parametrize("name", SCHEDULES)
def test_bound_is_the_entropy_on_any_schedule(name: str) -> None:
    """A full covariance, so that x0 and eps of the answer mix the entries; the same ends give the same bound."""
    data, g = gaussian(), torch.Generator().manual_seed(0)
    denoiser = ExactDenoiser(data, SCHEDULES[name])
    bits = variational_bound(denoiser, data.sample(4000, g), NOTHING, generator=g, draws=2)
    entropy = data.entropy() / data.size / math.log(2)
    assert bits.standard_error < 0.04
    assert abs(bits.mean - entropy) < 3 * bits.standard_error


def test_the_standard_error_is_that_of_repetitions() -> None:
    data, g = gaussian((1, 2, 2, 2)), torch.Generator().manual_seed(0)
    denoiser = ExactDenoiser(data, CosineSchedule())
    runs = [variational_bound(denoiser, data.sample(200, g), NOTHING, generator=g) for _ in range(60)]
    actual = float(torch.tensor([r.mean for r in runs]).std())
    stated = sum(r.standard_error for r in runs) / len(runs)
    assert 0.7 < stated / actual < 1.4


def test_a_worse_denoiser_has_more_bits() -> None:
    """By the exact gap: half the integral of the excess error, which a wrong variance makes."""
    variance, wrong = torch.full(SHAPE, 0.25), torch.full(SHAPE, 0.5)
    g = torch.Generator().manual_seed(0)
    x0 = torch.randn(200, *SHAPE, generator=g) * 0.5
    best, worse = (
        variational_bound(
            Diagonal(v, CosineSchedule()), x0, NOTHING, generator=torch.Generator().manual_seed(1)
        )
        for v in (variance, wrong)
    )
    divergence = (
        0.5 * (0.25 / 0.5 - 1 + math.log(0.5 / 0.25)) / math.log(2)
    )  # KL of N(0, 0.25) from N(0, 0.5)
    assert abs((worse.mean - best.mean) - divergence) < 0.003


def test_parts_of_the_bound_are_what_they_should_be() -> None:
    schedule = CosineSchedule(logsnr_min=-4.0, logsnr_max=8.0)
    x0 = torch.full((64, 1, 2, 2, 2), 0.5, dtype=torch.float64)
    point = Diagonal(torch.zeros(1, dtype=torch.float64), schedule)
    shifted = variational_bound(point, x0, NOTHING, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(shifted.prior, torch.full((64,), 0.5 * 0.25 * math.exp(-4) / math.log(2)).double())
    decoder = 0.5 * (math.log(2 * math.pi * math.e) - 8) / math.log(2)
    assert torch.allclose(shifted.reconstruction, torch.full((64,), decoder).double())
    assert torch.allclose(shifted.total, shifted.prior + shifted.reconstruction + shifted.diffusion)


def test_the_bound_of_large_half_precision_videos_is_summed_in_double() -> None:
    schedule = CosineSchedule(logsnr_min=-4.0, logsnr_max=8.0)
    x0 = torch.ones(1, 3, 6, 64, 64, dtype=torch.float16)  # 73,728 of them, beyond the largest float16
    bits = variational_bound(Diagonal(torch.zeros(1).half(), schedule), x0, NOTHING)
    assert float(bits.prior) == pytest.approx(0.5 * math.exp(-4) / math.log(2))
    assert float(bits.reconstruction) == pytest.approx(
        0.5 * (math.log(2 * math.pi * math.e) - 8) / math.log(2)
    )


class Signs:
    """The best denoiser of entries that are -1 or 1 with equal chance: x0 = tanh(alpha z / sigma^2)."""

    schedule = CosineSchedule()

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        alpha, sigma = (expand_level(level, z_t) for level in self.schedule.alpha_sigma(t))
        x0 = torch.tanh(alpha * z_t / sigma**2)
        return Denoised(x0, (z_t - alpha * x0) / sigma)


def test_discrete_data_cost_their_bits() -> None:
    """A fair coin an entry is one bit; decoded among 256 levels each of them is still certain."""
    g = torch.Generator().manual_seed(0)
    x0 = torch.where(torch.rand(400, 2, 4, 8, 8, generator=g, dtype=torch.float64) < 0.5, -1.0, 1.0).double()
    bits = variational_bound(Signs(), x0, NOTHING, generator=g, decoder=DiscreteDecoder(levels=2))
    assert bits.standard_error < 0.02
    assert abs(bits.mean - 1) < 4 * bits.standard_error
    for levels in (2, 256):
        eps, end = torch.randn(x0[:8].shape, generator=g, dtype=torch.float64), torch.tensor(20.0)
        assert DiscreteDecoder(levels=levels).nats(x0[:8], eps, end).abs().max() < 1e-6
    with pytest.raises(ValueError, match="round it to them"):
        variational_bound(Signs(), x0 * 0.99, NOTHING, decoder=DiscreteDecoder(levels=256))
    with pytest.raises(ValueError, match="at least 2"):
        DiscreteDecoder(levels=1)


def test_the_discrete_decoder_is_a_distribution_over_levels() -> None:
    logsnr, levels = torch.tensor(1.0, dtype=torch.float64), 5
    values = torch.linspace(-1, 1, levels, dtype=torch.float64).view(levels, 1, 1, 1, 1)
    z_0 = torch.tensor(0.3, dtype=torch.float64)
    eps = z_0 - math.exp(0.5) * values  # the noise that each level would have needed; z_0 in units of sigma
    nats = DiscreteDecoder(levels=levels).nats(values, eps, logsnr)
    assert abs(float(torch.exp(-nats).sum()) - 1) < 1e-12


def test_bound_by_key_does_not_depend_on_the_batch() -> None:
    data = gaussian()
    x0, noise = (
        data.sample(4, torch.Generator().manual_seed(0)),
        KeyedNoise(seeds=(5, 6, 7, 8), stage="bound"),
    )
    denoiser = ExactDenoiser(data, CosineSchedule())
    whole = variational_bound(denoiser, x0, NOTHING, generator=noise, draws=3).total
    alone = variational_bound(denoiser, x0[2:3], NOTHING, generator=noise.select([2]), draws=3).total
    assert torch.allclose(alone[0], whole[2], rtol=1e-12)
    with pytest.raises(ValueError, match="at least 1"):
        variational_bound(denoiser, x0, NOTHING, draws=0)
    with pytest.raises(ValueError, match="no standard error"):
        _ = variational_bound(denoiser, x0[:1], NOTHING).standard_error


def test_a_learned_schedule_makes_the_bound_vary_five_times_less() -> None:
    """The plain estimate, slope / 2 |eps - eps_hat|^2 at uniform times, from a straight line between 20 and -20."""
    data, schedule = gaussian((1, 3, 2, 2)), LearnedSchedule(bins=32)
    denoiser, g = ExactDenoiser(data, schedule), torch.Generator().manual_seed(0)

    def integrand(count: int) -> tuple[Tensor, Tensor]:
        x0, t = data.sample(count, g), torch.rand(count, generator=g, dtype=torch.float64)
        eps = torch.randn(x0.shape, generator=g, dtype=torch.float64)
        with torch.no_grad():
            eps_hat = denoiser(diffuse(x0, eps, t, schedule), t, NOTHING).eps
        return t, 0.5 * (eps - eps_hat).square().flatten(1).mean(1)

    def estimates() -> Tensor:
        t, value = integrand(20_000)
        return -logsnr_slope(schedule, t) * value

    before = estimates()
    optimizer = torch.optim.Adam(schedule.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        schedule.variance_loss(*integrand(256)).backward()
        optimizer.step()
    after = estimates()
    assert after.var() < before.var() / 5
    standard_error = ((before.var() + after.var()) / 20_000).sqrt()
    assert (before.mean() - after.mean()).abs() < 4 * standard_error


@pytest.mark.parametrize("name", ["cosine", "flow", "karras"])
def test_flow_likelihood_is_the_density(name: str) -> None:
    """To 3e-4 nats, or 2e-3 where classes part; what is left is mostly the trace of the data's mean in z_1."""
    g = torch.Generator().manual_seed(0)
    for data, tolerance in ((gaussian((1, 3, 2, 2)), 3e-4), (mixture((1, 3, 2, 2)), 2e-3)):
        x0 = data.sample(4, g)
        found = flow_log_likelihood(ExactDenoiser(data, SCHEDULES[name]), x0, NOTHING, steps=32)
        assert (found - data.log_density(x0)).abs().max() < tolerance


def test_flow_likelihood_is_of_fourth_order() -> None:
    data = gaussian((1, 2, 2, 1))
    denoiser, x0 = ExactDenoiser(data, CosineSchedule()), data.sample(4, torch.Generator().manual_seed(0))
    fine = flow_log_likelihood(denoiser, x0, NOTHING, steps=96)
    errors = [(flow_log_likelihood(denoiser, x0, NOTHING, steps=n) - fine).abs().max() for n in (6, 12, 24)]
    slopes = [float((coarse / finer).log2()) for coarse, finer in pairwise(errors)]
    assert all(3.3 < slope < 5 for slope in slopes), slopes


def test_random_signs_find_the_trace_on_average() -> None:
    data, g = gaussian(), torch.Generator().manual_seed(0)
    x0 = data.sample(1, g)
    many = x0.expand(400, *x0.shape[1:])
    denoiser = ExactDenoiser(data, CosineSchedule())
    found = flow_log_likelihood(denoiser, many, NOTHING, steps=16, trace=HutchinsonTrace(), generator=g)
    exact = flow_log_likelihood(denoiser, x0, NOTHING, steps=16)
    assert abs(float(found.mean() - exact[0])) < 4 * float(found.std()) / 400**0.5
    more = flow_log_likelihood(
        denoiser, many[:50], NOTHING, steps=16, trace=HutchinsonTrace(count=16), generator=g
    )
    assert more.std() < found.std() / 2.5
    for make in (
        lambda: HutchinsonTrace(count=0),
        lambda: flow_log_likelihood(denoiser, x0, NOTHING, steps=0),
    ):
        with pytest.raises(ValueError, match="at least 1"):
            make()


def test_dequantised_likelihood_bounds_the_bits_of_discrete_data() -> None:
    """A smooth density cut into 64 levels: the bound lies above the entropy of the levels, by less than 0.01 bits."""
    levels, std, g = 64, 0.3, torch.Generator().manual_seed(0)
    values = torch.linspace(-1, 1, levels, dtype=torch.float64)
    chance = torch.softmax(-0.5 * (values / std) ** 2, 0)
    entropy = -float((chance * chance.log2()).sum())
    x0 = values[torch.multinomial(chance, 4096, replacement=True, generator=g)].view(256, 1, 4, 2, 2)
    spread = dequantize(x0, levels, generator=g)
    assert (spread - x0).abs().max() <= 1 / (levels - 1)
    assert torch.equal(((spread + 1) / 2 * (levels - 1)).round(), ((x0 + 1) / 2 * (levels - 1)).round())
    density = Diagonal(torch.full((1,), std**2 + (2 / 63) ** 2 / 12, dtype=torch.float64), CosineSchedule())
    nats = flow_log_likelihood(density, spread, NOTHING, steps=16)
    bits = bits_per_dimension(nats, 16, levels=levels)
    empirical = -float(chance.log2()[((x0 + 1) / 2 * (levels - 1)).round().long()].mean())
    assert -1e-3 < float(bits.mean()) - empirical < 0.01
    assert abs(empirical - entropy) < 0.05
    keyed = KeyedNoise(seeds=tuple(range(256)), stage="data")
    assert torch.equal(
        dequantize(x0[3:4], levels, generator=keyed.select([3]))[0],
        dequantize(x0, levels, generator=keyed)[3],
    )
    with pytest.raises(ValueError, match="at least 2"):
        dequantize(x0, 1)
