"""Layers on (B, C, T, H, W); they know nothing of diffusion."""

from vdm_blocks.nn.antialias import BlurDownsample, BlurUpsample
from vdm_blocks.nn.attend import attend, attend_by_products, attend_fused
from vdm_blocks.nn.attend_flex import attend_flex
from vdm_blocks.nn.attend_xformers import attend_xformers
from vdm_blocks.nn.attention import SpatialAttention, TemporalAttention, TextAttention
from vdm_blocks.nn.axes import channels_last, fold_frames, from_last, to_last, unfold_frames
from vdm_blocks.nn.blocks import ResidualBlock
from vdm_blocks.nn.conv import FactorizedConv, SpatialConv, TemporalConv
from vdm_blocks.nn.embedding import FramePositions, LogSNREmbedding, ScalarEmbedding, sinusoid
from vdm_blocks.nn.fourier import FourierEmbedding, FourierLogSNREmbedding
from vdm_blocks.nn.group_norm import FrameGroupNorm
from vdm_blocks.nn.heads import Attend, Attention, use_attend
from vdm_blocks.nn.joined_text import JoinedTextAttention
from vdm_blocks.nn.joint_attention import JointAttention
from vdm_blocks.nn.magnitude import MagnitudeNorm, magnitude_cat, magnitude_silu, magnitude_sum
from vdm_blocks.nn.norm import ChannelNorm, RMSNorm
from vdm_blocks.nn.pointwise import Pointwise
from vdm_blocks.nn.pooling import AttentionPool, MeanPool
from vdm_blocks.nn.position import RelativeBias
from vdm_blocks.nn.recompute import recompute_activations
from vdm_blocks.nn.resample import SpatialDownsample, SpatialUpsample, fold_space, unfold_space
from vdm_blocks.nn.rotary import Rotary, grid_positions
from vdm_blocks.nn.streaming import AttentionCache, Streamed, stream_attention, stream_conv
from vdm_blocks.nn.time_resample import TemporalDownsample, TemporalUpsample

__all__ = [
    "Attend",
    "Attention",
    "AttentionCache",
    "AttentionPool",
    "BlurDownsample",
    "BlurUpsample",
    "ChannelNorm",
    "FactorizedConv",
    "FourierEmbedding",
    "FourierLogSNREmbedding",
    "FrameGroupNorm",
    "FramePositions",
    "JoinedTextAttention",
    "JointAttention",
    "LogSNREmbedding",
    "MagnitudeNorm",
    "MeanPool",
    "Pointwise",
    "RMSNorm",
    "RelativeBias",
    "ResidualBlock",
    "Rotary",
    "ScalarEmbedding",
    "SpatialAttention",
    "SpatialConv",
    "SpatialDownsample",
    "SpatialUpsample",
    "Streamed",
    "TemporalAttention",
    "TemporalConv",
    "TemporalDownsample",
    "TemporalUpsample",
    "TextAttention",
    "attend",
    "attend_by_products",
    "attend_flex",
    "attend_fused",
    "attend_xformers",
    "channels_last",
    "fold_frames",
    "fold_space",
    "from_last",
    "grid_positions",
    "magnitude_cat",
    "magnitude_silu",
    "magnitude_sum",
    "recompute_activations",
    "sinusoid",
    "stream_attention",
    "stream_conv",
    "to_last",
    "unfold_frames",
    "unfold_space",
    "use_attend",
]
