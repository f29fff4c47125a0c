"""Causal layers and networks run in time: a few frames in, the same few out, and a cache of what was.

The results are those of the whole clip (of two frames or more: a clip of one frame is a picture), in memory that
does not grow with it, as long as attention has a window: without one it sees all frames there were, and keeps them.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vdm_blocks.nn.attention import TemporalAttention
from vdm_blocks.nn.axes import check_video, from_last, to_last
from vdm_blocks.nn.conv import TemporalConv
from vdm_blocks.nn.embedding import FramePositions
from vdm_blocks.nn.heads import split_heads

__all__ = ["AttentionCache", "Streamed", "stream_attention", "stream_conv"]


class AttentionCache(NamedTuple):
    """What later frames need of earlier ones.

    Attributes:
        k, v: (B H W, heads, S, d), of the last S frames.
        frames: how many frames there have been.
    """

    k: Tensor
    v: Tensor
    frames: int


def stream_conv(layer: TemporalConv, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
    """The next frames of `layer`'s result, and the cache for those after them.

    Args:
        layer: causal.
        x: (B, C, T, H, W), the next T frames.
        past: what the call before returned; None at the start of a clip.

    Raises:
        ValueError: a layer that is not causal.
    """
    if not layer.causal:
        raise ValueError(
            "a temporal convolution that sees the future cannot be streamed; build it with causal=True"
        )
    check_video(x, layer.channels)
    flat = x.flatten(3)
    if past is None:
        past = flat.new_zeros(*flat.shape[:2], layer.kernel - 1, flat.shape[3])
    inner = torch.cat([past, flat], dim=2)
    out: Tensor = (flat + layer.conv_padded(inner, 0)).unflatten(3, x.shape[3:])
    return out, inner[:, :, inner.shape[2] - (layer.kernel - 1) :]


def stream_attention(
    layer: TemporalAttention, x: Tensor, past: AttentionCache | None
) -> tuple[Tensor, AttentionCache]:
    """The next frames of `layer`'s result, and the cache for those after them.

    Args:
        layer: causal; with a window the cache holds so many frames, without one it holds all there were.
        x: (B, C, T, H, W), the next T frames.
        past: what the call before returned; None at the start of a clip.

    Raises:
        ValueError: a layer that is not causal.
    """
    if not layer.causal:
        raise ValueError(
            "temporal attention that sees the future cannot be streamed; build it with causal=True"
        )
    check_video(x, layer.channels)
    last = to_last(layer.norm(x))
    b, t, h, w, c = last.shape
    qkv = layer.qkv(last).permute(0, 2, 3, 1, 4).reshape(b * h * w, t, 3 * c)
    q, k, v = (split_heads(part, layer.heads) for part in qkv.chunk(3, dim=-1))
    done = 0 if past is None else past.frames
    at = torch.arange(done, done + t, device=x.device)
    if layer.rotary is not None:
        q, k = layer.rotary.rotate(q, at[:, None]), layer.rotary.rotate(k, at[:, None])
    if past is not None:
        k, v = torch.cat([past.k, k], dim=2), torch.cat([past.v, v], dim=2)
    behind = at[:, None] - torch.arange(done + t - k.shape[2], done + t, device=x.device)
    seen = layer.in_sight(behind)
    bias = seen if layer.bias is None else layer.bias.at(-behind).masked_fill(~seen, -torch.inf)
    y = layer.attend(q, k, v, bias=bias)
    y = y.transpose(1, 2).reshape(b, h, w, t, c).permute(0, 3, 1, 2, 4)
    keep = k.shape[2] if layer.window is None else min(layer.window, k.shape[2])
    start = k.shape[2] - keep
    return x + from_last(layer.out(y)), AttentionCache(k[:, :, start:], v[:, :, start:], done + t)


class _StreamedConv(nn.Module):
    def __init__(self, layer: TemporalConv) -> None:
        super().__init__()
        self.layer = layer
        self.past: Tensor | None = None

    def forward(self, x: Tensor, images: Tensor | None = None) -> Tensor:
        _refuse_images(images)
        out, self.past = stream_conv(self.layer, x, self.past)
        return out


class _StreamedAttention(nn.Module):
    def __init__(self, layer: TemporalAttention) -> None:
        super().__init__()
        self.layer = layer
        self.past: AttentionCache | None = None

    def forward(self, x: Tensor, images: Tensor | None = None) -> Tensor:
        _refuse_images(images)
        out, self.past = stream_attention(self.layer, x, self.past)
        return out


class _StreamedPositions(nn.Module):
    def __init__(self, layer: FramePositions) -> None:
        super().__init__()
        self.layer = layer
        self.past = 0

    def forward(self, frames: int, images: Tensor | None = None) -> Tensor:
        _refuse_images(images)
        out: Tensor = self.layer(frames, first=self.past)
        self.past += frames
        return out


class Streamed(nn.Module):
    """`network` with a memory: called on the frames of a clip in order, it answers as on the whole clip.

    It is a twin of `network` that shares its weights; in it every `TemporalConv` and `TemporalAttention` keeps its
    cache from call to call, and `FramePositions` counts on. What else mixes frames must not: the norms of this
    package do not.

    Args:
        network: any module whose temporal layers are this package's and causal.

    Raises:
        ValueError: a temporal layer that sees the future, on the first call; frames marked as images.

    >>> layer = nn.Sequential(TemporalConv(2, causal=True))
    >>> stream = Streamed(layer)
    >>> x = torch.randn(1, 2, 4, 1, 1)
    >>> torch.equal(torch.cat([stream(x[:, :, :3]), stream(x[:, :, 3:])], dim=2), layer(x))
    True
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = _twin(network)

    def reset(self) -> None:
        """Forgets all frames: the next call starts a clip."""
        for module in self.modules():
            if isinstance(module, (_StreamedConv, _StreamedAttention)):
                module.past = None
            elif isinstance(module, _StreamedPositions):
                module.past = 0

    def forward(self, *args: object) -> Tensor:
        """As `network`'s own, on the next frames."""
        out: Tensor = self.network(*args)
        return out


def _twin(module: nn.Module) -> nn.Module:
    if isinstance(module, TemporalConv):
        return _StreamedConv(module)
    if isinstance(module, TemporalAttention):
        return _StreamedAttention(module)
    if isinstance(module, FramePositions):
        return _StreamedPositions(module)
    twin = copy.copy(module)
    twin.__dict__["_modules"] = {
        name: None if child is None else _twin(child) for name, child in module._modules.items()
    }
    return twin


def _refuse_images(images: Tensor | None) -> None:
    if images is not None:
        raise ValueError("pictures have no time to stream in; give them to the network itself")
