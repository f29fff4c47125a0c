"""What a video is worth: fidelity to a reference, distances between sets, consistency over time, fit to a text."""

from vdm_blocks.metrics.attributes import (
    AttributeScore,
    AttributeTally,
    depth_order,
    motion_direction,
    nearest_color,
)
from vdm_blocks.metrics.cameras import Cameras
from vdm_blocks.metrics.clip import CLIPEncoder, TextFrameEncoder
from vdm_blocks.metrics.consistency import (
    dynamic_degree,
    feature_consistency,
    flicker,
    motion_degree,
    motion_smoothness,
    unless_frozen,
    warp,
    warping_error,
)
from vdm_blocks.metrics.distance import (
    bootstrap_interval,
    frechet_by_count,
    frechet_distance,
    frechet_extrapolated,
    gaussian_distance,
    kernel_distance,
    kernel_subsets,
)
from vdm_blocks.metrics.efflite import EffLite0Features
from vdm_blocks.metrics.epipolar import (
    epipolar_residual,
    fundamental_from_matches,
    match_points,
    sampson_distance,
)
from vdm_blocks.metrics.extractor import FeatureExtractor
from vdm_blocks.metrics.features import FeatureBank, GaussianStats
from vdm_blocks.metrics.fingerprint import Fingerprint
from vdm_blocks.metrics.flow import estimate_flow
from vdm_blocks.metrics.frame_input import FrameInput
from vdm_blocks.metrics.objects import Sightings, TrackError, color_mask, pieces, sight, track_error
from vdm_blocks.metrics.openclip import OpenCLIPEncoder
from vdm_blocks.metrics.permanence import Permanence, permanence
from vdm_blocks.metrics.pth import read_pth
from vdm_blocks.metrics.quality import psnr, ssim
from vdm_blocks.metrics.retrieval import clip_score, r_precision
from vdm_blocks.metrics.torchscript import I3DFeatures, InceptionFeatures
from vdm_blocks.metrics.transnet import TransNetFeatures
from vdm_blocks.metrics.videomae import VideoMAEFeatures

__all__ = [
    "AttributeScore",
    "AttributeTally",
    "CLIPEncoder",
    "Cameras",
    "EffLite0Features",
    "FeatureBank",
    "FeatureExtractor",
    "Fingerprint",
    "FrameInput",
    "GaussianStats",
    "I3DFeatures",
    "InceptionFeatures",
    "OpenCLIPEncoder",
    "Permanence",
    "Sightings",
    "TextFrameEncoder",
    "TrackError",
    "TransNetFeatures",
    "VideoMAEFeatures",
    "bootstrap_interval",
    "clip_score",
    "color_mask",
    "depth_order",
    "dynamic_degree",
    "epipolar_residual",
    "estimate_flow",
    "feature_consistency",
    "flicker",
    "frechet_by_count",
    "frechet_distance",
    "frechet_extrapolated",
    "fundamental_from_matches",
    "gaussian_distance",
    "kernel_distance",
    "kernel_subsets",
    "match_points",
    "motion_degree",
    "motion_direction",
    "motion_smoothness",
    "nearest_color",
    "permanence",
    "pieces",
    "psnr",
    "r_precision",
    "read_pth",
    "sampson_distance",
    "sight",
    "ssim",
    "track_error",
    "unless_frozen",
    "warp",
    "warping_error",
]
