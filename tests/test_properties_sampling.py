"""Random input to guidance, samplers, losses and augmentation: a right answer, or a ValueError with a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from properties import (
    COSINE,
    PREDICTIONS,
    Answers,
    Case,
    Knows,
    attempt,
    cases,
    few,
    many,
    near,
    numbers,
)
from torch import Tensor

from vdm_blocks import denoisers, diffusion, sampling
from vdm_blocks.conditioning import ConditioningAugmentation
from vdm_blocks.diffusion import expand_level
from vdm_blocks.training import DiffusionLoss
from vdm_blocks.types import Conditioning


@many
@given(
    cases(), numbers, numbers, st.sampled_from(["constant", "interval", "of", "oscillating"]), st.booleans()
)
def test_guidance_is_linear(case: Case, scale: float, edge: float, kind: str, together: bool) -> None:
    finite = math.isfinite(scale)
    make: dict[str, tuple[Callable[[], denoisers.Scale], bool]] = {
        "constant": (lambda: denoisers.Constant(scale=scale), finite),
        "interval": (
            lambda: denoisers.Interval(scale=denoisers.Constant(scale=scale), low_logsnr=edge),
            finite and edge < math.inf,
        ),
        "of": (lambda: denoisers.OfLogSNR(function=lambda logsnr: 1 + torch.sigmoid(logsnr)), True),
        "oscillating": (
            lambda: denoisers.Oscillating(
                high=scale, low=1.0, times=sampling.uniform_times(4), constant=edge
            ),
            finite and 0 <= edge <= 1,
        ),
    }
    scales = attempt(make[kind][0], right=make[kind][1])
    if scales is not None:
        batch = case.x0.shape[0]
        cond = Conditioning(text=torch.ones(batch, 1, 1), text_mask=torch.ones(batch, 1, dtype=torch.bool))
        passes = denoisers.Passes.TOGETHER if together else denoisers.Passes.APART
        guided = denoisers.ClassifierFreeGuidance(Knows(case.x0), scales, both=passes)(case.eps, case.t, cond)
        value = scales(case.t, COSINE.logsnr(case.t))
        assert value.shape == case.t.shape
        if kind == "interval":
            inside = COSINE.logsnr(case.t) >= edge
            assert torch.equal(value, torch.where(inside, value.new_tensor(scale), 1.0))
        weight = expand_level(value.double(), case.x0.double())
        a, s = case.exact
        x0 = case.x0.double() + weight
        near(guided.x0, x0, case.x0, case.unit, 8)
        near(guided.eps, (case.eps.double() - a * x0) / s, case.x0, case.unit, 16 / s)


@many
@given(cases(), numbers, st.sampled_from(denoisers.ThresholdPer))
def test_thresholds_bound_the_estimate(case: Case, quantile: float, per: denoisers.ThresholdPer) -> None:
    wild = case.x0 * 3
    static = denoisers.StaticThreshold(Knows(wild))(case.eps, case.t, Conditioning())
    assert torch.equal(static.x0, wild.clamp(-1, 1))
    dynamic = attempt(
        lambda: denoisers.DynamicThreshold(Knows(wild), quantile, per=per), right=0 < quantile <= 1
    )
    if dynamic is not None:
        got = dynamic(case.eps, case.t, Conditioning())
        clips = wild.double().abs().transpose(1, 2)
        share = clips.flatten(1) if per is denoisers.ThresholdPer.CLIP else clips.flatten(2)
        s = expand_level(torch.quantile(share, quantile, dim=-1), wild.double()).clamp(min=1)
        x0 = wild.double().clamp(-s, s) / s
        near(got.x0, x0, case.x0, case.unit, 1)
        assert float(got.x0.abs().max()) <= 1
        a, sigma = case.exact
        near(got.eps, (case.eps.double() - a * x0) / sigma, case.x0, case.unit, 8 / sigma)


RULES: tuple[tuple[sampling.StepRule[Any], bool], ...] = (  # and whether it keeps to a straight path
    (sampling.DDIM(), True),
    (sampling.DPMSolverPP2M(), True),
    (sampling.UniPC(order=1), True),
    (sampling.UniPC(order=2), True),
    (sampling.UniPC(order=3), True),
    (sampling.EDMHeun(), True),
    (sampling.Heun(), False),
    (sampling.DDIM(eta=0.7), False),
    (sampling.Ancestral(), False),
    (sampling.DPMSolverPP2M(eta=1.0), False),
    (sampling.EDMChurn(rule=sampling.DDIM()), False),
    (sampling.LangevinCorrector(rule=sampling.DDIM()), False),
    (sampling.Restart(rule=sampling.DDIM(), noisy_logsnr=-1.0, clean_logsnr=1.0, steps=2), False),
    (sampling.DistilledStochastic(), False),
)


def grid(kind: str, steps: int) -> Tensor:
    if kind == "trailing":
        return sampling.trailing_times(steps, train_steps=5)
    if kind == "logsnr":
        return sampling.uniform_logsnr_times(steps, COSINE, logsnr_min=-8.0, logsnr_max=8.0)
    if kind == "karras":
        return sampling.karras_times(steps, COSINE, logsnr_min=-8.0, logsnr_max=8.0)
    return sampling.uniform_times(steps)


@settings(few, max_examples=80)
@given(
    cases(),
    st.sampled_from(RULES),
    st.sampled_from(["uniform", "trailing", "logsnr", "karras"]),
    st.integers(0, 6),
)
def test_every_rule_finds_the_video(
    case: Case, chosen: tuple[sampling.StepRule[Any], bool], kind: str, steps: int
) -> None:
    rule, straight = chosen
    times = attempt(lambda: grid(kind, steps), right=steps >= 1 and (kind != "trailing" or steps <= 5))
    if times is not None:
        assert times.shape == (steps + 1,)
        uniform = torch.allclose(times, sampling.uniform_times(steps), atol=1e-7)
        known = Knows(case.x0)
        seen: list[sampling.StepInfo] = []

        def run() -> Tensor:
            return sampling.sample(
                known, rule, times, case.eps, Conditioning(), generator=case.keyed, on_step=seen.append
            )

        before = case.eps.clone()
        got = attempt(run, right=uniform or not isinstance(rule, sampling.DistilledStochastic))
        assert torch.equal(case.eps, before)
        if got is not None:
            assert torch.equal(got, case.x0)
            assert [info.index for info in seen] == list(range(steps))
            for info in seen:
                near(info.x0, case.x0, case.x0, 0)
                near(info.z, info.z, case.x0, 0)
                if straight and info.s > 0 and not isinstance(rule, sampling.EDMHeun):
                    alpha, sigma = COSINE.alpha_sigma(info.s)
                    unit = torch.finfo(case.x0.dtype).eps
                    alpha_1, sigma_1 = COSINE.alpha_sigma(times[0])
                    eps = (case.eps.double() - alpha_1 * case.x0.double()) / sigma_1
                    near(info.z, alpha * case.x0.double() + sigma * eps, case.x0, unit, 8)


@few
@given(cases(), st.lists(st.floats(-0.5, 1.5) | st.just(math.nan), max_size=4), st.integers(-2, 4))
def test_the_loop_refuses_grids_that_do_not_fall(case: Case, times: list[float], start: int) -> None:
    falls = all(a > b for a, b in pairwise(times))
    right = len(times) >= 2 and falls and all(0 <= t <= 1 for t in times) and 0 <= start < len(times) - 1
    where = torch.tensor(times, dtype=torch.float64)
    got = attempt(
        lambda: sampling.sample(
            Knows(case.x0), sampling.DDIM(), where, case.eps, Conditioning(), start=start
        ),
        right=right,
    )
    if got is not None:
        near(got, got, case.x0, 0)
    whole = case.eps.to(torch.int32)
    attempt(
        lambda: sampling.sample(
            Knows(case.x0), sampling.DDIM(), sampling.uniform_times(2), whole, Conditioning()
        ),
        right=False,
    )


WEIGHTINGS: tuple[tuple[diffusion.Weighting, Callable[[Tensor], Tensor]], ...] = (
    (diffusion.X0_MSE, torch.ones_like),
    (diffusion.EPS_MSE, lambda snr: snr),
    (diffusion.V_MSE, lambda snr: snr + 1),
    (diffusion.TruncatedSNR(), lambda snr: snr.clamp(min=1)),
    (diffusion.MinSNR(), lambda snr: snr.clamp(max=5)),
)


@many
@given(
    cases(),
    st.sampled_from(PREDICTIONS),
    st.sampled_from(WEIGHTINGS),
    st.lists(st.integers(1, 5), max_size=5),
)
def test_the_loss_is_the_weighted_error_of_x0(
    case: Case,
    prediction: diffusion.Prediction,
    weighting: tuple[diffusion.Weighting, Callable[[Tensor], Tensor]],
    mask_shape: list[int],
) -> None:
    b, c, frames, h, w = case.x0.shape
    t = case.t.float()
    model = denoisers.ModelDenoiser(Answers(), COSINE, prediction)
    loss = DiffusionLoss(weighting=weighting[0])
    got = loss(model, case.x0, t, Conditioning(), generator=case.keyed)
    eps = case.keyed.normal(case.x0.shape, step="loss", dtype=case.x0.dtype)
    alpha, sigma = (expand_level(v, case.x0.double()) for v in COSINE.alpha_sigma(t.double()))
    z_t = alpha * case.x0.double() + sigma * eps.double()
    (keep, _), _ = getattr(prediction, "hub")(*COSINE.alpha_sigma(t.double()))  # noqa: B009
    error = expand_level(keep, z_t) * z_t - case.x0.double()
    each = weighting[1]((alpha / sigma) ** 2) * error.square()
    assert got.dtype == (torch.float64 if case.x0.dtype == torch.float64 else torch.float32)
    unit = max(case.unit, torch.finfo(torch.float32).eps)
    want = each.flatten(1).mean(1).to(got)
    torch.testing.assert_close(got, want, rtol=64 * unit, atol=64 * unit)
    shape = tuple(mask_shape)
    fits = shape in ((b, frames), (b, c, frames, h, w), (b, 1, frames, h, w)) or (
        len(shape) == 5 and all(m in (1, n) for m, n in zip(shape, case.x0.shape, strict=True))
    )
    masked = attempt(
        lambda: loss(model, case.x0, t, Conditioning(), generator=case.keyed, mask=torch.ones(shape)),
        right=fits,
    )
    if masked is not None:
        torch.testing.assert_close(masked, got, rtol=1e-4, atol=1e-5)
    first = torch.zeros(b, frames)
    first[:, 0] = 1
    got = loss(model, case.x0, t, Conditioning(), generator=case.keyed, mask=first)
    want = each[:, :, 0].flatten(1).mean(1).to(got)
    torch.testing.assert_close(got, want, rtol=64 * unit, atol=64 * unit)
    attempt(lambda: loss(model, case.x0.to(torch.uint8), t, Conditioning()), right=False)


@few
@given(cases(), numbers, numbers)
def test_augmentation_says_what_it_did(case: Case, snr: float, longest: float) -> None:
    augment = attempt(lambda: ConditioningAugmentation(longest=longest), right=0 < longest <= 1)
    eps = case.keyed.normal(case.x0.shape, step="augmentation", dtype=case.x0.dtype).double()
    b = case.x0.shape[0]
    if augment is not None:
        noisy, logsnr = augment.random(case.x0, torch.linspace(0, 1, b), generator=case.keyed)
        check_augmented(case, noisy, logsnr, eps)
        assert bool((logsnr >= COSINE.logsnr(torch.tensor(longest, dtype=torch.float64)) - 1e-3).all())
    # The cosine schedule reaches log-SNRs of -20 to 20; what lies at its very ends may go either way.
    inside, outside = math.exp(-19.99) < snr < math.exp(19.99), not math.exp(-20.01) < snr < math.exp(20.01)
    assume(inside or outside)
    fixed = attempt(
        lambda: ConditioningAugmentation().at_snr(case.x0, snr, generator=case.keyed), right=inside
    )
    if fixed is not None:
        check_augmented(case, *fixed, eps)
        near(fixed[1], torch.full((b,), math.log(snr)), torch.ones(b), 1e-4)


def check_augmented(case: Case, noisy: Tensor, logsnr: Tensor, eps: Tensor) -> None:
    assert logsnr.shape == (case.x0.shape[0],)
    alpha, sigma = (expand_level(v, eps) for v in diffusion.alpha_sigma_vp(logsnr.double()))
    unit = max(torch.finfo(case.x0.dtype).eps, 1e-5)
    near(noisy, alpha * case.x0.double() + sigma * eps, case.x0, unit, 4)
