"""Blocks of other libraries beside our layers with the same weights: what is left is the formulation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.pairs import Function, Pair
from benchmarks.peers import Peer, imagen, video_diffusion
from vdm_blocks.nn import (
    FactorizedConv,
    FrameGroupNorm,
    RMSNorm,
    SpatialAttention,
    SpatialConv,
    TemporalAttention,
    channels_last,
    fold_frames,
    unfold_frames,
)

EMBEDDING = 64


def mapped(peers: Sequence[Peer], shape: tuple[int, int, int, int, int]) -> Iterator[Pair]:
    """The pairs of the installed `peers`, on a video of `shape`."""
    x = torch.randn(shape)
    makers = {"imagen-pytorch": of_imagen, "video-diffusion-pytorch": of_vdp, "diffusers": of_diffusers}
    for peer in peers:
        yield from makers[peer.name](x)


@torch.no_grad()
def of_imagen(x: Tensor) -> Iterator[Pair]:
    """The pseudo-3-D convolution and the residual block."""
    c, last = x.shape[1], channels_last(x)
    theirs = imagen().Conv3d(c, c, 3)
    ours = factorized(theirs)
    chosen = "frames and pixels as views, conv2d"
    yield Pair(name="imagen-pytorch, Conv3d", ours=ours, naive=theirs, x=last, naive_x=x, chosen=chosen)
    block, emb = imagen().ResnetBlock(c, c, time_cond_dim=EMBEDDING), torch.randn(1, EMBEDDING)
    norms = [rms(part.norm) for part in (block.block1, block.block2)]
    convs = [factorized(part.project) for part in (block.block1, block.block2)]
    film = block.time_mlp(emb)[:, :, None, None, None].chunk(2, dim=1)

    def resnet(v: Tensor) -> Tensor:
        h = convs[0](F.silu(norms[0](v)))
        h = convs[1](F.silu(torch.addcmul(film[1], norms[1](h), film[0] + 1)))
        out: Tensor = v + h
        return out

    yield Pair(
        name="imagen-pytorch, ResnetBlock",
        ours=resnet,
        naive=lambda v: block(v, emb),
        x=last,
        naive_x=x,
        chosen=f"{chosen}; RMSNorm",
    )


@torch.no_grad()
def of_vdp(x: Tensor) -> Iterator[Pair]:
    """The residual block, and attention over time, which is given its relative bias and no rotations."""
    c, last, library = x.shape[1], channels_last(x), video_diffusion()
    block, emb = library.ResnetBlock(c, c, time_emb_dim=EMBEDDING), torch.randn(1, EMBEDDING)
    parts = [block.block1, block.block2]
    convs, norms = [spatial(p.proj.weight[:, :, 0], p.proj.bias) for p in parts], [rms(p.norm) for p in parts]
    film = block.mlp(emb)[:, :, None, None, None].chunk(2, dim=1)

    def resnet(v: Tensor) -> Tensor:
        h = F.silu(torch.addcmul(film[1], norms[0](convs[0](v)), film[0] + 1))
        return v + F.silu(norms[1](convs[1](h)))

    yield Pair(
        name="video-diffusion-pytorch, ResnetBlock",
        ours=resnet,
        naive=lambda v: block(v, emb),
        x=last,
        naive_x=x,
        chosen="frames as views, conv2d; RMSNorm",
    )
    heads, frames = max(c // 32, 1), x.shape[2]
    bias = library.RelativePositionBias(heads=heads, max_distance=32)(frames, device="cpu")
    time = TemporalAttention(c, heads)
    assert time.bias is not None
    table = time.bias.table
    for distance in range(1 - frames, frames):
        row = max(0, -distance)
        table[:, distance + time.bias.reach] = bias[:, row, row + distance]
    yield Pair(
        name="video-diffusion-pytorch, attention over time",
        ours=time,
        naive=attention(library, time, "b (h w) f c", {"pos_bias": bias}),
        x=last,
        naive_x=x,
        chosen="explicit products on views, 1x1 convolutions",
    )
    space = SpatialAttention(c, heads)
    small = x[..., ::2, ::2].contiguous()
    yield Pair(
        name="video-diffusion-pytorch, attention in half-size frames",
        ours=space,
        naive=attention(library, space, "b f (h w) c", {}),
        x=channels_last(small),
        naive_x=small,
        chosen="the fused kernel on views, 1x1 convolutions",
    )


@torch.no_grad()
def of_diffusers(x: Tensor) -> Iterator[Pair]:
    """The residual block, which takes frames as a batch."""
    from diffusers.models.resnet import ResnetBlock2D

    c, frames = x.shape[1:3]
    block = ResnetBlock2D(in_channels=c, temb_channels=EMBEDDING, groups=8)
    emb = torch.randn(1, EMBEDDING)
    convs = [spatial(conv.weight, conv.bias) for conv in (block.conv1, block.conv2)]
    norms = [group(norm) for norm in (block.norm1, block.norm2)]
    added = block.time_emb_proj(F.silu(emb))[:, :, None, None, None]

    def resnet(v: Tensor) -> Tensor:
        h = convs[0](F.silu(norms[0](v))) + added
        out: Tensor = v + convs[1](F.silu(norms[1](h)))
        return out

    yield Pair(
        name="diffusers, ResnetBlock2D",
        ours=resnet,
        naive=lambda v: unfold_frames(block(v, emb.expand(frames, -1)), frames),
        x=channels_last(x),
        naive_x=fold_frames(x).contiguous(),
        chosen="frames as views, channels last",
    )


def spatial(weight: Tensor, bias: Tensor) -> SpatialConv:
    """Our convolution within frames with these weights."""
    conv = SpatialConv(weight.shape[1], weight.shape[0], weight.shape[-1])
    conv.conv.load_state_dict({"weight": weight, "bias": bias})
    conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return conv


def factorized(theirs: Any) -> FactorizedConv:
    """imagen-pytorch's pseudo-3-D convolution as ours, which adds its temporal part to the identity."""
    weight, taps = theirs.spatial_conv.weight, theirs.temporal_conv.weight.clone()
    nn.init.normal_(taps, std=0.02)
    theirs.temporal_conv.weight.copy_(taps)
    taps[:, :, -1] -= torch.eye(len(taps))
    conv = FactorizedConv(weight.shape[1], weight.shape[0], causal=True)
    conv.spatial.conv.load_state_dict(theirs.spatial_conv.state_dict())
    conv.temporal.conv.load_state_dict({"weight": taps[..., None], "bias": theirs.temporal_conv.bias})
    return conv


