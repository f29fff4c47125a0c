"""What users give by mistake: names, classes, numbers and bare networks where values, tensors and denoisers belong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vdm_blocks as v


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv3d(3, 3, 1)

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: v.Conditioning) -> Tensor:
        del logsnr, cond
        mixed: Tensor = self.mix(z_t)
        return mixed


X0 = torch.linspace(-1, 1, 2 * 3 * 4 * 4 * 4).view(2, 3, 4, 4, 4)
T = torch.tensor([0.25, 0.75])
TEXT = v.Conditioning(text=torch.ones(2, 5, 8), text_mask=torch.ones(2, 5, dtype=torch.bool))
TIMES = v.uniform_times(2)
GRID = v.Grid(frames=4, height=4, width=4, fps=3)
SEED: Any = 3
HALF: Any = np.float64(0.5)
foreign: Any = v  # its arguments below are wrong on purpose


def denoiser() -> v.ModelDenoiser:
    return v.ModelDenoiser(Bare())


def stage(**given: Any) -> v.Stage:
    usual: dict[str, Any] = {"grid": GRID, "denoiser": denoiser(), "step": v.DDIM(), "times": TIMES}
    return v.Stage(name="a", **(usual | given))


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a schedule's class": (lambda: foreign.ModelDenoiser(Bare(), v.CosineSchedule), r"CosineSchedule\(\)"),
    "a schedule's name": (lambda: foreign.ModelDenoiser(Bare(), "cosine"), "schedule='cosine'"),
    "a prediction's class": (lambda: foreign.ModelDenoiser(Bare(), prediction=type(v.V)), "V, X0, EPS"),
    "a network's class": (lambda: foreign.ModelDenoiser(Bare), "an nn.Module"),
    "no network": (lambda: foreign.ModelDenoiser(None), "network=None"),
    "a number for t": (lambda: foreign.DiffusionLoss()(denoiser(), X0, 0.5, TEXT), r"torch.tensor\(0.5\)"),
    "a numpy number for t": (lambda: denoiser()(X0, HALF, TEXT), r"torch.tensor\(0.5\)"),
    "a bare network to train": (lambda: foreign.DiffusionLoss()(Bare(), X0, T, TEXT), "Bare is no denoiser"),
    "a bare network to sample": (
        lambda: foreign.sample(Bare(), v.DDIM(), TIMES, X0, TEXT),
        "Bare is no denoiser",
    ),
    "a bare network to guide": (lambda: foreign.ClassifierFreeGuidance(Bare()), "ModelDenoiser"),
    "a bare network to distil": (
        lambda: foreign.ProgressiveDistiller(Bare(), denoiser(), 2),
        "Bare is no denoiser",
    ),
    "a bare network in a stage": (lambda: stage(denoiser=Bare()), "Bare is no denoiser"),
    "a weighting's class": (
        lambda: foreign.DiffusionLoss(weighting=v.MinSNR)(denoiser(), X0, T, TEXT),
        "MinSNR",
    ),
    "a weighting's name": (lambda: foreign.DiffusionLoss(weighting="v")(denoiser(), X0, T, TEXT), "V_MSE"),
    "a seed for a generator": (
        lambda: v.DiffusionLoss()(denoiser(), X0, T, TEXT, generator=SEED),
        r"manual_seed\(0\)",
    ),
    "a count for times": (lambda: foreign.sample(denoiser(), v.DDIM(), 8, X0, TEXT), r"uniform_times\(8\)"),
    "a count for a stage's times": (lambda: stage(times=8), r"uniform_times\(8\)"),
    "a stage's times that rise": (lambda: stage(times=TIMES.flip(0)), "Flip an ascending grid"),
    "a rule's class": (lambda: foreign.sample(denoiser(), v.DDIM, TIMES, X0, TEXT), r"DDIM\(\)"),
    "a rule's name": (lambda: foreign.sample(denoiser(), "ddim", TIMES, X0, TEXT), r"DDIM\(\)"),
    "a law's class": (
        lambda: foreign.sample(denoiser(), v.DDIM(), TIMES, X0, TEXT, law=v.IndependentNoise),
        r"IndependentNoise\(\)",
    ),
    "half a step": (lambda: foreign.uniform_times(4.5), "a whole number"),
    "half a training step": (lambda: foreign.trailing_times(2, train_steps=10.5), "a whole number"),
    "steps in words": (lambda: foreign.uniform_times("four"), "a whole number"),
    "a scale in words": (lambda: foreign.ClassifierFreeGuidance(denoiser(), "6"), "scale='6'"),
    "a scale's class": (lambda: foreign.ClassifierFreeGuidance(denoiser(), v.Oscillating), "Oscillating"),
    "a scale per sample": (lambda: foreign.ClassifierFreeGuidance(denoiser(), torch.ones(2)), "OfLogSNR"),
    "a count for oscillation": (lambda: foreign.Oscillating(times=8), r"uniform_times\(8\)"),
    "passes in words": (
        lambda: foreign.ClassifierFreeGuidance(denoiser(), both="apart")(X0, T, TEXT),
        "Passes.APART or Passes.TOGETHER",
    ),
    "a threshold's kind in words": (
        lambda: foreign.DynamicThreshold(denoiser(), per="clip"),
        "ThresholdPer.CLIP",
    ),
    "one number of seeds": (lambda: foreign.KeyedNoise(seeds=5, stage="a"), "one int per sample"),
    "a tensor of seeds": (lambda: foreign.KeyedNoise(seeds=torch.ones(2), stage="a"), "one int per sample"),
    "text in words": (lambda: foreign.Conditioning(text=["a cat"], text_mask=[True]), "text is"),
    "one rate for all": (lambda: foreign.Conditioning(fps=24.0), "first axis is the batch"),
    "one 0-d rate for all": (lambda: v.Conditioning(fps=torch.tensor(24.0)), "first axis is the batch"),
    "two batches": (lambda: v.Conditioning(fps=torch.ones(2), aug_logsnr=torch.ones(3)), r"fps \(2,\)"),
    "an extra list": (lambda: foreign.Conditioning(extra={"pose": [1.0]}), "pose is"),
    "no extra": (lambda: foreign.Conditioning(extra=None), "a mapping"),
    "noise for one of two": (lambda: v.diffuse(X0, X0[:1], T, v.CosineSchedule()), "randn_like"),
    "an augmentation's time out of range": (
        lambda: v.ConditioningAugmentation().random(X0, torch.tensor([0.5, 2.0])),
        "t is 2.0",
    ),
    "an augmentation of bytes": (
        lambda: v.ConditioningAugmentation().at_snr(torch.zeros(2, 3, 4, 4, 4, dtype=torch.uint8), 3.0),
        "127.5",
    ),
    "half a frame": (lambda: foreign.Grid(frames=2.5, height=4, width=4, fps=3), "a whole number"),
    "endless frames a second": (
        lambda: v.Grid(frames=2, height=4, width=4, fps=float("inf")),
        "positive rate",
    ),
    "half a step to distil to": (
        lambda: foreign.ProgressiveDistiller(denoiser(), denoiser(), 2.5),
        "a whole number",
    ),
    "steps to distil to in words": (
        lambda: foreign.ProgressiveDistiller(denoiser(), denoiser(), "4"),
        "a whole number",
    ),
    "a pair for a guide": (
        lambda: foreign.MultiGuidance(denoiser(), [(v.Conditioning.without_text, 3.0)]),
        r"Guide\(without=",
    ),
    "a bare network for a bad one": (lambda: foreign.Autoguidance(denoiser(), Bare()), "Bare is no denoiser"),
    "a list to keep": (lambda: foreign.Conditioning.drop_text(TEXT, [True, False]), "a bool tensor"),
    "numbers to keep": (lambda: TEXT.drop_text(torch.ones(2)), "torch.bool"),
    "a number for a level": (lambda: foreign.expand_level(0.5, X0), r"\(B,\) or \(B, T\)"),
    "half a sample": (lambda: foreign.LowDiscrepancyTimes().draw(2.5, seed=0, step=0), "a whole number"),
    "a film of bytes": (
        lambda: v.write_video("a.mp4", torch.zeros(3, 1, 2, 2, dtype=torch.uint8), fps=1),
        "127.5",
    ),
    "a film of nothing": (
        lambda: v.write_video("a.mp4", torch.full((3, 1, 2, 2), torch.nan), fps=1),
        "with NaN",
    ),
    "one seed, not a list": (lambda: foreign.Cascade([stage()]).sample(TEXT, seeds=1), "a list with one int"),
    "noise in whole numbers": (
        lambda: v.KeyedNoise(seeds=(1,), stage="a").normal((1, 2), step=0, dtype=torch.int32),
        "floating-point",
    ),
    "levels beyond the schedule": (
        lambda: v.uniform_logsnr_times(4, v.CosineSchedule(), logsnr_min=-60, logsnr_max=60),
        "within its ends",
    ),
    "pictures marked by numbers": (
        lambda: v.TemporalAttention(4, heads=2)(torch.ones(1, 4, 2, 4, 4), torch.ones(1, 2)),
        "images is torch.float32",
    ),
    "one stage, not a list": (lambda: foreign.Cascade(stage()), "a list of stages"),
    "no conditioning": (lambda: foreign.sample(denoiser(), v.DDIM(), TIMES, X0, None), r"Conditioning\(\)"),
    "a caption for another batch": (lambda: denoiser()(X0[:1], T[:1], TEXT), r"text has shape \(2, 5, 8\)"),
    "pictures of another clip": (
        lambda: denoiser()(X0, T, v.Conditioning(images=torch.ones(2, 3, dtype=torch.bool))),
        "4 frames; give as many",
    ),
    "more seeds than captions": (lambda: stage().run(TEXT, seeds=(1, 2, 3)), "3 seeds and 2 rows"),
}


@pytest.mark.parametrize(("call", "says"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_refused_in_words_that_mend_it(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()


def test_a_scale_may_be_any_real_number() -> None:
    guided = foreign.ClassifierFreeGuidance(denoiser(), np.float32(3.5))
    assert guided.scale(torch.tensor(0.5), torch.tensor(0.0)).item() == 3.5


def numbers_of(value: Any) -> list[str]:
    return [field.name for field in fields(value) if field.type in ("float", "int")]


VALUES: list[Any] = [
    v.AttentionPoolSpec(), v.Ancestral(), v.ConstantDecay(), v.Constant(scale=1.0), v.CosineSchedule(), v.DDIM(),
    v.DeviceSpeed(), v.DiscreteDecoder(), v.DPMSolverPP2M(), v.EDMChurn(), v.EDMPrediction(), v.FourierSpec(), GRID,
    v.GroupNormSpec(), v.GuidanceMomentum(rule=v.DDIM(), guide=lambda d, _: d), v.HutchinsonTrace(),
    v.InterpolatedSchedule(base=v.CosineSchedule(), resolution=64), v.Interval(scale=2.0), v.InverseCosineSpec(),
    v.JoinedTextSpec(), v.KarrasSchedule(), v.LangevinCorrector(rule=v.DDIM()), v.LevelSpec(channels=8),
    v.LinearBetaSchedule(), v.LinearLogSNRSchedule(), v.LogitNormalLaw(), v.MinSNR(),
    v.LogNormalLaw(schedule=v.CosineSchedule()),
    v.MixedNoise(), v.Oscillating(times=TIMES), v.P2Weighting(), v.PerFrameTimes(frames=2), v.PowerDecay(gamma=1.0),
    v.vdm()[0],
    v.ProgressiveNoise(), v.Raster(frames=2, height=4, width=4), v.RectifiedFlowSchedule(),
    v.Restart(noisy_logsnr=-1.0, clean_logsnr=1.0), v.ShiftedSchedule(base=v.CosineSchedule(), resolution=64),
    v.SigmoidSchedule(), v.SigmoidWeighting(bias=0.0), v.SinusoidSpec(), v.SpatialAttentionSpec(), stage(),
    v.TemporalAttentionSpec(), v.TemporalConvSpec(), v.TextAttentionSpec(),
    v.TimestepSchedule(alphas_cumprod=torch.tensor([0.9, 0.1])),
    v.TransformerSpec(width=12, depth=1, heads=1, mixing=v.JointSpec()), v.TruncatedSNR(), v.UniformLaw(), v.UniPC(),
    v.UNetSpec(levels=(v.LevelSpec(channels=8),)), v.View(frames=2, height=4, width=4, fps=3.0), v.WarmedDecay(),
    v.ZeroTerminalSNRSchedule(base=v.CosineSchedule(logsnr_min=-10.0)),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_word_or_nothing_for_a_number(value: Any) -> None:
    assert numbers_of(value)
    for name in numbers_of(value):
        for wrong in ("1", None, float):
            with pytest.raises(ValueError, match=f"^{name}=.* does not fit; give a (whole )?number$"):
                replace(value, **{name: wrong})


def test_every_value_with_numbers_of_its_own_is_asked() -> None:
    rooms = ("diffusion", "sampling", "denoisers", "training", "models", "cascade")
    found = {
        name
        for name in v.__all__
        if is_dataclass(kind := getattr(v, name)) and kind.__module__.split(".")[1] in rooms
        if "__post_init__" in vars(kind) and numbers_of(kind)
    }
    assert found <= {type(value).__name__ for value in VALUES}
