"""What other libraries take and answer wrongly, in one place: here each is a ValueError whose sentence says the fix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vdm_blocks.conditioning import ConditioningAugmentation, repeat_frames
from vdm_blocks.denoisers import (
    Autoguidance,
    ClassifierFreeGuidance,
    DynamicThreshold,
    Interval,
    ModelDenoiser,
    Oscillating,
    Replacement,
)
from vdm_blocks.diffusion import (
    EPS,
    SCORE,
    CosineSchedule,
    KarrasSchedule,
    KeyedNoise,
    LinearBetaSchedule,
    LowDiscrepancyTimes,
    MixedNoise,
    ZeroTerminalSNRSchedule,
    diffuse,
    expand_level,
    transition,
)
from vdm_blocks.sampling import (
    DDIM,
    Ancestral,
    DistilledStochastic,
    EDMChurn,
    sample,
    trailing_times,
    uniform_times,
)
from vdm_blocks.training import DiffusionLoss, DiscreteDecoder
from vdm_blocks.types import Conditioning

COSINE = CosineSchedule()
VIDEO = torch.zeros(2, 3, 4, 6, 6)
HALF = torch.tensor(0.5)
COND = Conditioning()


class Channels(nn.Module):
    """Answers with `factor` times the channels: with a learned variance it is 2."""

    def __init__(self, factor: int = 1) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG002
        return z_t.repeat(1, self.factor, 1, 1, 1)


PLAIN = ModelDenoiser(Channels())
ANY: Any = "epsilon"


def run(times: Any, rule: Any = None, noise: Tensor = VIDEO, generator: Any = None) -> Tensor:
    grid = torch.as_tensor(times, dtype=torch.float64)
    return sample(PLAIN, rule or DDIM(), grid, noise, COND, generator=generator)


TRAPS: dict[str, tuple[Callable[[], object], str]] = {
    "a prediction by name, wrong until the first step": (
        lambda: ModelDenoiser(Channels(), COSINE, ANY),
        "values not names",
    ),
    "zero terminal SNR with eps: NaN": (
        lambda: ModelDenoiser(Channels(), ZeroTerminalSNRSchedule(base=LinearBetaSchedule()), EPS),
        "predict V, X0 or FLOW",
    ),
    "zero terminal SNR with the score: NaN": (
        lambda: ModelDenoiser(Channels(), ZeroTerminalSNRSchedule(base=LinearBetaSchedule()), SCORE),
        "predict V, X0 or FLOW",
    ),
    "t = 2": (lambda: PLAIN(VIDEO, torch.tensor(2.0), COND), "times run from 0"),
    "t is not a number": (lambda: PLAIN(VIDEO, torch.tensor(math.nan), COND), "times run from 0"),
    "a timestep for a time": (
        lambda: diffuse(VIDEO, VIDEO, torch.tensor([500.0, 20.0]), COSINE),
        "divide a step's",
    ),
    "a level per frame of another clip": (lambda: expand_level(torch.zeros(2, 6), VIDEO), "or, for a video"),
    "a level that broadcasts over width": (lambda: expand_level(torch.zeros(6), VIDEO), "batch size"),
    "a level already of five axes": (
        lambda: expand_level(torch.zeros(2, 1, 1, 1, 1), VIDEO),
        r"give \(\), \(B,\)",
    ),
    "learned variances read as the prediction": (
        lambda: ModelDenoiser(Channels(2))(VIDEO, HALF, COND),
        "output channels",
    ),
    "levels that rise": (lambda: run([0.0, 0.5, 1.0]), "Flip an ascending grid"),
    "a timestep twice": (lambda: run([1.0, 0.5, 0.5, 0.0]), "must fall at every step"),
    "a grid with NaN": (lambda: run([1.0, math.nan, 0.0]), "keep it within"),
    "a grid of timesteps": (lambda: run([999.0, 500.0, 0.0]), "keep it within"),
    "more steps than timesteps": (lambda: trailing_times(20, train_steps=10), "ask for fewer"),
    "no steps": (lambda: uniform_times(0), "at least 1"),
    "one seed too few": (
        lambda: run([1.0, 0.5, 0.0], Ancestral(), generator=KeyedNoise(seeds=(1,), stage="a")),
        "one seed per sample",
    ),
    "noise in whole numbers": (lambda: run([1.0, 0.0], noise=VIDEO.int()), "floating point"),
    "bytes as training data": (
        lambda: DiffusionLoss()(PLAIN, VIDEO.to(torch.uint8), HALF, COND),
        "127.5",
    ),
    "a percentage as a quantile": (lambda: DynamicThreshold(PLAIN, 99.5), "for example 0.995"),
    "a quantile of 0": (lambda: DynamicThreshold(PLAIN, 0.0), "for example 0.995"),
    "a scale that is not a number": (lambda: ClassifierFreeGuidance(PLAIN, math.nan), "1 is off"),
    "an interval upside down": (lambda: Interval(scale=2.0, low_logsnr=3.0, high_logsnr=-3.0), "noisier"),
    "an oscillation without its grid": (
        lambda: Oscillating(times=[0.0, 0.5, 1.0]),
        "the sampling grid itself",
    ),
    "autoguidance over two schedules": (
        lambda: Autoguidance(PLAIN, ModelDenoiser(Channels(), CosineSchedule(logsnr_min=-10.0))),
        "the same schedule",
    ),
    "steps back in time": (
        lambda: transition(VIDEO, torch.tensor(0.6), HALF, COSINE),
        "the cleaner time as s",
    ),
    "sigma_min of 0": (lambda: KarrasSchedule(sigma_min=0.0), "for example 0.002"),
    "noise that would lose variance": (lambda: MixedNoise(a=-1.0), "0, for independent frames"),
    "video noise for an image": (
        lambda: MixedNoise().draw(None, (2, 3, 6, 6), step=0),
        r"needs \(B, C, T, H, W\)",
    ),
    "churn without noise": (lambda: EDMChurn(noise_scale=0.0), "noise_scale"),
    "distilled steps on another grid": (lambda: run([1.0, 0.3, 0.0], DistilledStochastic()), "uniform_times"),
    "a mask in numbers": (
        lambda: Replacement(PLAIN, VIDEO, torch.ones(1, 1, 4, 1, 1)),
        "True where the video",
    ),
    "a mask of another clip": (
        lambda: Replacement(PLAIN, VIDEO, torch.ones(1, 1, 5, 1, 1, dtype=torch.bool)),
        "known frames give",
    ),
    "an augmentation SNR in decibels below zero": (
        lambda: ConditioningAugmentation().at_snr(VIDEO, -3.0),
        "uses 3 or 5",
    ),
    "frames that do not divide, dropped": (lambda: repeat_frames(VIDEO, 33), "whole multiple"),
    "data in [0, 1] judged as [-1, 1]": (
        lambda: DiscreteDecoder(levels=2).nats(VIDEO + 0.5, VIDEO, torch.tensor(10.0)),
        "round it",
    ),
    "a rank outside the world": (
        lambda: LowDiscrepancyTimes().draw(2, seed=0, step=0, rank=2, world=2),
        "rank < world",
    ),
    "text without a mask": (lambda: Conditioning(text=torch.zeros(2, 3, 4)), "give both"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_silent_trap_is_a_sentence(trap: str) -> None:
    make, fix = TRAPS[trap]
    with pytest.raises(ValueError, match=fix) as refused:
        make()
    assert len(str(refused.value).split()) >= 8, "it says what came, what fits and how to mend it"


def test_none_of_them_is_refused_when_it_is_right() -> None:
    """The control: the same calls with the fix."""
    assert PLAIN(VIDEO, HALF, COND).x0.shape == VIDEO.shape
    assert run(uniform_times(3), DistilledStochastic()).isfinite().all()
    assert (
        run([1.0, 0.5, 0.0], Ancestral(), generator=KeyedNoise(seeds=(1, 2), stage="a")).shape == VIDEO.shape
    )
    assert DiffusionLoss()(PLAIN, VIDEO, HALF, COND).shape == (2,)
    assert DynamicThreshold(PLAIN, 0.995)(VIDEO, HALF, COND).x0.shape == VIDEO.shape
    assert Oscillating(times=[1.0, 0.5, 0.0])(HALF, HALF) > 0
    assert repeat_frames(VIDEO, 32).shape[2] == 32
    assert ConditioningAugmentation().at_snr(VIDEO, 3.0)[1].shape == (2,)
