"""The guidance methods: against exact distributions, and what each owes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from exact import SHAPE, ExactDenoiser, Mixture, gaussian, label_conditioning, mixture
from torch import Tensor

from vdm_blocks.denoisers import (
    Autoguidance,
    ClassifierFreeGuidance,
    ConditionAnnealing,
    Guide,
    Interval,
    MultiGuidance,
    Oscillating,
    Passes,
    ProjectedGuidance,
    RescaledGuidance,
)
from vdm_blocks.diffusion import CosineSchedule, KeyedNoise, LinearLogSNRSchedule, NoiseSchedule
from vdm_blocks.sampling import DDIM, Heun, sample, uniform_times
from vdm_blocks.types import Conditioning, Denoised, Denoiser

SCHEDULE = CosineSchedule()
DATA = mixture()
EXACT = ExactDenoiser(DATA, SCHEDULE)
COND = label_conditioning([0, 1, 0])
T = torch.tensor(0.4, dtype=torch.float64)
Z = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@dataclass
class Counted:
    """Counts the evaluations and the samples in them."""

    denoiser: Denoiser
    batches: list[int] = field(default_factory=list)

    @property
    def schedule(self) -> NoiseSchedule:
        return self.denoiser.schedule

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        self.batches.append(z_t.shape[0])
        return self.denoiser(z_t, t, cond)


def consistent(denoised: Denoised, z_t: Tensor, t: Tensor) -> bool:
    alpha, sigma = SCHEDULE.alpha_sigma(t)
    return torch.allclose(alpha * denoised.x0 + sigma * denoised.eps, z_t)


METHODS: dict[str, Any] = {
    "classifier-free": ClassifierFreeGuidance,
    "rescaled": RescaledGuidance,
    "projected": ProjectedGuidance,
    "multi": lambda d, scale: MultiGuidance(d, [Guide(without=Conditioning.without_text, scale=scale)]),
    "auto": lambda d, scale: Autoguidance(d, ExactDenoiser(mixture(seed=3), SCHEDULE), scale),
}


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_scale_1_is_the_denoiser_itself_at_the_cost_of_one_evaluation(make: Any) -> None:
    counted = Counted(EXACT)
    got = make(counted, 1.0)(Z, T, COND)
    assert counted.batches == [3]
    torch.testing.assert_close(got.x0, EXACT(Z, T, COND).x0, rtol=0, atol=0)


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_guidance_leaves_x0_and_eps_consistent_and_does_something(make: Any) -> None:
    got = make(EXACT, 4.0)(Z, T, COND)
    assert consistent(got, Z, T)
    assert float((got.x0 - EXACT(Z, T, COND).x0).abs().max()) > 1e-3


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_a_level_per_sample_is_that_of_each_sample_alone(make: Any) -> None:
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    together = make(EXACT, 3.0)(Z, t, COND)
    for i in range(3):
        one = slice(i, i + 1)
        alone = make(EXACT, 3.0)(Z[one], t[i], COND.select(one))
        torch.testing.assert_close(together.x0[one], alone.x0)
        torch.testing.assert_close(together.eps[one], alone.eps)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0, 16.0])
def test_classifier_free_guidance_is_what_it_says(scale: float) -> None:
    guided = ClassifierFreeGuidance(EXACT, scale)(Z, T, COND)
    cond, uncond = EXACT(Z, T, COND), EXACT(Z, T, COND.without_text())
    torch.testing.assert_close(guided.x0, (1 - scale) * uncond.x0 + scale * cond.x0)
    torch.testing.assert_close(guided.eps, (1 - scale) * uncond.eps + scale * cond.eps)
    alpha, sigma = SCHEDULE.alpha_sigma(T)
    exact = DATA.guided(Z, alpha, sigma, torch.tensor([0, 1, 0]), scale)
    torch.testing.assert_close(guided.x0, exact)


def test_scale_0_is_one_unconditional_evaluation() -> None:
    counted = Counted(EXACT)
    got = ClassifierFreeGuidance(counted, 0.0)(Z, T, COND)
    assert counted.batches == [3]
    assert torch.equal(got.x0, EXACT(Z, T, COND.without_text()).x0)


def multi(denoiser: Denoiser, scale: float, *, both: Passes = Passes.APART) -> MultiGuidance:
    return MultiGuidance(denoiser, [Guide(without=Conditioning.without_text, scale=scale)], both=both)


@pytest.mark.parametrize("make", [ClassifierFreeGuidance, RescaledGuidance, ProjectedGuidance, multi])
def test_without_any_text_there_is_nothing_to_guide(make: Any) -> None:
    counted = Counted(EXACT)
    got = make(counted, 6.0)(Z, T, Conditioning())
    assert counted.batches == [3]
    torch.testing.assert_close(got.x0, EXACT(Z, T, Conditioning()).x0)


@pytest.mark.parametrize("make", [ClassifierFreeGuidance, RescaledGuidance, ProjectedGuidance, multi])
def test_both_evaluations_together_or_apart_agree(make: Any) -> None:
    for t in (T, torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)):
        apart, together = Counted(EXACT), Counted(EXACT)
        a = make(apart, 5.0)(Z, t, COND)
        b = make(together, 5.0, both=Passes.TOGETHER)(Z, t, COND)
        assert (apart.batches, together.batches) == ([3, 3], [6])
        torch.testing.assert_close(a.x0, b.x0)
        torch.testing.assert_close(a.eps, b.eps)


def test_a_chain_pays_for_guidance_only_where_it_is_on() -> None:
    times = uniform_times(20)
    counted = Counted(EXACT)
    sample(ClassifierFreeGuidance(counted, Oscillating(times=times)), DDIM(), times, Z, COND)
    assert len(counted.batches) == 20 + 11  # two constant steps and every second of the eighteen others
    counted = Counted(EXACT)
    scale = Interval(scale=3.0, low_logsnr=-1.0, high_logsnr=1.0)
    sample(ClassifierFreeGuidance(counted, scale), DDIM(), times, Z, COND)
    inside = SCHEDULE.logsnr(times[:-1])
    assert len(counted.batches) == 20 + int(((inside >= -1) & (inside < 1)).sum())


def two_gaussians() -> Mixture:
    """Class 0 and class 1: Gaussians with means apart and one covariance."""
    a, b = gaussian(seed=0), gaussian(seed=1)
    return Mixture(
        torch.full((2,), 0.5).double(),
        torch.cat([a.means, b.means]),
        torch.cat([a.covariances, a.covariances]),
        torch.arange(2),
    )


def away_from_class_1(cond: Conditioning) -> Conditioning:
    assert cond.text is not None
    return replace(cond, text=torch.ones_like(cond.text))


def guided_map(data: Mixture, scale: float, steps: int) -> tuple[Tensor, Tensor]:
    """The grid, and the end at log-SNR 6 of the guided chain from log-SNR -9, with class 0 against class 1."""
    times = SCHEDULE.time(torch.linspace(-9, 6, steps + 1, dtype=torch.float64))
    guided = ClassifierFreeGuidance(ExactDenoiser(data, SCHEDULE), scale, unconditional=away_from_class_1)
    return times, sample(guided, Heun(), times, Z, label_conditioning([0, 0, 0]))


def test_guidance_samples_the_tilt_where_the_covariances_are_equal() -> None:
    """p_0^s p_1^(1-s) is then the Gaussian with mean m_1 + s (m_0 - m_1), at every noise level."""
    data, scale = two_gaussians(), 3.0
    times, got = guided_map(data, scale, 200)
    tilted = Mixture(
        torch.ones(1).double(),
        data.means[1:].lerp(data.means[:1], scale),
        data.covariances[:1],
        torch.zeros(1).long(),
    )
    torch.testing.assert_close(got, tilted.flow(Z, times[0], times[-1], SCHEDULE), atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("scale", "tilt", "sampled"), [(1.0, 0.5, 0.5), (2.0, 0.3780, 0.25), (3.0, 0.3162, 0.125)]
)
def test_guidance_does_not_sample_the_tilt_where_they_differ(
    scale: float, tilt: float, sampled: float
) -> None:
    """The table of docs/guidance.md: deviations 0.5 and 1 around 0, guided, against the product of powers.

    The flow is linear, and its end's variance is v^s w^(1-s) in closed form (up to the ends of the log-SNR).
    """
    v, w = 0.25, 1.0
    data = Mixture(
        torch.full((2,), 0.5).double(),
        torch.zeros(2, *SHAPE).double(),
        torch.stack([v * torch.eye(Z[0].numel()), w * torch.eye(Z[0].numel())]).double(),
        torch.arange(2),
    )
    times, got = guided_map(data, scale, 200)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = SCHEDULE.alpha_sigma(times[0]), SCHEDULE.alpha_sigma(times[-1])
    start, end = (sigma_t / alpha_t) ** 2, (sigma_s / alpha_s) ** 2
    growth = ((v + end) / (v + start)) ** (scale / 2) * ((w + end) / (w + start)) ** ((1 - scale) / 2)
    torch.testing.assert_close(got, Z * alpha_s / alpha_t * growth, atol=5e-4, rtol=0)
    assert (v**scale * w ** (1 - scale)) ** 0.5 == pytest.approx(sampled, abs=1e-4)
    assert (scale / v + (1 - scale) / w) ** -0.5 == pytest.approx(tilt, abs=1e-4)
    assert float(start**0.5 * growth / (1 + end) ** 0.5) == pytest.approx(sampled, rel=0.05)


def test_two_guides_are_the_nested_formula() -> None:
    """D(none) + s_2 (D(text) - D(none)) + s_1 (D(both) - D(text)), arXiv 2211.09800, eq. 3."""

    class Said:
        schedule = SCHEDULE

        def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
            value = 1.0 + (10.0 if "image" in cond.extra else 0.0)
            if cond.text_mask is not None and bool(cond.text_mask.any()):
                value += 100.0
            return Denoised(torch.full_like(z_t, value), torch.full_like(z_t, -value))

    cond = replace(COND, extra={"image": torch.zeros(3, 1)})
    guides = [
        Guide(without=lambda c: replace(c, extra={}), scale=2.0),
        Guide(without=Conditioning.without_text, scale=5.0),
    ]
    counted = Counted(Said())
    got = MultiGuidance(counted, guides)(Z, T, cond)
    assert len(counted.batches) == 3
    assert torch.equal(got.x0, torch.full_like(Z, 1 + 5 * 100 + 2 * 10))
    assert torch.equal(got.eps, -got.x0)
    same = [replace(guide, scale=3.0) for guide in guides]
    counted = Counted(Said())
    assert torch.equal(MultiGuidance(counted, same)(Z, T, cond).x0, torch.full_like(Z, 1 + 3 * 110))
    assert len(counted.batches) == 2  # the middle one has no weight
    with pytest.raises(ValueError, match="at least one"):
        MultiGuidance(Said(), [])


def test_rescaling_takes_over_the_contrast() -> None:
    def std(x: Tensor) -> Tensor:
        return x.flatten(1).std(dim=1)

    cond = EXACT(Z, T, COND).x0
    full = RescaledGuidance(EXACT, 8.0, share=1.0)(Z, T, COND).x0
    torch.testing.assert_close(std(full), std(cond))
    none = RescaledGuidance(EXACT, 8.0, share=0.0)(Z, T, COND).x0
    torch.testing.assert_close(none, ClassifierFreeGuidance(EXACT, 8.0)(Z, T, COND).x0)
    with pytest.raises(ValueError, match=r"share is 1\.2"):
        RescaledGuidance(EXACT, 8.0, share=1.2)


def test_projected_guidance_moves_at_right_angles_and_no_further_than_its_radius() -> None:
    cond = EXACT(Z, T, COND).x0
    plain = ClassifierFreeGuidance(EXACT, 5.0)(Z, T, COND)
    torch.testing.assert_close(ProjectedGuidance(EXACT, 5.0, eta=1.0)(Z, T, COND).x0, plain.x0)
    move = (ProjectedGuidance(EXACT, 5.0)(Z, T, COND).x0 - cond).flatten(1)
    torch.testing.assert_close((move * cond.flatten(1)).sum(1), torch.zeros(3).double(), atol=1e-10, rtol=0)
    short = (ProjectedGuidance(EXACT, 5.0, eta=1.0, radius=0.01)(Z, T, COND).x0 - cond).flatten(1)
    torch.testing.assert_close(short.norm(dim=1), torch.full((3,), 0.04).double())
    with pytest.raises(ValueError, match="radius is 0"):
        ProjectedGuidance(EXACT, radius=0.0)


def test_autoguidance_takes_a_second_network() -> None:
    bad = ExactDenoiser(mixture(seed=5), SCHEDULE)
    got = Autoguidance(EXACT, bad, 2.5)(Z, T, COND)
    expected = bad(Z, T, COND).x0 + 2.5 * (EXACT(Z, T, COND).x0 - bad(Z, T, COND).x0)
    torch.testing.assert_close(got.x0, expected)
    with pytest.raises(ValueError, match="same schedule"):
        Autoguidance(EXACT, ExactDenoiser(DATA, LinearLogSNRSchedule()))


def text_cond(batch: int) -> Conditioning:
    text = torch.randn(batch, 6, 8, generator=torch.Generator().manual_seed(1)) * 2 + 1
    mask = torch.arange(6).expand(batch, 6) < 5
    return Conditioning(text=text, text_mask=mask)


def test_annealing_blurs_the_text_at_first_and_keeps_its_moments() -> None:
    noise = KeyedNoise(seeds=(1, 2), stage="base")
    annealing = ConditionAnnealing(EXACT, noise, strength=0.2)
    cond = text_cond(2)
    assert annealing.annealed(torch.tensor(0.59), cond) is cond
    assert cond.text is not None
    half = annealing.annealed(torch.tensor(0.75), cond).text
    full = annealing.annealed(torch.tensor(0.95), cond).text
    assert half is not None
    assert full is not None
    for text in (half, full):
        assert torch.equal(text[:, 5], cond.text[:, 5])  # padding stays
        for x, y in zip(text[:, :5], cond.text[:, :5], strict=True):
            torch.testing.assert_close(x.mean(), y.mean())
            torch.testing.assert_close(x.std(), y.std())
    likeness = [
        float(torch.corrcoef(torch.stack([x[0, :5].flatten(), cond.text[0, :5].flatten()]))[0, 1])
        for x in (half, full)
    ]
    assert likeness[0] > 0.9
    assert abs(likeness[1]) < 0.5


def test_annealing_in_half_precision_holds_a_long_wide_caption() -> None:
    text = (
        3 * torch.randn(1, 20, 4096, generator=torch.Generator().manual_seed(0)).half()
    )  # its squares sum to 737,000
    cond = Conditioning(text=text, text_mask=torch.ones(1, 20, dtype=torch.bool))
    annealing = ConditionAnnealing(EXACT, KeyedNoise(seeds=(1,), stage="base"))
    t = torch.tensor(0.8, dtype=torch.float64)
    half, single = (
        annealing.annealed(t, cond).text,
        annealing.annealed(t, replace(cond, text=text.float())).text,
    )
    assert half is not None
    assert single is not None
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), single, rtol=2e-3, atol=2e-3)


def test_annealing_is_a_function_of_its_arguments_and_of_each_sample_alone() -> None:
    noise = KeyedNoise(seeds=(1, 2), stage="base")
    cond = text_cond(2)
    t = torch.tensor(0.8, dtype=torch.float64)
    annealing = ConditionAnnealing(EXACT, noise)
    both = annealing.annealed(t, cond).text
    again = annealing.annealed(t, cond).text
    alone = ConditionAnnealing(EXACT, noise.select([1])).annealed(t, cond.select(slice(1, 2))).text
    assert both is not None
    assert again is not None
    assert alone is not None
    assert torch.equal(both, again)
    torch.testing.assert_close(both[1:], alone)
    later = annealing.annealed(t - 0.01, cond).text
    assert later is not None
    assert not torch.equal(both, later)


def test_bad_annealing_is_refused() -> None:
    noise = KeyedNoise(seeds=(1, 2, 3), stage="base")
    with pytest.raises(ValueError, match=r"clear=0\.9"):
        ConditionAnnealing(EXACT, noise, clear=0.9, blurred=0.6)
    with pytest.raises(ValueError, match="one level"):
        ConditionAnnealing(EXACT, noise)(Z, torch.full((3,), 0.5), COND)
    assert math.isfinite(float(ConditionAnnealing(EXACT, noise)(Z, T + 0.4, COND).x0.sum()))
