"""Random weightings, levels, draws and predictions: a right answer, or a ValueError with a sentence."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from properties import COSINE, DTYPES, PREDICTIONS, Case, attempt, cases, few, many, near, numbers
from torch import Tensor

from vdm_blocks import diffusion

sizes = st.floats(0.25, 4)


def weight_of_x0(name: str, a: float, b: float) -> tuple[diffusion.Weighting, Any]:
    """A weighting, and its weight on x0's error as a function of the SNR and -dlogsnr/dt."""
    edm = diffusion.EDMPrediction(sigma_data=a)
    every: dict[str, tuple[diffusion.Weighting, Any]] = {
        "x0": (diffusion.X0_MSE, lambda snr, _: torch.ones_like(snr)),
        "eps": (diffusion.EPS_MSE, lambda snr, _: snr),
        "v": (diffusion.V_MSE, lambda snr, _: snr + 1),
        "flow": (diffusion.FLOW_MSE, lambda snr, _: (1 + snr.sqrt()) ** 2),
        "edm": (diffusion.EDM_MSE, lambda snr, _: snr + 4),
        "data": (diffusion.PredictionMSE(prediction=edm), lambda snr, _: snr + a**-2),
        "truncated": (diffusion.TruncatedSNR(floor=a), lambda snr, _: snr.clamp(min=a)),
        "min-SNR": (diffusion.MinSNR(gamma=a), lambda snr, _: snr.clamp(max=a)),
        "P2": (diffusion.P2Weighting(k=a, gamma=b), lambda snr, _: snr / (a + snr) ** b),
        "sigmoid": (
            diffusion.SigmoidWeighting(bias=a),
            lambda snr, slope: slope * math.exp(a) * snr / (snr + math.exp(a)),
        ),
        "bound": (diffusion.BoundWeighting(), lambda snr, slope: slope * snr / 2),
    }
    return every[name]


WEIGHTINGS = ("x0", "eps", "v", "flow", "edm", "data", "truncated", "min-SNR", "P2", "sigmoid", "bound")


@many
@given(cases(), st.sampled_from(WEIGHTINGS), st.sampled_from(PREDICTIONS), sizes, sizes)
def test_a_weight_on_the_output_is_that_on_x0(
    case: Case, name: str, prediction: diffusion.Prediction, a: float, b: float
) -> None:
    t = case.t
    weighting, formula = weight_of_x0(name, a, b)
    logsnr, (alpha, sigma) = COSINE.logsnr(t), COSINE.alpha_sigma(t)
    slope = -diffusion.logsnr_slope(COSINE, t)
    got = diffusion.output_weight(
        weighting, prediction, logsnr=logsnr, slope=lambda: slope, alpha=alpha, sigma=sigma
    )
    x, s = alpha.double(), sigma.double()
    gain = {
        diffusion.X0: torch.ones_like(x),
        diffusion.EPS: s / x,
        diffusion.V: s / (x**2 + s**2),
        diffusion.FLOW: s / (x + s),
        diffusion.SCORE: s**2 / x,
        diffusion.EDM: s * 0.5 / torch.hypot(s, 0.5 * x),
    }[cast(Any, prediction)]
    want = formula(logsnr.double().exp(), slope.double()) * gain**2
    assert got.shape == t.shape
    assert got.dtype == t.dtype
    assert bool((got > 0).all())
    unit = torch.finfo(t.dtype).eps
    torch.testing.assert_close(got.double(), want, rtol=128 * unit, atol=float(torch.finfo(t.dtype).tiny))


@many
@given(cases(), st.lists(st.integers(1, 5), max_size=3), st.sampled_from(DTYPES))
def test_a_network_is_told_one_level_for_each_sample(
    case: Case, shape: list[int], dtype: torch.dtype
) -> None:
    b, _, frames = case.x0.shape[:3]
    level = torch.linspace(-3, 3, max(1, math.prod(shape))).view(shape).to(dtype)
    told = attempt(
        lambda: diffusion.level_of_batch(level, case.x0), right=tuple(shape) in ((), (b,), (b, frames))
    )
    if told is not None:
        assert told.dtype == torch.float32
        assert torch.equal(told, level.float().expand(b) if level.ndim == 0 else level.float())


