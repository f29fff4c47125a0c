from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vdm_blocks.diffusion import (
    EDM,
    EDM_MSE,
    EPS,
    EPS_MSE,
    FLOW,
    FLOW_MSE,
    SCORE,
    V_MSE,
    X0,
    X0_MSE,
    BoundWeighting,
    CosineSchedule,
    LinearLogSNRSchedule,
    MinSNR,
    NoiseSchedule,
    P2Weighting,
    Prediction,
    PredictionMSE,
    SigmoidSchedule,
    SigmoidWeighting,
    TruncatedSNR,
    V,
    Weighting,
    alpha_sigma_vp,
    logsnr_slope,
    output_weight,
)

LOGSNR = torch.linspace(-20, 20, 81, dtype=torch.float64)
SNR = LOGSNR.exp()


def weight(weighting: Weighting, prediction: Prediction, logsnr: Tensor = LOGSNR) -> Tensor:
    alpha, sigma = alpha_sigma_vp(logsnr)
    return output_weight(
        weighting,
        prediction,
        logsnr=logsnr,
        slope=lambda: torch.full_like(logsnr, 3.0),
        alpha=alpha,
        sigma=sigma,
    )


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-10, atol=0)


def test_weights_on_x0_are_those_of_the_papers() -> None:
    sigma2 = 1 / SNR
    stated: dict[Weighting, Tensor] = {
        X0_MSE: torch.ones_like(SNR),
        EPS_MSE: SNR,
        V_MSE: SNR + 1,
        FLOW_MSE: (1 + SNR.sqrt()) ** 2,
        EDM_MSE: (sigma2 + 0.25) / (sigma2 * 0.25),
        TruncatedSNR(): SNR.clamp(min=1),
        MinSNR(): SNR.clamp(max=5),
        P2Weighting(k=2.0, gamma=0.5): SNR / (2 + SNR) ** 0.5,
        SigmoidWeighting(bias=-1.0): 3 * math.exp(-1) * torch.sigmoid(LOGSNR + 1),
        BoundWeighting(): 1.5 * SNR,
    }
    for weighting, expected in stated.items():
        assert close(weight(weighting, X0), expected), weighting


def test_min_snr_is_right_for_every_prediction() -> None:
    """The two forms that public code disputes: for v it is min(SNR, 5) / (SNR + 1), not min(SNR, 5) / SNR + 1."""
    capped = SNR.clamp(max=5)
    assert close(weight(MinSNR(), EPS), capped / SNR)
    assert close(weight(MinSNR(), V), capped / (SNR + 1))


def test_p2_is_the_paper_formula_on_eps() -> None:
    assert close(weight(P2Weighting(k=1.0, gamma=1.0), EPS), 1 / (1 + SNR))


@pytest.mark.parametrize("prediction", [X0, EPS, V, FLOW, SCORE, EDM])
def test_a_prediction_s_own_error_counts_plainly(prediction: Prediction) -> None:
    plain = weight(PredictionMSE(prediction=prediction), prediction)
    assert torch.equal(plain, torch.ones_like(plain))


@pytest.mark.parametrize("prediction", [X0, EPS, V, FLOW, EDM])
@pytest.mark.parametrize(
    "weighting",
    [
        X0_MSE,
        EPS_MSE,
        V_MSE,
        FLOW_MSE,
        EDM_MSE,
        TruncatedSNR(),
        MinSNR(),
        P2Weighting(),
        SigmoidWeighting(bias=-3.0),
    ],
)
def test_weights_are_finite_at_both_ends_in_float32(weighting: Weighting, prediction: Prediction) -> None:
    ends = weight(weighting, prediction, torch.tensor([-20.0, 20.0]))
    assert ends.isfinite().all()
    assert (ends >= 0).all()


@pytest.mark.parametrize("weighting", [BoundWeighting(), SigmoidWeighting(bias=-2.0)])
def test_weights_per_log_snr_do_not_depend_on_the_schedule(weighting: Weighting) -> None:
    """The integral over time of w f(logsnr) is that over log-SNR, whatever the way between the ends."""
    t = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000

    def integral(schedule: NoiseSchedule) -> float:
        logsnr = schedule.logsnr(t)
        w = weighting.log_weight(logsnr, lambda: -logsnr_slope(schedule, t)).exp()
        return float((w * torch.sigmoid(-logsnr) * torch.exp(-((logsnr / 4) ** 2))).mean())

    values = [
        integral(schedule) for schedule in (CosineSchedule(), LinearLogSNRSchedule(), SigmoidSchedule())
    ]
    assert max(values) - min(values) < 1e-5 * max(values)


def test_numbers_that_make_no_sense_are_refused() -> None:
    for make in (lambda: MinSNR(gamma=0.0), lambda: TruncatedSNR(floor=-1.0), lambda: P2Weighting(k=0.0)):
        with pytest.raises(ValueError, match="must be positive"):
            make()
    with pytest.raises(ValueError, match="must be finite"):
        SigmoidWeighting(bias=math.inf)
