"""Layers on (B, C, T, H, W); they know nothing of diffusion."""

from vdm_blocks.nn.attend import attend, attend_by_products, attend_fused
from vdm_blocks.nn.attention import SpatialAttention, TemporalAttention, TextAttention
from vdm_blocks.nn.axes import channels_last, fold_frames, from_last, to_last, unfold_frames
from vdm_blocks.nn.blocks import ResidualBlock
from vdm_blocks.nn.conv import FactorizedConv, SpatialConv, TemporalConv
from vdm_blocks.nn.embedding import LogSNREmbedding, ScalarEmbedding, sinusoid
from vdm_blocks.nn.norm import ChannelNorm, RMSNorm
from vdm_blocks.nn.pointwise import Pointwise
from vdm_blocks.nn.position import RelativeBias
from vdm_blocks.nn.resample import SpatialDownsample, SpatialUpsample, fold_space, unfold_space

__all__ = [
    "ChannelNorm",
    "FactorizedConv",
    "LogSNREmbedding",
    "Pointwise",
    "RMSNorm",
    "RelativeBias",
    "ResidualBlock",
    "ScalarEmbedding",
    "SpatialAttention",
    "SpatialConv",
    "SpatialDownsample",
    "SpatialUpsample",
    "TemporalAttention",
    "TemporalConv",
    "TextAttention",
    "attend",
    "attend_by_products",
    "attend_fused",
    "channels_last",
    "fold_frames",
    "fold_space",
    "from_last",
    "sinusoid",
    "to_last",
    "unfold_frames",
    "unfold_space",
]
