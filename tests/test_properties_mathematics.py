"""Random input to the mathematics: a right answer, or a ValueError with a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import (
    COSINE,
    DTYPES,
    PREDICTIONS,
    Answers,
    Case,
    attempt,
    cases,
    few,
    many,
    near,
    numbers,
)
from torch import Tensor

from vdm_blocks import denoisers, diffusion
from vdm_blocks.diffusion import diffuse, expand_level
from vdm_blocks.types import Conditioning, Denoised


@many
@given(cases(), st.lists(st.integers(1, 5), max_size=3), st.sampled_from(DTYPES))
def test_a_level_fits_or_is_refused(case: Case, shape: list[int], dtype: torch.dtype) -> None:
    video = case.x0
    b, _, t = video.shape[:3]
    fits = tuple(shape) in ((), (b,), (b, t))
    level = torch.full(shape, 0.5, dtype=dtype)
    got = attempt(lambda: expand_level(level, video), right=fits)
    noisy = attempt(lambda: diffuse(video, case.eps, level, COSINE), right=fits)
    split = attempt(lambda: denoisers.ModelDenoiser(Answers())(video, level, Conditioning()), right=fits)
    if got is not None and noisy is not None and split is not None:
        assert torch.broadcast_shapes(got.shape, video.shape) == video.shape
        unit = max(case.unit, torch.finfo(dtype).eps)
        near(noisy, (video.double() + case.eps.double()) * 0.5**0.5, video, unit, 4)
        near(split.x0, video.double() * 0.5**0.5, video, unit)


@many
@given(st.data())
def test_schedules_have_their_inverse(data: st.DataObject) -> None:
    low, high = data.draw(numbers), data.draw(numbers)
    # A log-SNR must fall by 1e-6 at least and stay within 80 of 0.
    ordered = math.isfinite(low) and math.isfinite(high) and low <= high - 1e-6
    sigmas = 0 < low < high < math.inf and -2 * math.log(high) <= -2 * math.log(low) - 1e-6
    size = data.draw(st.floats(-1, 300) | st.floats(0, 1e-9))
    made: list[tuple[Callable[[], Any], bool]] = [
        (lambda: diffusion.CosineSchedule(logsnr_min=low, logsnr_max=high), ordered),
        (lambda: diffusion.LinearLogSNRSchedule(logsnr_min=low, logsnr_max=high), ordered),
        (lambda: diffusion.RectifiedFlowSchedule(logsnr_min=low, logsnr_max=high), ordered),
        (lambda: diffusion.LearnedSchedule(logsnr_min=low, logsnr_max=high, bins=5), ordered),
        (lambda: diffusion.KarrasSchedule(sigma_min=low, sigma_max=high), sigmas and low > math.exp(-40)),
        (lambda: diffusion.ShiftedSchedule(base=COSINE, resolution=size), size > 64 * math.exp(-30)),
    ]
    make, right = data.draw(st.sampled_from(made))
    schedule = attempt(make, right=right)
    if schedule is not None:
        dtype, shape = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from([(), (3,), (3, 4)]))
        t = torch.rand(shape, dtype=torch.float64)
        for edge in (t.to(dtype), torch.zeros(shape, dtype=dtype), torch.ones(shape, dtype=dtype)):
            for value in (schedule.logsnr(edge), *schedule.alpha_sigma(edge)):
                assert value.shape == edge.shape
                assert value.dtype == dtype
                assert value.isfinite().all()
        logsnr = schedule.logsnr(t)
        alpha, sigma = schedule.alpha_sigma(t)
        torch.testing.assert_close(2 * (alpha.log() - sigma.log()), logsnr, rtol=1e-9, atol=1e-9)
        # What rounding does to the log-SNR, its slope turns into time.
        slope = -diffusion.logsnr_slope(schedule, t)
        assert bool((slope > 0).all())
        assert bool(((schedule.time(logsnr) - t).abs() <= 1e-10 + 1e-13 / slope).all())


@many
@given(cases(), st.sampled_from(PREDICTIONS))
def test_predictions_split_what_they_target(case: Case, prediction: diffusion.Prediction) -> None:
    alpha, sigma = COSINE.alpha_sigma(case.t)
    z_t = diffuse(case.x0, case.eps, case.t, COSINE)
    a, s = case.exact
    near(z_t, a * case.x0.double() + s * case.eps.double(), case.x0, case.unit, 4)
    target = prediction.target(case.x0, case.eps, alpha, sigma)
    # Roundings of z_t and of the target reach the split multiplied by its coefficients.
    grown = 10 * (1 + 1 / s + a / s) * (1 + 1 / a)
    for denoised in (
        Denoised(*prediction.split(z_t, target, alpha, sigma)),
        denoisers.ModelDenoiser(Answers(target), COSINE, prediction)(z_t, case.t, Conditioning()),
        with_spare(target, prediction, z_t, case.t),
    ):
        near(denoised.x0, case.x0, case.x0, case.unit, grown)
        near(denoised.eps, case.eps, case.x0, case.unit, grown)


def with_spare(target: Tensor, prediction: diffusion.Prediction, z_t: Tensor, t: Tensor) -> Denoised:
    with torch.no_grad():
        model = denoisers.ModelDenoiser(Answers(target), COSINE, prediction, reuse_output=True)
        split: Denoised = model(z_t, t, Conditioning())
    return split


@many
@given(cases(), st.floats(0, 1), numbers)
def test_the_process_composes(case: Case, share: float, gamma: float) -> None:
    t = case.t.double()
    s = share * t
    (a_t, s_t), (a_s, s_s) = (
        (expand_level(v, case.x0.double()) for v in COSINE.alpha_sigma(u)) for u in (t, s)
    )
    ones, unit = torch.ones_like(case.x0), torch.finfo(case.x0.dtype).eps
    mean, std = diffusion.transition(ones, s, t, COSINE)
    near(mean, a_t / a_s * ones.double(), ones, unit)
    near(
        (std * ones).to(ones),
        (s_t**2 - (a_t / a_s * s_s) ** 2).clamp(min=0).sqrt() * ones.double(),
        ones,
        unit,
        1e-4,
    )
    right = 0 <= gamma <= 1
    back = attempt(
        lambda: diffusion.posterior((a_t * ones).to(ones), ones, s, t, COSINE, gamma=gamma), right=right
    )
    if back is not None:
        near(back[0], a_s * ones.double(), ones, unit)
        assert (back[1] * ones).isfinite().all()
        assert bool((back[1] >= 0).all())
    attempt(lambda: diffusion.transition(ones, t, s, COSINE), right=bool((t <= s).all()))
    attempt(lambda: diffuse(ones, ones, t + 1, COSINE), right=False)


@few
@given(cases(), numbers, st.sampled_from(["independent", "mixed", "progressive"]))
def test_noise_is_each_samples_own(case: Case, a: float, kind: str) -> None:
    make: dict[str, Callable[[], diffusion.VideoNoise]] = {
        "independent": diffusion.IndependentNoise,
        "mixed": lambda: diffusion.MixedNoise(a=a),
        "progressive": lambda: diffusion.ProgressiveNoise(a=a),
    }
    noise = attempt(make[kind], right=kind == "independent" or 0 <= a < math.inf)
    if noise is not None:
        drawn = noise.draw(case.keyed, case.x0.shape, step=3, dtype=case.x0.dtype)
        near(drawn, drawn, case.x0, case.unit)
        last = case.x0.shape[0] - 1
        alone = noise.draw(case.keyed.select([last]), (1, *case.x0.shape[1:]), step=3, dtype=case.x0.dtype)
        assert torch.equal(alone[0], drawn[last])
        attempt(lambda: noise.draw(case.keyed, (last + 2, *case.x0.shape[1:]), step=3), right=False)


@few
@given(st.integers(-1, 6), st.integers(-1, 3), st.integers(-1, 3), st.integers(0, 9), st.integers(0, 4))
def test_times_are_drawn_within_the_unit_interval(
    batch: int, rank: int, world: int, step: int, frames: int
) -> None:
    right = batch >= 1 and 0 <= rank < world
    for law in (diffusion.UniformLaw(), diffusion.LogitNormalLaw(), diffusion.LogNormalLaw(schedule=COSINE)):
        sampler = diffusion.LowDiscrepancyTimes(law=law)
        draw = partial(sampler.draw, batch, seed=0, step=step, rank=rank, world=world)
        t = attempt(draw, right=right)
        if t is not None:
            assert t.shape == (batch,)
            assert bool(((t >= 0) & (t <= 1)).all())
    if right:
        plain = diffusion.LowDiscrepancyTimes()
        shares = [plain.draw(batch, seed=0, step=step, rank=r, world=world) for r in range(world)]
        strata = (torch.cat(shares).double() * batch * world + 1e-5).floor().long()
        gaps = torch.cat(shares).sort().values.double().diff()
        assert bool((gaps - 1 / (batch * world)).abs().lt(1e-5).all())
        assert int(strata.max()) <= batch * world
    per_frame = attempt(lambda: diffusion.PerFrameTimes(frames=frames), right=frames >= 1)
    if per_frame is not None and right:
        assert per_frame.draw(batch, seed=0, step=step, rank=rank, world=world).shape == (batch, frames)
