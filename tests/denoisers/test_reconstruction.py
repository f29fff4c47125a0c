from __future__ import annotations

from typing import Any

import pytest
import torch
from exact import ExactDenoiser, Mixture
from torch import Tensor

from vdm_blocks.denoisers import ReconstructionGuidance, Replacement
from vdm_blocks.diffusion import CosineSchedule, diffuse
from vdm_blocks.sampling import DDIM, Ancestral, LangevinCorrector, sample, uniform_times
from vdm_blocks.types import Conditioning, Denoised, Denoiser

SCHEDULE = CosineSchedule()
COND = Conditioning()
FRAMES = 4
SHAPE = (1, FRAMES, 1, 1)
KNOWN = (torch.arange(FRAMES) < 2).view(1, 1, FRAMES, 1, 1)


def walk() -> Mixture:
    """A video of four frames with one pixel, whose neighbours in time are alike: covariance 0.9^|i - j| / 4."""
    i = torch.arange(FRAMES, dtype=torch.float64)
    covariance = 0.25 * 0.9 ** (i[:, None] - i).abs()
    return Mixture(
        torch.ones(1).double(),
        torch.zeros(1, *SHAPE).double(),
        covariance[None],
        torch.zeros(1, dtype=torch.long),
    )


DATA = walk()
EXACT = ExactDenoiser(DATA, SCHEDULE)


def first_two(x: Tensor) -> Tensor:
    return x[:, :, :2]


def test_the_gradient_is_that_of_the_linear_denoiser() -> None:
    """For a Gaussian x0(z) = M z, so the gradient is 2 M^T A^T (A M z - measured)."""
    z = torch.randn(3, *SHAPE, dtype=torch.float64)
    t = torch.tensor(0.45, dtype=torch.float64)
    alpha, sigma = SCHEDULE.alpha_sigma(t)
    measured = torch.randn(3, 1, 2, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        got = ReconstructionGuidance(EXACT, measured, first_two, weight=3.0)(z, t, COND)
    covariance = DATA.covariances[0]
    m = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(FRAMES).double())
    flat = z.view(3, FRAMES)
    error = (flat @ m.T)[:, :2] - measured.view(3, 2)
    expected = flat @ m.T - 3.0 * alpha / 2 * 2 * error @ m[:2]
    torch.testing.assert_close(got.x0.view(3, FRAMES), expected)
    torch.testing.assert_close(alpha * got.x0 + sigma * got.eps, z)
    assert not got.x0.requires_grad


def test_the_outer_of_two_differentiates_through_the_inner() -> None:
    """x0 = g z: one gives z g (1 - w a g) + w a g m; the outer gradient has that slope, not the bare g."""
    z = torch.randn(2, *SHAPE, dtype=torch.float64)
    t, g, w = torch.tensor(0.45, dtype=torch.float64), 0.7, 0.3
    alpha = SCHEDULE.alpha_sigma(t)[0]
    first, second = torch.randn(2, *z.shape, dtype=torch.float64)

    class Scaled:
        schedule = SCHEDULE

        def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
            return Denoised(g * z_t, z_t)

    inner = ReconstructionGuidance(Scaled(), first, lambda x: x, weight=w)
    got = ReconstructionGuidance(inner, second, lambda x: x, weight=w)(z, t, COND).x0
    slope = g * (1 - w * alpha * g)
    once = slope * z + w * alpha * g * first
    torch.testing.assert_close(got, once + w * alpha * slope * (second - once))
    assert not got.requires_grad


def test_replacement_puts_the_known_frames_through_and_runs_them_by_their_own_law() -> None:
    generator = torch.Generator().manual_seed(0)
    video = DATA.sample(4000, generator)
    noise = torch.randn(video.shape, dtype=torch.float64, generator=generator)
    times = uniform_times(40)
    wrapped = Replacement(EXACT, video, KNOWN)
    got = sample(wrapped, Ancestral(gamma=0.0), times, noise, COND, generator=generator)
    assert torch.equal(got[:, :, :2], video[:, :, :2])
    half = sample(wrapped, Ancestral(gamma=0.0), times[:21], noise, COND, generator=generator)
    exact = diffuse(video, torch.randn(video.shape, dtype=torch.float64), times[20], SCHEDULE)
    residual = (half - SCHEDULE.alpha_sigma(times[20])[0] * video)[:, :, :2]
    assert abs(float(residual.std() / SCHEDULE.alpha_sigma(times[20])[1]) - 1) < 0.03
    assert abs(float(half[:, :, :2].std() / exact[:, :, :2].std()) - 1) < 0.04


