"""Adaptive projected guidance with its momentum: the published loop, and what a state owes to the chain."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from exact import SHAPE, ExactDenoiser, label_conditioning, mixture
from torch import Tensor

from vdm_blocks.denoisers import (
    ClassifierFreeGuidance,
    Constant,
    Interval,
    Momentum,
    ProjectedGuidance,
    StaticThreshold,
)
from vdm_blocks.diffusion import CosineSchedule, KeyedNoise
from vdm_blocks.sampling import (
    DDIM,
    Ancestral,
    DPMSolverPP2M,
    GuidanceMomentum,
    Heun,
    MomentumState,
    StepInfo,
    StepRule,
    sample,
    uniform_times,
)
from vdm_blocks.types import Conditioning, Denoiser

SCHEDULE = CosineSchedule()
EXACT = ExactDenoiser(mixture(), SCHEDULE)
COND = label_conditioning([0, 1, 0])
TIMES = uniform_times(8)
KEYS = KeyedNoise(seeds=(1, 2, 3), stage="base")
NOISE = KEYS.normal((3, *SHAPE), step="start", dtype=torch.float64)


def guide(denoiser: Denoiser, momentum: Momentum) -> Denoiser:
    return StaticThreshold(ProjectedGuidance(denoiser, 4.0, eta=0.2, radius=1.5, momentum=momentum))


def chain(beta: float, rule: StepRule[Any] | None = None, **options: Any) -> Tensor:
    whole = GuidanceMomentum(rule=rule or DDIM(), guide=guide, beta=beta)
    return sample(EXACT, whole, TIMES, options.pop("noise", NOISE), COND, generator=KEYS, **options)


def test_it_is_the_published_loop() -> None:
    """arXiv 2410.02416, section 4, written out around a DDIM step."""
    z, average = NOISE, torch.zeros_like(NOISE)
    for t, s in pairwise(TIMES):
        alpha, sigma = SCHEDULE.alpha_sigma(t)
        cond, uncond = (EXACT(z, t, c).x0 for c in (COND, COND.without_text()))
        average = (cond - uncond) + -0.5 * average
        size = average.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1)
        d = average * (1.5 / size).clamp(max=1)
        unit = cond / cond.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1)
        parallel = (d * unit).flatten(1).sum(1).view(-1, 1, 1, 1, 1) * unit
        x0 = (cond + 3.0 * (d - parallel + 0.2 * parallel)).clamp(-1, 1)
        eps = (z - alpha * x0) / sigma
        alpha, sigma = SCHEDULE.alpha_sigma(s)
        z = alpha * x0 + sigma * eps if s > 0 else x0
    torch.testing.assert_close(chain(-0.5), z, rtol=1e-9, atol=1e-9)
    assert (chain(-0.5) - chain(0.0)).abs().max() > 1e-2


def test_beta_0_is_projected_guidance_alone() -> None:
    plain = StaticThreshold(ProjectedGuidance(EXACT, 4.0, eta=0.2, radius=1.5))
    torch.testing.assert_close(chain(0.0), sample(plain, DDIM(), TIMES, NOISE, COND), rtol=0, atol=1e-14)


@pytest.mark.parametrize("rule", [DDIM(), Ancestral(), DPMSolverPP2M(), Heun()], ids=str)
def test_a_run_resumed_after_any_step_is_the_unbroken_run(rule: StepRule[Any]) -> None:
    seen: list[StepInfo] = []
    whole = chain(-0.5, rule, on_step=seen.append)
    for info in seen[:-1]:
        assert isinstance(info.state, MomentumState)
        again = chain(-0.5, rule, noise=info.z, start=info.index + 1, state=info.state)
        assert torch.equal(again, whole)


def test_two_runs_do_not_leak_into_one_another_and_a_sample_is_its_own() -> None:
    whole = GuidanceMomentum(rule=DDIM(), guide=guide)
    first, second = (sample(EXACT, whole, TIMES, NOISE, COND) for _ in range(2))
    assert torch.equal(first, second)
    alone = sample(EXACT, whole, TIMES, NOISE[1:2], COND.select(slice(1, 2)))
    torch.testing.assert_close(alone, first[1:2], rtol=0, atol=1e-12)


def test_a_step_changes_neither_its_state_nor_the_answers() -> None:
    whole = GuidanceMomentum(rule=Heun(), guide=guide)
    before = torch.randn(NOISE.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    state, kept = MomentumState(before, None), before.clone()
    results = [whole(EXACT, NOISE, TIMES[2], TIMES[3], COND, state, torch.zeros_like) for _ in range(2)]
    assert torch.equal(results[0].z, results[1].z)
    assert torch.equal(before, kept)


def test_where_guidance_is_off_the_momentum_waits() -> None:
    """An unguided step has no difference to add, and costs one evaluation."""

    def at_first(denoiser: Denoiser, momentum: Momentum) -> Denoiser:
        scale = Interval(scale=Constant(scale=4.0), high_logsnr=-1.0)
        return ProjectedGuidance(denoiser, scale, momentum=momentum)

    seen: list[StepInfo] = []
    rule = GuidanceMomentum(rule=DDIM(), guide=at_first)
    sample(EXACT, rule, TIMES, NOISE, COND, on_step=seen.append)
    assert seen[0].state.before is not seen[1].state.before
    assert seen[-1].state.before is seen[-2].state.before


def test_momentum_keeps_to_guidance_in_the_limit_of_a_steady_difference() -> None:
    """With d the same at every evaluation the sum is d / (1 - beta): two thirds of it at beta = -0.5."""
    momentum, d = Momentum(-0.5), torch.ones(1, 1, 1, 2, 2)
    carried = [momentum.carry(d) for _ in range(40)][-1]
    torch.testing.assert_close(carried, d * 2 / 3)
    assert torch.equal(d, torch.ones_like(d))


@pytest.mark.parametrize("beta", [1.0, -1.0, float("nan"), float("inf")])
def test_a_momentum_that_does_not_fade_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="beta="):
        GuidanceMomentum(rule=DDIM(), guide=lambda d, _: d, beta=beta)


def test_any_guidance_may_be_put_on() -> None:
    """`guide` is free to ignore the momentum: the rule then is the rule."""
    rule = GuidanceMomentum(rule=DDIM(), guide=lambda d, _: ClassifierFreeGuidance(d, 3.0))
    got = sample(EXACT, rule, TIMES, NOISE, Conditioning())
    assert torch.equal(got, sample(EXACT, DDIM(), TIMES, NOISE, Conditioning()))