@many
@given(cases(), st.sampled_from(["keyed", "generator", "torch"]), st.sampled_from(DTYPES), st.integers(0, 5))
def test_noise_starts_at_the_schedules_scale(case: Case, kind: str, dtype: torch.dtype, count: int) -> None:
    shape = (count, *case.x0.shape[1:])
    source: dict[str, diffusion.NoiseSource] = {
        "keyed": case.keyed,
        "generator": torch.Generator().manual_seed(case.seed),
        "torch": None,
    }
    right = kind != "keyed" or count == case.x0.shape[0]
    noise = attempt(partial(diffusion.draw_normal, source[kind], shape, step=1, dtype=dtype), right=right)
    if noise is not None:
        near(noise, noise, torch.empty(shape, dtype=dtype), 0)
        if kind != "torch":
            g = torch.Generator().manual_seed(case.seed)
            again: diffusion.NoiseSource = case.keyed if kind == "keyed" else g
            assert torch.equal(diffusion.draw_normal(again, shape, step=1, dtype=dtype), noise)
        exploding = diffusion.KarrasSchedule()
        unit = torch.finfo(dtype).eps
        ends = (1 + math.exp(-20)) ** -0.5
        near(diffusion.initial(noise, COSINE), ends * noise.double(), noise, unit)
        near(diffusion.initial(noise, exploding), 80 * noise.double(), noise, unit)


@many
@given(st.sampled_from([*PREDICTIONS, "v", None]), st.floats(-70, 0), st.booleans())
def test_only_what_gives_x0_may_be_predicted(prediction: Any, logsnr_min: float, flows: bool) -> None:
    make = diffusion.RectifiedFlowSchedule if flows else diffusion.CosineSchedule
    schedule = make(logsnr_min=logsnr_min, logsnr_max=5.0)
    alpha, sigma = (float(v) for v in schedule.alpha_sigma(torch.ones((), dtype=torch.float64)))
    gains = {diffusion.EPS: sigma / alpha, diffusion.SCORE: sigma**2 / alpha}
    gain = gains.get(prediction, 0.0)
    if abs(gain - 1e6) > 1:  # at the very limit it may go either way
        right = prediction in PREDICTIONS and gain < 1e6
        attempt(lambda: diffusion.check_prediction(prediction, schedule), right=right)


def linear_in(prediction: diffusion.LinearPrediction, case: Case, output: Tensor) -> tuple[Tensor, Tensor]:
    """x0 and eps by the coefficients that the prediction says it has."""
    (a, b), (c, d) = prediction.hub(*COSINE.alpha_sigma(case.t.double()))
    level = partial(diffusion.expand_level, like=output)
    return level(a) * case.eps.double() + level(b) * output, level(c) * case.eps.double() + level(d) * output


@few
@given(cases(), numbers | sizes)
def test_edm_splits_by_its_coefficients_whatever_the_data(case: Case, sigma_data: float) -> None:
    prediction = attempt(
        lambda: diffusion.EDMPrediction(sigma_data=sigma_data), right=0 < sigma_data < math.inf
    )
    if prediction is not None and sigma_data > 1e-2:
        assert isinstance(prediction, diffusion.LinearPrediction)
        alpha, sigma = COSINE.alpha_sigma(case.t)
        x0, eps = prediction.split(case.eps, case.x0, alpha, sigma)
        want_x0, want_eps = linear_in(prediction, case, case.x0.double())
        a, s = case.exact
        near(x0, want_x0, case.x0, case.unit, 8 * (1 + 1 / a) * (1 + 1 / s))
        near(eps, want_eps, case.x0, case.unit, 8 * (1 + 1 / a) * (1 + 1 / s))
        # Together they make z again, and the input has the variance of data and noise taken away.
        near((a * x0.double() + s * eps.double()).to(case.x0), case.eps, case.x0, case.unit, 64 / (a * s))
        scaled = prediction.scale_input(case.eps, alpha, sigma)
        near(
            scaled,
            case.eps.double() / torch.hypot(s, a * sigma_data),
            case.x0,
            case.unit,
            8 / torch.hypot(s, a * sigma_data),
        )


