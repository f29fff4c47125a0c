"""Attention within a frame, across frames, and from pixels to text; each a residual that starts at zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vdm_blocks.nn.attend import attend
from vdm_blocks.nn.axes import check_video, from_last, to_last
from vdm_blocks.nn.conv import frame_mask
from vdm_blocks.nn.norm import ChannelNorm
from vdm_blocks.nn.pointwise import Pointwise
from vdm_blocks.nn.position import RelativeBias

__all__ = ["SpatialAttention", "TemporalAttention", "TextAttention"]


def _heads(x: Tensor, heads: int) -> Tensor:
    """(..., S, heads d) -> (..., heads, S, d), a view."""
    split: Tensor = x.unflatten(-1, (heads, -1)).transpose(-2, -3)
    return split


def _check_heads(channels: int, heads: int) -> None:
    if heads < 1 or channels % heads:
        raise ValueError(
            f"{channels} channels do not divide into {heads} heads; take a divisor of {channels}"
        )


class SpatialAttention(nn.Module):
    """x + W attend(q, k, v) among the positions of a frame, each frame by itself.

    Args:
        channels: C.
        heads: a divisor of C.

    Shape: (B, C, T, H, W) -> the same.

    Raises:
        ValueError: heads that do not divide the channels.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        _check_heads(channels, heads)
        self.channels = channels
        self.heads = heads
        self.norm = ChannelNorm(channels)
        self.qkv = Pointwise(channels, 3 * channels, bias=False)
        self.out = Pointwise(channels, channels)
        _silence(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """Attends within each frame of `x`."""
        check_video(x, self.channels)
        last = to_last(self.norm(x))
        b, t, h, w, c = last.shape
        q, k, v = self.qkv(last.reshape(b * t, h * w, c)).chunk(3, dim=-1)
        q, k, v = (_heads(part, self.heads) for part in (q, k, v))
        y = attend(q, k, v).transpose(1, 2).reshape(b, t, h, w, c)
        return x + from_last(self.out(y))


class TemporalAttention(nn.Module):
    """x + W attend(q, k, v + bias) among the frames at each pixel (arXiv 2204.03458, section 3).

    The learned relative bias tells the frames apart. Frames marked as images see themselves alone, and no other
    frame sees them, so each comes out as it would from a clip of its own.

    Args:
        channels: C.
        heads: a divisor of C.
        reach: frames farther apart than this share one bias.

    Shape: (B, C, T, H, W) -> the same. At the start it is the identity.

    Raises:
        ValueError: heads that do not divide the channels, or `images` of another number of frames.
    """

    def __init__(self, channels: int, heads: int, *, reach: int = 32) -> None:
        super().__init__()
        _check_heads(channels, heads)
        self.channels = channels
        self.heads = heads
        self.norm = ChannelNorm(channels)
        self.qkv = Pointwise(channels, 3 * channels, bias=False)
        self.out = Pointwise(channels, channels)
        _silence(self.out)
        self.bias = RelativeBias(heads, reach)

    def forward(self, x: Tensor, images: Tensor | None = None) -> Tensor:
        """Attends across the frames of `x`; `images` is bool, (B,) or (B, T)."""
        check_video(x, self.channels)
        last = to_last(self.norm(x))
        b, t, h, w, c = last.shape
        qkv = self.qkv(last)
        if t == 1:  # one frame attends to itself alone: the softmax is 1
            return x + from_last(self.out(qkv[..., 2 * c :]))
        q, k, v = qkv.permute(0, 2, 3, 1, 4).reshape(b, h * w, t, 3 * c).chunk(3, dim=-1)
        q, k, v = (_heads(part, self.heads) for part in (q, k, v))
        bias = self.bias(t)[None]
        mask = frame_mask(images, t)
        if mask is not None:
            alone = torch.eye(t, dtype=torch.bool, device=x.device)
            seen = alone | ~(mask[:, :, None] | mask[:, None, :])
            bias = bias.masked_fill(~seen[:, None], -torch.inf).repeat_interleave(h * w, dim=0)
        y = attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), bias=bias)
        y = y.transpose(1, 2).reshape(b, h, w, t, c).permute(0, 3, 1, 2, 4)
        return x + from_last(self.out(y))


class TextAttention(nn.Module):
    """x + W attend(q(x), k(text), v(text)): every position reads the caption.

    Args:
        channels: C.
        width: D of the text states.
        heads: a divisor of C.

    Shape: x (B, C, T, H, W), text (B, L, D) or (B, T, L, D), mask of text's shape without D -> x's shape.
        Each caption must have one token at least that the mask lets through.

    Raises:
        ValueError: heads that do not divide the channels.
    """

    def __init__(self, channels: int, width: int, heads: int) -> None:
        super().__init__()
        _check_heads(channels, heads)
        self.channels = channels
        self.heads = heads
        self.norm = ChannelNorm(channels)
        self.q = Pointwise(channels, channels, bias=False)
        self.kv = Pointwise(width, 2 * channels, bias=False)
        self.out = Pointwise(channels, channels)
        _silence(self.out)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Reads `text` into `x`."""
        check_video(x, self.channels)
        last = to_last(self.norm(x))
        b, t, h, w, c = last.shape
        q = self.q(last)
        k, v = self.kv(text).chunk(2, dim=-1)
        if text.ndim == 4:
            q, k, v, mask = q.reshape(b * t, h * w, c), k.flatten(0, 1), v.flatten(0, 1), mask.flatten(0, 1)
        else:
            q = q.reshape(b, t * h * w, c)
        q, k, v = (_heads(part, self.heads) for part in (q, k, v))
        y = attend(q, k, v, bias=mask[:, None, None, :]).transpose(1, 2).reshape(b, t, h, w, c)
        return x + from_last(self.out(y))


def _silence(out: nn.Linear) -> None:
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)
