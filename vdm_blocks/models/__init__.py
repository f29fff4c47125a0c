"""Whole networks, built from specs."""

from vdm_blocks.models.build import build_network
from vdm_blocks.models.context_spec import (
    AttentionPoolSpec,
    FourierSpec,
    InverseCosineSpec,
    MeanPoolSpec,
    SinusoidSpec,
)
from vdm_blocks.models.cost import Cost, DeviceSpeed, cost_of
from vdm_blocks.models.inflate import Inflated, Inflation, inflate, inflate_unet
from vdm_blocks.models.presets import Preset, imagen, imagen_video, vdm
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
    "AttentionPoolSpec",
    "ChannelNormSpec",
    "Cost",
    "DeviceSpeed",
    "FactorizedSpec",
    "FourierSpec",
    "GroupNormSpec",
    "Inflated",
    "Inflation",
    "InverseCosineSpec",
    "JoinedTextSpec",
    "JointSpec",
    "LevelSpec",
    "MagnitudeNormSpec",
    "MeanPoolSpec",
    "Preset",
    "RMSNormSpec",
    "SinusoidSpec",
    "SpatialAttentionSpec",
    "TemporalAttentionSpec",
    "TemporalConvSpec",
    "TextAttentionSpec",
    "TiledNetwork",
    "TransformerSpec",
    "UNetSpec",
    "VideoTransformer",
    "VideoUNet",
    "build_network",
    "cost_of",
    "imagen",
    "imagen_video",
    "inflate",
    "inflate_unet",
    "vdm",
]
