"""Whole networks, built from specs."""

from vdm_blocks.models.spec import (
    LevelSpec,
    SpatialAttentionSpec,
    TemporalAttentionSpec,
    TemporalConvSpec,
    TextAttentionSpec,
    UNetSpec,
)
from vdm_blocks.models.unet import VideoUNet

__all__ = [
    "LevelSpec",
    "SpatialAttentionSpec",
    "TemporalAttentionSpec",
    "TemporalConvSpec",
    "TextAttentionSpec",
    "UNetSpec",
    "VideoUNet",
]
