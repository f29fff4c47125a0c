from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vdm_blocks.diffusion import (
    EDM,
    EPS,
    FLOW,
    SCORE,
    X0,
    CosineSchedule,
    EDMPrediction,
    InterpolatedSchedule,
    KarrasSchedule,
    LearnedSchedule,
    LinearBetaSchedule,
    LinearLogSNRSchedule,
    NoiseSchedule,
    Prediction,
    RectifiedFlowSchedule,
    ShiftedSchedule,
    SigmoidSchedule,
    V,
    ZeroTerminalSNRSchedule,
    check_prediction,
    diffuse,
)

PREDICTIONS: dict[str, Prediction] = {"x0": X0, "eps": EPS, "v": V, "flow": FLOW, "score": SCORE, "edm": EDM}
SCHEDULES: dict[str, NoiseSchedule] = {
    "cosine": CosineSchedule(),
    "flow": RectifiedFlowSchedule(logsnr_min=-20.0, logsnr_max=20.0),
    "karras": KarrasSchedule(),
    "sigmoid": SigmoidSchedule(),
    "linear log-SNR": LinearLogSNRSchedule(),
    "linear beta": LinearBetaSchedule(),
    "shifted": ShiftedSchedule(base=CosineSchedule(), resolution=256),
    "interpolated": InterpolatedSchedule(base=CosineSchedule(), resolution=256),
    "zero terminal": ZeroTerminalSNRSchedule(base=LinearBetaSchedule()),
    "learned": LearnedSchedule().requires_grad_(False),
}
SHAPE = (2, 3, 4, 5, 2)  # B = W, H and W differ
LEVELS: dict[str, Tensor] = {
    "()": torch.tensor(0.37, dtype=torch.float64),
    "(B,)": torch.tensor([0.11, 0.83], dtype=torch.float64),
    "(B, T)": torch.linspace(0.05, 0.95, 8, dtype=torch.float64).view(2, 4),
}


