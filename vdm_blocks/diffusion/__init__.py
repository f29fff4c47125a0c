"""The mathematics of diffusion: tensors in, tensors out, no network."""

from vdm_blocks.diffusion.broadcast import expand_level, level_of_batch
from vdm_blocks.diffusion.noise import KeyedNoise, NoiseSource, draw_normal
from vdm_blocks.diffusion.predictions import (
    EDM,
    EPS,
    FLOW,
    SCORE,
    X0,
    EDMPrediction,
    Prediction,
    V,
)
from vdm_blocks.diffusion.schedules import (
    CosineSchedule,
    LinearBetaSchedule,
    LinearLogSNRSchedule,
    NoiseSchedule,
    SigmoidSchedule,
    alpha_sigma_vp,
    logsnr_slope,
)
from vdm_blocks.diffusion.weightings import (
    EPS_MSE,
    FLOW_MSE,
    V_MSE,
    X0_MSE,
    PredictionMSE,
    Weighting,
    output_weight,
)

__all__ = [
    "EDM",
    "EPS",
    "EPS_MSE",
    "FLOW",
    "FLOW_MSE",
    "SCORE",
    "V_MSE",
    "X0",
    "X0_MSE",
    "CosineSchedule",
    "EDMPrediction",
    "KeyedNoise",
    "LinearBetaSchedule",
    "LinearLogSNRSchedule",
    "NoiseSchedule",
    "NoiseSource",
    "Prediction",
    "PredictionMSE",
    "SigmoidSchedule",
    "V",
    "Weighting",
    "alpha_sigma_vp",
    "draw_normal",
    "expand_level",
    "level_of_batch",
    "logsnr_slope",
    "output_weight",
]
