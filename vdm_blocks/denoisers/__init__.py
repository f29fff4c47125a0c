"""Denoisers: a network with its schedule and prediction, and wrappers with a denoiser's own signature."""

from vdm_blocks.denoisers.annealed import ConditionAnnealing
from vdm_blocks.denoisers.autoguidance import Autoguidance
from vdm_blocks.denoisers.classifier_free import ClassifierFreeGuidance
from vdm_blocks.denoisers.model import ModelDenoiser
from vdm_blocks.denoisers.multi import Guide, MultiGuidance
from vdm_blocks.denoisers.passes import Passes
from vdm_blocks.denoisers.projected import Momentum, ProjectedGuidance
from vdm_blocks.denoisers.quantile import magnitude_quantile
from vdm_blocks.denoisers.reconstruction import ReconstructionGuidance, Replacement
from vdm_blocks.denoisers.rescaled import RescaledGuidance
from vdm_blocks.denoisers.residual import ResidualNetwork
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
    "Autoguidance",
    "ClassifierFreeGuidance",
    "ConditionAnnealing",
    "Constant",
    "DenoiserWrapper",
    "DynamicThreshold",
    "Guide",
    "Interval",
    "ModelDenoiser",
    "Momentum",
    "MultiGuidance",
    "OfLogSNR",
    "Oscillating",
    "Passes",
    "ProjectedGuidance",
    "ReconstructionGuidance",
    "Replacement",
    "RescaledGuidance",
    "ResidualNetwork",
    "Scale",
    "StaticThreshold",
    "ThresholdPer",
    "guidance_scale_from_paper",
    "magnitude_quantile",
]