def clean_and_noise(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return tuple(torch.randn(SHAPE, generator=g, dtype=dtype) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("source", PREDICTIONS)
def test_every_conversion_closes(source: str, schedule: str, level: str) -> None:
    """From the truth to `source`, through the hub to any other, and through the hub back to the truth."""
    x0, eps = clean_and_noise()
    p, t = PREDICTIONS[source], LEVELS[level]
    alpha, sigma = SCHEDULES[schedule].alpha_sigma(t)
    z_t = diffuse(x0, eps, t, SCHEDULES[schedule])
    for target, q in PREDICTIONS.items():
        converted = q.target(*p.split(z_t, p.target(x0, eps, alpha, sigma), alpha, sigma), alpha, sigma)
        back = q.split(z_t, converted, alpha, sigma)
        assert (back[0] - x0).abs().max() < 1e-10, target
        assert (back[1] - eps).abs().max() < 1e-10, target


@pytest.mark.parametrize("name", PREDICTIONS)
def test_levels_per_frame_are_the_levels_of_the_frames(name: str) -> None:
    x0, eps = clean_and_noise()
    prediction, schedule, t = PREDICTIONS[name], CosineSchedule(), LEVELS["(B, T)"]
    alpha, sigma = schedule.alpha_sigma(t)
    output = torch.randn(SHAPE, dtype=torch.float64)
    whole = prediction.split(x0, output, alpha, sigma)
    targets = prediction.target(x0, eps, alpha, sigma)
    for b in range(SHAPE[0]):
        for f in range(SHAPE[2]):
            frame = (slice(b, b + 1), slice(None), slice(f, f + 1))
            alone = prediction.split(x0[frame], output[frame], alpha[b, f], sigma[b, f])
            assert torch.allclose(whole[0][frame], alone[0], atol=1e-12, rtol=1e-12)
            assert torch.allclose(whole[1][frame], alone[1], atol=1e-12, rtol=1e-12)
            target = prediction.target(x0[frame], eps[frame], alpha[b, f], sigma[b, f])
            assert torch.allclose(targets[frame], target, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", PREDICTIONS)
def test_the_answer_makes_up_z_whatever_the_output(name: str, schedule: str) -> None:
    z_t, output = clean_and_noise()
    alpha, sigma = SCHEDULES[schedule].alpha_sigma(LEVELS["(B,)"])
    x0, eps = PREDICTIONS[name].split(z_t, output, alpha, sigma)
    assert (diffuse(x0, eps, LEVELS["(B,)"], SCHEDULES[schedule]) - z_t).abs().max() < 1e-9


@pytest.mark.parametrize("name", PREDICTIONS)
def test_gain_is_what_an_error_is_multiplied_by(name: str) -> None:
    z_t, output = clean_and_noise()
    alpha, sigma = RectifiedFlowSchedule().alpha_sigma(LEVELS["()"])
    prediction = PREDICTIONS[name]
    moved = (
        prediction.split(z_t, output + 1, alpha, sigma)[0] - prediction.split(z_t, output, alpha, sigma)[0]
    )
    assert torch.allclose(moved.abs(), prediction.x0_gain(alpha, sigma).expand_as(moved))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", PREDICTIONS)
def test_splitting_into_the_output_changes_where_not_what(name: str, level: str) -> None:
    z_t, output = clean_and_noise(torch.float32)
    alpha, sigma = CosineSchedule().alpha_sigma(LEVELS[level])
    expected = PREDICTIONS[name].split(z_t, output, alpha, sigma)
    kept = z_t.clone()
    with torch.no_grad():
        x0, eps = PREDICTIONS[name].split(z_t, output, alpha, sigma, into_output=True)
    assert eps.data_ptr() == output.data_ptr()
    assert torch.equal(z_t, kept)
    assert torch.allclose(x0, expected[0], atol=1e-5, rtol=1e-5)
    assert torch.allclose(eps, expected[1], atol=1e-5, rtol=1e-5)


def test_without_gradients_the_output_is_left_alone_by_default() -> None:
    z_t, output = clean_and_noise()
    kept = output.clone()
    with torch.no_grad():
        for prediction in PREDICTIONS.values():
            prediction.split(z_t, output, *CosineSchedule().alpha_sigma(LEVELS["()"]))
            assert torch.equal(output, kept)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_edm_preconditioning_is_the_published_one(schedule: str) -> None:
    z_t, output = clean_and_noise()
    alpha, sigma = SCHEDULES[schedule].alpha_sigma(LEVELS["()"])
    s, d = sigma / alpha, 0.5
    c_skip, c_out, c_in = d**2 / (s**2 + d**2), s * d / (s**2 + d**2).sqrt(), 1 / (s**2 + d**2).sqrt()
    x = z_t / alpha
    assert torch.allclose(EDM.split(z_t, output, alpha, sigma)[0], c_skip * x + c_out * output)
    assert torch.allclose(EDM.scale_input(z_t, alpha, sigma), c_in * x)


def test_edm_with_unit_data_is_minus_v() -> None:
    x0, eps = clean_and_noise()
    alpha, sigma = CosineSchedule().alpha_sigma(LEVELS["(B,)"])
    edm = EDMPrediction(sigma_data=1.0)
    assert torch.allclose(edm.target(x0, eps, alpha, sigma), -V.target(x0, eps, alpha, sigma))


def test_flow_and_v_agree_as_derived() -> None:
    """u = v / n + (2 t - 1) z_vp / n, with n = hypot(1 - t, t) and v, z_vp on the variance-preserving path."""
    x0, eps = clean_and_noise()
    t = LEVELS["()"]
    n = torch.hypot(1 - t, t)
    alpha, sigma = (1 - t) / n, t / n
    v, z_vp = V.target(x0, eps, alpha, sigma), alpha * x0 + sigma * eps
    assert torch.allclose(FLOW.target(x0, eps, alpha, sigma), v / n + (2 * t - 1) / n * z_vp)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("end", [0.0, 1.0])
@pytest.mark.parametrize("name", PREDICTIONS)
def test_ends_are_finite_and_keep_the_dtype(name: str, end: float, dtype: torch.dtype) -> None:
    """On the schedules' default range; float16 holds x0 from eps at t = 1 only where the noise is below 2.9."""
    x0, eps = (x.clamp(-2.5, 2.5).to(dtype) for x in clean_and_noise())
    alpha, sigma = CosineSchedule().alpha_sigma(torch.full((SHAPE[0],), end))
    prediction = PREDICTIONS[name]
    output = prediction.target(x0, eps, alpha, sigma)
    z_t = diffuse(x0, eps, torch.full((SHAPE[0],), end), CosineSchedule())
    for part in (z_t, output, *prediction.split(z_t, output, alpha, sigma)):
        assert part.dtype == dtype
        assert part.isfinite().all()


def test_gradients_pass_through() -> None:
    z_t, output = clean_and_noise()
    output.requires_grad_()
    for prediction in PREDICTIONS.values():
        x0, eps = prediction.split(z_t, output, *CosineSchedule().alpha_sigma(LEVELS["(B, T)"]))
        (gradient,) = torch.autograd.grad((x0 + eps).sum(), output)
        assert gradient.abs().min() > 0


@pytest.mark.parametrize("prediction", [EPS, SCORE])
def test_predictions_that_say_nothing_at_zero_snr_are_refused(prediction: Prediction) -> None:
    for schedule in (ZeroTerminalSNRSchedule(base=LinearBetaSchedule()), RectifiedFlowSchedule()):
        with pytest.raises(ValueError, match="predict V, X0 or FLOW"):
            check_prediction(prediction, schedule)
        for good in (X0, V, FLOW, EDM):
            check_prediction(good, schedule)
    check_prediction(prediction, CosineSchedule())


def test_a_spread_of_data_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="standard deviation of the data"):
        EDMPrediction(sigma_data=0.0)