def extend(denoiser: Denoiser, rule: Any, count: int = 600) -> tuple[Tensor, Tensor]:
    """Error of frame 2's conditional mean, and of its conditional deviation, given frames 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(count, *SHAPE, dtype=torch.float64, generator=generator)
    got = sample(denoiser, rule, uniform_times(80), noise, COND, generator=generator).view(count, FRAMES)
    return (got[:, 2].mean() - 0.9 * 0.7).abs(), (got[:, 2].std() - 0.5 * (1 - 0.9**2) ** 0.5).abs()


def test_guidance_makes_the_new_frames_follow_the_known_ones() -> None:
    """The chain given frame 1 = 0.7 goes on at 0.63; replacement alone does not, arXiv 2204.03458, section 3.1."""
    count = 600
    video = torch.zeros(count, *SHAPE, dtype=torch.float64)
    video[:, 0, :2] = torch.tensor([0.5, 0.7]).double().view(1, 2, 1, 1)
    alone, alone_spread = extend(Replacement(EXACT, video, KNOWN), Ancestral(gamma=0.0))
    guidance = ReconstructionGuidance(EXACT, first_two(video), first_two, weight=3.0)
    guided, guided_spread = extend(Replacement(guidance, video, KNOWN), Ancestral(gamma=0.0))
    assert float(alone) > 0.15
    assert float(guided) < 0.4 * float(alone)
    assert float(guided_spread) < 0.06
    corrected, _ = extend(Replacement(guidance, video, KNOWN), LangevinCorrector(rule=Ancestral(gamma=0.0)))
    assert float(corrected) < 0.4 * float(alone)
    assert float(alone_spread) > 0


def test_frames_between_are_filled_in() -> None:
    count = 300
    known = torch.tensor([True, False, False, True]).view(1, 1, FRAMES, 1, 1)
    video = torch.full((count, *SHAPE), 0.8, dtype=torch.float64)

    def ends(x: Tensor) -> Tensor:
        return x[:, :, (0, 3)]

    noise = torch.randn(count, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    guidance = ReconstructionGuidance(EXACT, ends(video), ends, weight=3.0)
    got = sample(Replacement(guidance, video, known), DDIM(), uniform_times(60), noise, COND).view(
        count, FRAMES
    )
    inner, outer = DATA.covariances[0][1:3][:, [0, 3]], DATA.covariances[0][[0, 3]][:, [0, 3]]
    expected = (inner @ torch.linalg.inv(outer) @ torch.full((2,), 0.8).double()).mean()
    assert abs(float(got[:, 1:3].mean() - expected)) < 0.12
    assert torch.equal(got[:, [0, 3]], torch.full((count, 2), 0.8, dtype=torch.float64))


def test_super_resolution_with_an_unconditional_model() -> None:
    """Eq. 8: measured is the mean of neighbouring pixels, and the sample's own mean comes to agree with it."""

    def pooled(x: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool3d(x, (2, 1, 1))

    count = 200
    low = torch.tensor([0.6, -0.4]).double().view(1, 1, 2, 1, 1).expand(count, 1, 2, 1, 1)
    noise = torch.randn(count, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    free = sample(EXACT, DDIM(), uniform_times(60), noise, COND)
    guided = sample(ReconstructionGuidance(EXACT, low, pooled, 4.0), DDIM(), uniform_times(60), noise, COND)
    assert float((pooled(guided) - low).abs().mean()) < 0.05 < 0.3 < float((pooled(free) - low).abs().mean())


def test_weight_0_is_off_and_needs_no_gradient() -> None:
    class NoGradient:
        schedule = SCHEDULE

        def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Any:
            return EXACT(z_t.detach(), t, cond)

    z, t = torch.randn(2, *SHAPE, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    got = ReconstructionGuidance(NoGradient(), first_two(z), first_two, 0.0)(z, t, COND)
    assert torch.equal(got.x0, EXACT(z, t, COND).x0)


def test_bad_masks_measurements_and_weights_are_refused() -> None:
    z = torch.zeros(2, *SHAPE)
    with pytest.raises(ValueError, match=r"torch\.bool"):
        Replacement(EXACT, z, torch.ones(FRAMES))
    with pytest.raises(ValueError, match="broadcast"):
        Replacement(EXACT, z, torch.ones(1, 1, 3, 1, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="weight is -1"):
        ReconstructionGuidance(EXACT, z, first_two, -1.0)
    with pytest.raises(ValueError, match="element by element"):
        ReconstructionGuidance(EXACT, z, first_two, 1.0)(z.double(), torch.tensor(0.5).double(), COND)
