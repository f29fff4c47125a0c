"""Whole networks, built from specs."""

from vdm_blocks.models.inflate import Inflated, Inflation, inflate, inflate_unet
from vdm_blocks.models.spec import (
    ChannelNormSpec,
    GroupNormSpec,
    JoinedTextSpec,
    LevelSpec,
    MagnitudeNormSpec,
    RMSNormSpec,
    SpatialAttentionSpec,
    TemporalAttentionSpec,
    TemporalConvSpec,
    TextAttentionSpec,
    UNetSpec,
)
from vdm_blocks.models.tiled import TiledNetwork
from vdm_blocks.models.transformer import VideoTransformer
from vdm_blocks.models.transformer_spec import FactorizedSpec, JointSpec, TransformerSpec
from vdm_blocks.models.unet import VideoUNet

__all__ = [
    "ChannelNormSpec",
    "FactorizedSpec",
    "GroupNormSpec",
    "Inflated",
    "Inflation",
    "JoinedTextSpec",
    "JointSpec",
    "LevelSpec",
    "MagnitudeNormSpec",
    "RMSNormSpec",
    "SpatialAttentionSpec",
    "TemporalAttentionSpec",
    "TemporalConvSpec",
    "TextAttentionSpec",
    "TiledNetwork",
    "TransformerSpec",
    "UNetSpec",
    "VideoTransformer",
    "VideoUNet",
    "inflate",
    "inflate_unet",
]
