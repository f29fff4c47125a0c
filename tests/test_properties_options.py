"""Random options, guidance, losses and grids: a right answer, or a ValueError with a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from properties import COSINE, Answers, Case, Knows, attempt, cases, few, many, near, numbers
from torch import Tensor

from vdm_blocks import conditioning, denoisers, diffusion, sampling, training
from vdm_blocks.diffusion import KeyedNoise, expand_level
from vdm_blocks.types import Conditioning

DATA = Knows(torch.zeros(1, 1, 1, 1, 1))
DDIM = sampling.DDIM()
KEYS = KeyedNoise(seeds=(0,), stage="test")
BETA = diffusion.LinearBetaSchedule()
END = float(BETA.logsnr(torch.ones((), dtype=torch.float64)))
FINITE, INF = math.isfinite, math.inf
Maker = Callable[[float, float], object]
Rule = Callable[[float, float], bool]

# What is made of two numbers, and when that must work.
OPTIONS: dict[str, tuple[Maker, Rule]] = {
    "DDIM": (lambda a, _: sampling.DDIM(eta=a), lambda a, _: 0 <= a <= 1),
    "Ancestral": (lambda a, _: sampling.Ancestral(gamma=a), lambda a, _: 0 <= a <= 1),
    "2M": (lambda a, _: sampling.DPMSolverPP2M(eta=a), lambda a, _: 0 <= a < INF),
    "churn": (
        lambda a, b: sampling.EDMChurn(churn=a, noise_scale=b),
        lambda a, b: 0 <= a < INF and 0 < b < INF,
    ),
    "churned": (lambda a, b: sampling.EDMChurn(sigma_min=a, sigma_max=b), lambda a, b: 0 <= a < b),
    "Langevin": (lambda a, _: sampling.LangevinCorrector(rule=DDIM, delta=a), lambda a, _: 0 < a < 2),
    "restart": (
        lambda a, b: sampling.Restart(noisy_logsnr=a, clean_logsnr=b),
        lambda a, b: -INF < a < b < INF,
    ),
    "momentum": (
        lambda a, _: sampling.GuidanceMomentum(rule=DDIM, guide=lambda d, _: d, beta=a),
        lambda a, _: -1 < a < 1,
    ),
    "karras": (lambda a, _: sampling.karras_times(3, COSINE, rho=a), lambda a, _: 0.1 <= a <= 1000),
    "logsnr": (
        lambda a, b: sampling.uniform_logsnr_times(3, COSINE, logsnr_min=a, logsnr_max=b),
        lambda a, b: -INF < a <= b - 1e-6 < INF,
    ),
    "truncated": (lambda a, _: diffusion.TruncatedSNR(floor=a), lambda a, _: 0 < a < INF),
    "min-SNR": (lambda a, _: diffusion.MinSNR(gamma=a), lambda a, _: 0 < a < INF),
    "P2": (lambda a, b: diffusion.P2Weighting(k=a, gamma=b), lambda a, b: 0 < a < INF and 0 < b < INF),
    "sigmoid": (lambda a, _: diffusion.SigmoidWeighting(bias=a), lambda a, _: FINITE(a)),
    "uniform": (lambda a, b: diffusion.UniformLaw(low=a, high=b), lambda a, b: 0 <= a < b <= 1),
    "logit": (
        lambda a, b: diffusion.LogitNormalLaw(mean=a, std=b),
        lambda a, b: FINITE(a) and 0 < b < INF,
    ),
    "log": (
        lambda a, b: diffusion.LogNormalLaw(schedule=COSINE, mean=a, std=b),
        lambda a, b: FINITE(a) and 0 < b < INF,
    ),
    "EDM": (lambda a, _: diffusion.EDMPrediction(sigma_data=a), lambda a, _: 0 < a < INF),
    "sigmoid path": (
        lambda a, b: diffusion.SigmoidSchedule(start=a, end=b),
        lambda a, b: FINITE(a) and FINITE(b) and a <= b - 1e-3,
    ),
    "zero terminal": (
        lambda a, _: diffusion.ZeroTerminalSNRSchedule(base=BETA, logsnr_min=10 * a),
        lambda a, _: -80 <= 10 * a < END,
    ),
    "decay": (lambda a, _: training.ConstantDecay(decay=a), lambda a, _: 0 <= a < 1),
    "warmed": (lambda a, _: training.WarmedDecay(decay=a), lambda a, _: 0 <= a < 1),
    "power": (lambda a, _: training.PowerDecay(gamma=a), lambda a, _: -1 < a < INF),
    "width": (lambda a, _: training.PowerDecay.of_width(a), lambda a, _: 1e-3 < a < 12**-0.5),
    "rescaled": (lambda a, _: denoisers.RescaledGuidance(DATA, 2.0, a), lambda a, _: 0 <= a <= 1),
    "projected": (
        lambda a, b: denoisers.ProjectedGuidance(DATA, 2.0, eta=a, radius=b),
        lambda a, b: FINITE(a) and b > 0,
    ),
    "auto": (lambda a, _: denoisers.Autoguidance(DATA, DATA, a), lambda a, _: FINITE(a)),
    "guide": (
        lambda a, _: denoisers.MultiGuidance(
            DATA, [denoisers.Guide(without=Conditioning.without_text, scale=a)]
        ),
        lambda a, _: FINITE(a),
    ),
    "interval": (
        lambda a, b: denoisers.Interval(scale=a, low_logsnr=b),
        lambda a, b: FINITE(a) and b < INF,
    ),
    "reconstruction": (
        lambda a, _: denoisers.ReconstructionGuidance(DATA, DATA.x0, lambda x: x, a),
        lambda a, _: 0 <= a < INF,
    ),
    "annealing": (
        lambda a, b: denoisers.ConditionAnnealing(DATA, KEYS, clear=a, blurred=b),
        lambda a, b: 0 <= a < b <= 1,
    ),
    "annealed": (
        lambda a, b: denoisers.ConditionAnnealing(DATA, KEYS, strength=a, mixing=b),
        lambda a, b: 0 <= a < INF and 0 <= b <= 1,
    ),
    "blur": (lambda a, b: conditioning.BlurAugmentation(low=a, high=b), lambda a, b: 0 < a <= b < INF),
    "blurred": (lambda a, _: conditioning.BlurAugmentation(share=a), lambda a, _: 0 <= a <= 1),
    "sweep": (
        lambda a, b: conditioning.sweep_augmentation(lambda _: DATA.x0, [a, b], measures={}),
        lambda a, b: 0 < a < INF and 0 < b < INF,
    ),
}


@settings(few, max_examples=300)
@given(st.sampled_from(sorted(OPTIONS)), numbers | st.floats(0, 1), numbers | st.floats(0, 1))
def test_an_option_is_taken_or_refused(which: str, a: float, b: float) -> None:
    make, rule = OPTIONS[which]
    assume(which != "width" or not 0 < a < 2e-3)  # so narrow that its gamma is beyond any training
    assume(which != "logsnr" or not abs(b - a) < 2e-6)  # so short that the grid's times may be one
    attempt(partial(make, a, b), right=rule(a, b))


@few
@given(st.integers(-2, 5), st.integers(-2, 300))
def test_a_count_is_taken_or_refused(small: int, large: int) -> None:
    log_p = torch.tensor([-2.0, -30.0])
    attempt(lambda: sampling.UniPC(order=small), right=1 <= small <= 3)
    attempt(lambda: training.HutchinsonTrace(count=small), right=small >= 1)
    attempt(lambda: training.DiscreteDecoder(levels=large), right=large >= 2)
    attempt(lambda: training.dequantize(torch.zeros(2, 3), large), right=large >= 2)
    bits = attempt(
        lambda: training.bits_per_dimension(log_p, small, levels=large), right=small >= 1 and large >= 2
    )
    if bits is not None:
        torch.testing.assert_close(
            bits, -(log_p / small + math.log(2 / (large - 1))) / math.log(2), rtol=1e-5, atol=1e-5
        )
    attempt(
        lambda: sampling.Restart(noisy_logsnr=-1.0, clean_logsnr=1.0, count=small, steps=large),
        right=small >= 1 and large >= 1,
    )


def said(batch: int) -> Conditioning:
    """A caption that adds 1 to the video of `Knows`."""
    return Conditioning(text=torch.ones(batch, 1, 1), text_mask=torch.ones(batch, 1, dtype=torch.bool))


@many
@given(
    cases(),
    st.floats(-2, 8),
    st.floats(0, 1),
    st.sampled_from(["rescaled", "projected", "multi", "auto"]),
    st.sampled_from(denoisers.Passes),
)
def test_guidance_is_its_formula(
    case: Case, scale: float, share: float, kind: str, passes: denoisers.Passes
) -> None:
    cond, x0 = said(case.x0.shape[0]), case.x0.double()
    know, bad = Knows(case.x0), Knows(case.x0 / 2)
    without = [denoisers.Guide(without=Conditioning.without_text, scale=scale)]
    make: dict[str, Callable[[], Any]] = {
        "rescaled": lambda: denoisers.RescaledGuidance(know, scale, share, both=passes),
        "projected": lambda: denoisers.ProjectedGuidance(know, scale, eta=share, radius=0.7, both=passes),
        "multi": lambda: denoisers.MultiGuidance(know, without, both=passes),
        "auto": lambda: denoisers.Autoguidance(know, bad, scale),
    }
    good, axes = x0 + 1, tuple(range(1, 5))
    if kind == "auto":
        wanted = x0 / 2 + 1 + scale * x0 / 2
    elif kind == "projected":
        d = torch.ones_like(x0)
        d = d * (0.7 / d.square().sum(axes, keepdim=True).sqrt()).clamp(max=1)
        unit = good / good.square().sum(axes, keepdim=True).sqrt().clamp(min=1e-30)
        wanted = good + (scale - 1) * (d - (1 - share) * (d * unit).sum(axes, keepdim=True) * unit)
    else:  # a text that adds the same to every pixel changes no contrast
        wanted = x0 + scale
    got = make[kind]()(case.eps, case.t, cond)
    a, s = case.exact
    unit_of = max(case.unit, 1e-6 if kind in ("rescaled", "projected") else 0)
    near(got.x0, wanted, case.x0, 4 * unit_of, 16)
    near(got.eps, (case.eps.double() - a * got.x0.double()) / s, case.x0, case.unit, 64 / s)


@few
@given(cases(), st.lists(st.integers(-1, 4), max_size=3))
def test_the_multiscale_loss_adds_the_coarser_ones(case: Case, factors: list[int]) -> None:
    b, _, _, h, w = case.x0.shape
    model, t = denoisers.ModelDenoiser(Answers()), case.t.float()
    fits = bool(factors) and min(factors) >= 1 and all(h % f == 0 and w % f == 0 for f in factors)

    def run() -> Tensor:
        loss = training.MultiscaleDiffusionLoss(factors=tuple(factors))
        return loss(model, case.x0, t, Conditioning(), generator=case.keyed)

    got = attempt(run, right=fits)
    if got is not None:
        eps = case.keyed.normal(case.x0.shape, step="loss", dtype=case.x0.dtype).double()
        alpha, sigma = (expand_level(v, eps) for v in COSINE.alpha_sigma(t.double()))
        v = alpha * eps - sigma * case.x0.double()
        want = torch.zeros(b, dtype=torch.float64)
        for f in factors:
            blocks = v.unflatten(4, (w // f, f)).unflatten(3, (h // f, f)).mean((4, 6))
            want += f * blocks.square().flatten(1).mean(1)
        unit = max(case.unit, torch.finfo(torch.float32).eps)
        torch.testing.assert_close(got.double(), want, rtol=128 * unit, atol=128 * unit)


@few
@given(cases(), st.integers(-1, 3))
def test_the_bound_has_its_parts_for_every_sample(case: Case, draws: int) -> None:
    """A denoiser that knows x0 leaves nothing to the diffusion part but its baseline's chance."""
    bits = attempt(
        lambda: training.variational_bound(
            Knows(case.x0), case.x0, Conditioning(), generator=case.keyed, draws=draws
        ),
        right=draws >= 1,
    )
    if bits is not None:
        parts = (bits.prior, bits.reconstruction, bits.diffusion)
        assert all(part.shape == case.x0.shape[:1] and bool(part.isfinite().all()) for part in parts)
        assert bool((bits.prior >= 0).all())
        torch.testing.assert_close(bits.total, sum(parts[1:], parts[0]))
        size = case.x0[0].numel()
        prior = 0.5 * case.x0.double().flatten(1).square().sum(1) * math.exp(-20) / size / math.log(2)
        torch.testing.assert_close(bits.prior.double(), prior, rtol=4 * case.unit, atol=1e-9)