@many
@given(
    st.sampled_from(["uniform", "logit", "log"]), numbers, st.floats(0.1, 3), st.integers(0, 5), st.booleans()
)
def test_a_law_of_times_is_a_quantile_function(
    kind: str, mean: float, std: float, batch: int, per_frame: bool
) -> None:
    right = math.isfinite(mean)
    law: diffusion.TimeLaw | None
    if kind == "uniform":
        right = 0 <= mean < 1
        law = attempt(lambda: diffusion.UniformLaw(low=mean), right=right)
    elif kind == "logit":
        law = attempt(lambda: diffusion.LogitNormalLaw(mean=mean, std=std), right=right)
    else:
        law = attempt(lambda: diffusion.LogNormalLaw(schedule=COSINE, mean=mean, std=std), right=right)
    if law is not None:
        u = torch.linspace(0.001, 0.999, 41, dtype=torch.float64)
        times = law.quantile(u)
        assert bool((times.diff() >= 0).all())
        assert bool(((times >= 0) & (times <= 1)).all())
        middle = float(law.quantile(torch.tensor(0.5, dtype=torch.float64)))
        if kind == "log":
            clean = torch.tensor(-2 * mean, dtype=torch.float64)
            assert math.isclose(middle, float(COSINE.time(clean)), abs_tol=1e-9)
        else:
            assert math.isclose(
                middle, (1 + mean) / 2 if kind == "uniform" else 1 / (1 + math.exp(-mean)), abs_tol=1e-9
            )
        plain = diffusion.IndependentTimes(law=law)
        sampler: diffusion.TimeSampler = diffusion.PerFrameTimes(base=plain, frames=3) if per_frame else plain
        t = attempt(lambda: sampler.draw(batch, seed=1, step=2), right=batch >= 1)
        if t is not None:
            assert t.shape == ((batch, 3) if per_frame else (batch,))
            assert t.dtype == torch.float32
            assert bool(((t >= float(times[0].clamp(max=0))) & (t <= 1)).all())
            assert torch.equal(t, sampler.draw(batch, seed=1, step=2))


BETA = diffusion.LinearBetaSchedule()


@many
@given(
    st.sampled_from(["beta", "sigmoid", "interpolated", "zero"]),
    st.floats(-3, 2.9),
    st.floats(0.05, 6),
    st.sampled_from(DTYPES),
    st.sampled_from([(), (3,), (3, 4)]),
)
def test_made_schedules_have_their_inverse(
    kind: str, low: float, gap: float, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    """The four that the other test leaves out, on their own options."""
    makers: dict[str, Any] = {
        "beta": lambda: diffusion.LinearBetaSchedule(beta_min=low, beta_max=low + gap),
        "sigmoid": lambda: diffusion.SigmoidSchedule(start=low, end=low + gap),
        "interpolated": lambda: diffusion.InterpolatedSchedule(base=COSINE, resolution=64 * low),
        "zero": lambda: diffusion.ZeroTerminalSNRSchedule(base=BETA, logsnr_min=-20 * gap),
    }
    right = {"beta": low >= 0, "sigmoid": True, "interpolated": low > 1e-6, "zero": 10 < 20 * gap <= 80}
    assume(kind != "zero" or not 9 < 20 * gap < 11)  # about where the betas end
    schedule = attempt(makers[kind], right=right[kind])
    if schedule is not None:
        t = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        for at in (t.to(dtype), torch.zeros(shape, dtype=dtype), torch.ones(shape, dtype=dtype)):
            for value in (schedule.logsnr(at), *schedule.alpha_sigma(at)):
                near(value, value, at, 0)
        alpha, sigma = schedule.alpha_sigma(t)
        logsnr = schedule.logsnr(t)
        torch.testing.assert_close(2 * (alpha.log() - sigma.log()), logsnr, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t))
        torch.testing.assert_close(schedule.time(logsnr), t, rtol=0, atol=1e-7)


@few
@given(numbers)
def test_the_preserving_scales_are_those_of_their_log_snr(logsnr: float) -> None:
    for dtype in DTYPES:
        alpha, sigma = diffusion.alpha_sigma_vp(torch.tensor(logsnr, dtype=dtype))
        assert alpha.dtype == sigma.dtype == dtype
        if not math.isnan(logsnr):
            unit = torch.finfo(dtype).eps
            assert math.isclose(float(alpha) ** 2 + float(sigma) ** 2, 1, abs_tol=8 * unit)
            assert math.isclose(float(alpha) ** 2, 1 / (1 + math.exp(-logsnr)), abs_tol=8 * unit)
