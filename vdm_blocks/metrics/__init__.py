"""What a video is worth: fidelity to a reference, distances between sets, consistency over time, fit to a text."""

from vdm_blocks.metrics.consistency import dynamic_degree, flicker, warp, warping_error
from vdm_blocks.metrics.distance import (
    bootstrap_interval,
    frechet_distance,
    gaussian_distance,
    kernel_distance,
)
from vdm_blocks.metrics.features import FeatureBank, GaussianStats
from vdm_blocks.metrics.quality import psnr, ssim
from vdm_blocks.metrics.retrieval import clip_score, r_precision

__all__ = [
    "FeatureBank",
    "GaussianStats",
    "bootstrap_interval",
    "clip_score",
    "dynamic_degree",
    "flicker",
    "frechet_distance",
    "gaussian_distance",
    "kernel_distance",
    "psnr",
    "r_precision",
    "ssim",
    "warp",
    "warping_error",
]