@few
@given(cases(), st.integers(-3, 16), st.integers(-3, 16), st.integers(-3, 16))
def test_the_next_grid_is_a_multiple_or_refused(case: Case, frames: int, height: int, width: int) -> None:
    b, c, t, h, w = case.x0.shape
    right = frames >= t and frames % t == 0
    for raise_ in (conditioning.repeat_frames, conditioning.blank_frames, conditioning.blend_frames):
        got = attempt(partial(raise_, case.x0, frames), right=right)
        if got is not None:
            assert got.shape == (b, c + 1, frames, h, w)
            assert got.dtype == case.x0.dtype
            assert torch.equal(got[:, :c, :: frames // t], case.x0)
            assert int((got[:, c] == 1).sum()) == b * t * h * w
    larger = height >= h and width >= w and height % h == 0 and width % w == 0
    flat = torch.full_like(case.x0, 0.5).float()
    for resize in (conditioning.upsample_space, conditioning.upsample_bicubic):
        large = attempt(partial(resize, flat, height, width), right=larger)
        if large is not None:
            near(large, torch.full_like(large, 0.5), torch.empty(b, c, t, height, width), 1e-6)


@few
@given(cases(), st.floats(0, 1))
def test_replacement_keeps_what_is_known(case: Case, share: float) -> None:
    known = torch.rand(case.x0.shape, generator=torch.Generator().manual_seed(case.seed)) < share
    video = case.x0 / 2
    got = denoisers.Replacement(Knows(case.x0), video, known)(case.eps, case.t, Conditioning())
    x0: Tensor = torch.where(known, video, case.x0)
    assert torch.equal(got.x0, x0)
    a, s = case.exact
    near(got.eps, (case.eps.double() - a * x0.double()) / s, case.x0, case.unit, 16 / s)
    attempt(lambda: denoisers.Replacement(Knows(case.x0), video, known.float()), right=False)
