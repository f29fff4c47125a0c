from __future__ import annotations

import pytest
import torch
from allocations import peak_bytes
from exact import SHAPE, ExactDenoiser, label_conditioning, mixture
from torch import Tensor

from vdm_blocks.denoisers import ClassifierFreeGuidance, DynamicThreshold, StaticThreshold, ThresholdPer
from vdm_blocks.diffusion import CosineSchedule, KarrasSchedule, NoiseSchedule, RectifiedFlowSchedule
from vdm_blocks.sampling import DDIM, sample, uniform_times
from vdm_blocks.types import Conditioning, Denoised

COND = Conditioning()
T = torch.tensor(0.5, dtype=torch.float64)


class Answers:
    """A denoiser that always gives the same x0."""

    def __init__(self, x0: Tensor, schedule: NoiseSchedule | None = None) -> None:
        self.x0 = x0
        self.schedule = CosineSchedule() if schedule is None else schedule

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        return Denoised(self.x0, z_t)


def loud(batch: int = 2) -> Tensor:
    return 3 * torch.randn(batch, 3, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_static_is_a_clip_and_dynamic_is_not() -> None:
    x0 = loud()
    static = StaticThreshold(Answers(x0))(x0, T, COND).x0
    assert torch.equal(static, x0.clamp(-1, 1))
    dynamic = DynamicThreshold(Answers(x0))(x0, T, COND).x0
    assert float(dynamic.abs().max()) == 1.0
    assert float((dynamic.abs() == 1).double().mean()) < 0.01 < float((static.abs() == 1).double().mean())


def test_dynamic_is_the_papers_three_lines() -> None:
    """s = percentile(|x0|, p); s = max(s, 1); clip(x0, -s, s) / s, a sample at a time (arXiv 2205.11487)."""
    x0 = torch.cat([loud(2), 0.1 * loud(1)])
    got = DynamicThreshold(Answers(x0), quantile=0.9)(x0, T, COND).x0
    for i in range(3):
        s = torch.quantile(x0[i].abs().flatten(), 0.9).clamp(min=1)
        torch.testing.assert_close(got[i], x0[i].clamp(-s, s) / s)
    assert torch.equal(got[2], x0[2])  # within range: left alone


def test_per_frame_and_per_clip() -> None:
    x0 = loud() * torch.tensor([0.1, 1.0, 2.0, 4.0]).double().view(1, 1, 4, 1, 1)
    got = DynamicThreshold(Answers(x0), per=ThresholdPer.FRAME)(x0, T, COND).x0
    for i in range(2):
        for f in range(4):
            s = torch.quantile(x0[i, :, f].abs().flatten(), 0.995).clamp(min=1)
            torch.testing.assert_close(got[i, :, f], x0[i, :, f].clamp(-s, s) / s)
    clip = DynamicThreshold(Answers(x0))(x0, T, COND).x0
    assert not torch.equal(clip, got)
    moving = clip.std(dim=(1, 3, 4))
    assert bool((moving.diff(dim=1) > 0).all())  # one gain for the clip keeps the frames' contrasts in order


@pytest.mark.parametrize("schedule", [CosineSchedule(), RectifiedFlowSchedule(), KarrasSchedule()])
@pytest.mark.parametrize("level", [0.5, [0.2, 0.9], [[0.1, 0.4, 0.6, 0.9], [0.2, 0.3, 0.5, 0.7]]])
def test_eps_belongs_to_the_new_x0(schedule: NoiseSchedule, level: float | list[float]) -> None:
    x0, z_t = loud(), loud()
    t = torch.tensor(level, dtype=torch.float64)
    alpha, sigma = schedule.alpha_sigma(t)
    shape = {0: (), 1: (2, 1, 1, 1, 1), 2: (2, 1, 4, 1, 1)}[t.ndim]
    for threshold in (StaticThreshold(Answers(x0, schedule)), DynamicThreshold(Answers(x0, schedule))):
        got = threshold(z_t, t, COND)
        torch.testing.assert_close(alpha.view(shape) * got.x0 + sigma.view(shape) * got.eps, z_t)


def test_thresholding_does_not_depend_on_the_batch() -> None:
    x0 = loud(4).float()
    together = DynamicThreshold(Answers(x0))(x0, T, COND)
    for i in range(4):
        alone = DynamicThreshold(Answers(x0[i : i + 1]))(x0[i : i + 1], T, COND)
        assert torch.equal(alone.x0, together.x0[i : i + 1])
        assert torch.equal(alone.eps, together.eps[i : i + 1])


def test_around_guidance_it_keeps_the_video_in_range() -> None:
    data = mixture()
    noise = torch.randn(4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cond = label_conditioning([0, 1, 0, 1])
    guided = ClassifierFreeGuidance(ExactDenoiser(data, CosineSchedule()), 12.0)
    times = uniform_times(24)
    free = sample(guided, DDIM(), times, noise, cond)
    static = sample(StaticThreshold(guided), DDIM(), times, noise, cond)
    dynamic = sample(DynamicThreshold(guided, 0.9), DDIM(), times, noise, cond)
    assert float(free.abs().max()) > 1.5
    assert float(static.abs().max()) <= 1.0
    assert float(dynamic.abs().max()) <= 1.0
    assert float((dynamic.abs() > 0.999).double().mean()) < float((static.abs() > 0.999).double().mean())


@pytest.mark.parametrize("quantile", [0.0, 1.5, -0.1])
def test_a_bad_quantile_is_refused(quantile: float) -> None:
    with pytest.raises(ValueError, match="quantile is"):
        DynamicThreshold(Answers(loud()), quantile)


@pytest.mark.parametrize("per", ThresholdPer)
def test_thresholding_holds_its_answer_and_a_fifth_of_a_video(per: ThresholdPer) -> None:
    """Beside the denoiser's x0: the new x0, the new eps, and what the quantile takes before there is an eps."""
    x0 = 3 * torch.randn(1, 3, 16, 256, 256)
    size = x0.numel() * x0.element_size()
    z_t = torch.zeros_like(x0)
    with torch.no_grad():
        peak = peak_bytes(lambda: DynamicThreshold(Answers(x0), per=per)(z_t, T, COND))
    assert peak < 2.05 * size
