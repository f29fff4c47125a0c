"""Loss weights, each stated once as w_x, the weight on the squared error of x0 when times are drawn uniformly.

What that means for a network that predicts something else follows: the squared error of its output is multiplied
by w_x x0_gain^2, which is finite for every pair that one would use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor

from vdm_blocks.diffusion.predictions import EDM, EPS, FLOW, X0, Prediction, V
from vdm_blocks.diffusion.schedules import NoiseSchedule, alpha_sigma_vp, logsnr_slope
from vdm_blocks.diffusion.values import check_numbers, check_value

__all__ = [
    "EDM_MSE",
    "EPS_MSE",
    "FLOW_MSE",
    "V_MSE",
    "X0_MSE",
    "BoundWeighting",
    "MinSNR",
    "P2Weighting",
    "PredictionMSE",
    "SigmoidWeighting",
    "Slope",
    "TruncatedSNR",
    "Weighting",
    "output_weight",
    "weight_at",
]


Slope = Callable[[], Tensor]


@runtime_checkable
class Weighting(Protocol):
    """A weight on the squared error of x0."""

    def log_weight(self, logsnr: Tensor, slope: Slope) -> Tensor:
        """log w_x, of the shape of `logsnr`.

        `slope()` is -dlogsnr/dt, positive, for the weights that are stated per unit of log-SNR instead of time.
        """


@dataclass(frozen=True, kw_only=True)
class PredictionMSE:
    """The plain squared error of `prediction`, whatever the network predicts.

    X0 gives w_x = 1, EPS w_x = SNR, V w_x = SNR + 1, FLOW w_x = (1 + exp(logsnr / 2))^2 and EDM
    w_x = (sigma^2 + d^2) / (sigma d)^2 with sigma^2 = 1 / SNR (arXiv 2202.00512, section 4; 2206.00364, table 1).
    """

    prediction: Prediction

    def log_weight(self, logsnr: Tensor, slope: Slope) -> Tensor:  # noqa: ARG002
        """-2 log |d x0 / d output| under a variance-preserving z_t."""
        return -2 * self.prediction.x0_gain(*alpha_sigma_vp(logsnr)).log()


X0_MSE = PredictionMSE(prediction=X0)
EPS_MSE = PredictionMSE(prediction=EPS)
V_MSE = PredictionMSE(prediction=V)
FLOW_MSE = PredictionMSE(prediction=FLOW)
EDM_MSE = PredictionMSE(prediction=EDM)


def _check_positive(name: str, **values: float) -> None:
    for key, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} got {key}={value}; it must be positive and finite")


@dataclass(frozen=True, kw_only=True)
class TruncatedSNR:
    """w_x = max(SNR, floor): the squared error of eps, but never less than that of x0 (arXiv 2202.00512, section 4)."""

    floor: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self)
        _check_positive("TruncatedSNR", floor=self.floor)

    def log_weight(self, logsnr: Tensor, slope: Slope) -> Tensor:  # noqa: ARG002
        """max(logsnr, log floor)."""
        return logsnr.clamp(min=math.log(self.floor))


@dataclass(frozen=True, kw_only=True)
class MinSNR:
    """w_x = min(SNR, gamma) (arXiv 2303.09556, section 3.4).

    For v that is min(SNR, gamma) / (SNR + 1), for eps min(SNR, gamma) / SNR; neither has to be asked for.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        check_numbers(self)
        _check_positive("MinSNR", gamma=self.gamma)

    def log_weight(self, logsnr: Tensor, slope: Slope) -> Tensor:  # noqa: ARG002
        """min(logsnr, log gamma)."""
        return logsnr.clamp(max=math.log(self.gamma))


@dataclass(frozen=True, kw_only=True)
class P2Weighting:
    """w_x = SNR / (k + SNR)^gamma: on eps 1 / (k + SNR)^gamma (arXiv 2204.00227, eq. 8)."""

    k: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self)
        _check_positive("P2Weighting", k=self.k, gamma=self.gamma)

    def log_weight(self, logsnr: Tensor, slope: Slope) -> Tensor:  # noqa: ARG002
        """logsnr - gamma log(k + SNR)."""
        return logsnr - self.gamma * (math.log(self.k) + _softplus(logsnr - math.log(self.k)))


@dataclass(frozen=True, kw_only=True)
class SigmoidWeighting:
    """w_x = -dlogsnr/dt exp(bias) sigmoid(logsnr - bias), the same whatever the schedule (arXiv 2410.19324).

    Below a log-SNR of `bias` it follows the bound, SNR; above it stays at exp(bias): a lower bias cares less for
    fine detail.
    """

    bias: float

    def __post_init__(self) -> None:
        check_numbers(self)
        if not math.isfinite(self.bias):
            raise ValueError(
                f"SigmoidWeighting got bias={self.bias}; it is a log-SNR and must be finite, e.g. -3"
            )

    def log_weight(self, logsnr: Tensor, slope: Slope) -> Tensor:
        """log slope + bias + log sigmoid(logsnr - bias)."""
        return slope().log() + self.bias - _softplus(self.bias - logsnr)


@dataclass(frozen=True, kw_only=True)
class BoundWeighting:
    """w_x = -dlogsnr/dt SNR / 2: the diffusion part of the variational bound, in nats per entry (arXiv 2107.00630)."""

    def log_weight(self, logsnr: Tensor, slope: Slope) -> Tensor:
        """log slope + logsnr - log 2."""
        return slope().log() + logsnr - math.log(2)


def _softplus(x: Tensor) -> Tensor:
    return F.softplus(x, threshold=40)


def output_weight(
    weighting: Weighting,
    prediction: Prediction,
    *,
    logsnr: Tensor,
    slope: Slope,
    alpha: Tensor,
    sigma: Tensor,
) -> Tensor:
    """The weight on the squared error of a network's output: w_x x0_gain^2.

    Where variance is preserved it is exactly 1 for a network that predicts what is weighted, V with V_MSE say.

    >>> import torch
    >>> logsnr = torch.tensor([-3.0, 0.0])
    >>> alpha, sigma = alpha_sigma_vp(logsnr)
    >>> slope = lambda: torch.ones(2)
    >>> output_weight(V_MSE, EPS, logsnr=logsnr, slope=slope, alpha=alpha, sigma=sigma)  # (SNR + 1) / SNR
    tensor([21.0855,  2.0000])

    Raises:
        ValueError: what is no weighting at all, or a class of them.
    """
    check_value("weighting", weighting, Weighting, "a value, for example V_MSE or MinSNR(gamma=5.0)")
    return (weighting.log_weight(logsnr, slope) + 2 * prediction.x0_gain(alpha, sigma).log()).exp()


def weight_at(weighting: Weighting, prediction: Prediction, schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """`output_weight` at time `t` of `schedule`."""
    alpha, sigma = schedule.alpha_sigma(t)
    return output_weight(
        weighting,
        prediction,
        logsnr=schedule.logsnr(t),
        slope=lambda: -logsnr_slope(schedule, t),
        alpha=alpha,
        sigma=sigma,
    )
