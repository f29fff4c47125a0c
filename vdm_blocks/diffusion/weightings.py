"""Loss weights, each stated once as w_x(logsnr), the weight on the squared error of x0.

What that means for a network that predicts something else follows: the squared error of its output is
multiplied by w_x x0_gain^2, which is finite for every pair that one would use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vdm_blocks.diffusion.predictions import EPS, FLOW, X0, Prediction, V
from vdm_blocks.diffusion.schedules import alpha_sigma_vp

__all__ = ["EPS_MSE", "FLOW_MSE", "V_MSE", "X0_MSE", "PredictionMSE", "Weighting", "output_weight"]


class Weighting(Protocol):
    """A weight on the squared error of x0, as a function of log-SNR."""

    def log_weight(self, logsnr: Tensor) -> Tensor:
        """Log w_x, of the shape of `logsnr`."""


@dataclass(frozen=True, kw_only=True)
class PredictionMSE:
    """The plain squared error of `prediction`, whatever the network predicts.

    X0 gives w_x = 1, EPS w_x = SNR, V w_x = SNR + 1, FLOW w_x = (1 + exp(logsnr / 2))^2, EDM the weight of
    arXiv 2206.00364, (sigma^2 + d^2) / (sigma d)^2.
    """

    prediction: Prediction

    def log_weight(self, logsnr: Tensor) -> Tensor:
        """-2 log |d x0 / d output| under a variance-preserving z_t."""
        return -2 * self.prediction.x0_gain(*alpha_sigma_vp(logsnr)).log()


X0_MSE = PredictionMSE(prediction=X0)
EPS_MSE = PredictionMSE(prediction=EPS)
V_MSE = PredictionMSE(prediction=V)
FLOW_MSE = PredictionMSE(prediction=FLOW)


def output_weight(
    weighting: Weighting, prediction: Prediction, logsnr: Tensor, alpha: Tensor, sigma: Tensor
) -> Tensor:
    """The weight on the squared error of a network's output: w_x x0_gain^2, exactly 1 for its own plain
    error.

    >>> logsnr = torch.tensor([-3.0, 0.0])
    >>> output_weight(V_MSE, EPS, logsnr, *alpha_sigma_vp(logsnr))  # (SNR + 1) / SNR
    tensor([21.0855,  2.0000])
    """
    if isinstance(weighting, PredictionMSE) and weighting.prediction == prediction:
        return torch.ones_like(logsnr)
    return (weighting.log_weight(logsnr) + 2 * prediction.x0_gain(alpha, sigma).log()).exp()