def rms(theirs: Any) -> RMSNorm:
    """Their root-mean-square norm as ours."""
    norm = RMSNorm(len(theirs.gamma), eps=1e-12)
    norm.gain.copy_(theirs.gamma.flatten())
    return norm


def group(theirs: nn.GroupNorm) -> FrameGroupNorm:
    """A group norm over frames in a batch as ours on a video."""
    norm = FrameGroupNorm(theirs.num_groups, theirs.num_channels, theirs.eps)
    norm.load_state_dict(theirs.state_dict())
    return norm


def attention(
    library: Any, ours: TemporalAttention | SpatialAttention, fold: str, given: dict[str, Tensor]
) -> Function:
    """video-diffusion-pytorch's residual attention with the weights of `ours`."""
    c = ours.channels
    nn.init.normal_(ours.out.weight, std=0.02)
    inner = library.Attention(c, heads=ours.heads, dim_head=c // ours.heads)
    inner.to_qkv.weight.copy_(ours.qkv.weight)
    inner.to_out.weight.copy_(ours.out.weight)
    folded = library.EinopsToAndFrom("b c f h w", fold, inner)
    layer = library.Residual(library.PreNorm(c, folded))

    def run(v: Tensor) -> Tensor:
        out: Tensor = layer(v, **given)
        return out

    return run
