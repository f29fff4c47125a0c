"""Denoisers: a network with its schedule and prediction, and wrappers with a denoiser's own signature."""

from vdm_blocks.denoisers.classifier_free import ClassifierFreeGuidance
from vdm_blocks.denoisers.model import ModelDenoiser
from vdm_blocks.denoisers.passes import Passes
from vdm_blocks.denoisers.quantile import magnitude_quantile
from vdm_blocks.denoisers.scales import (
    Constant,
    Interval,
    OfLogSNR,
    Oscillating,
    Scale,
    guidance_scale_from_paper,
)
from vdm_blocks.denoisers.thresholding import DynamicThreshold, StaticThreshold, ThresholdPer
from vdm_blocks.denoisers.wrapper import DenoiserWrapper

__all__ = [
    "ClassifierFreeGuidance",
    "Constant",
    "DenoiserWrapper",
    "DynamicThreshold",
    "Interval",
    "ModelDenoiser",
    "OfLogSNR",
    "Oscillating",
    "Passes",
    "Scale",
    "StaticThreshold",
    "ThresholdPer",
    "guidance_scale_from_paper",
    "magnitude_quantile",
]
