"""Attention within a frame, across frames, and from pixels to text; each a residual that starts at zero."""

from __future__ import annotations

import torch
from torch import Tensor

from vdm_blocks.nn.axes import check_video, from_last, to_last
from vdm_blocks.nn.heads import Attention, seen_frames, silence, split_heads
from vdm_blocks.nn.norm import ChannelNorm
from vdm_blocks.nn.pointwise import Pointwise
from vdm_blocks.nn.position import RelativeBias
from vdm_blocks.nn.rotary import Rotary, grid_positions

__all__ = ["SpatialAttention", "TemporalAttention", "TextAttention"]


class SpatialAttention(Attention):
    """x + W attend(q, k, v) among the positions of a frame, each frame by itself.

    Args:
        channels: C.
        heads: a divisor of C.

    Shape: (B, C, T, H, W) -> the same.

    Raises:
        ValueError: heads that do not divide the channels.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads)
        self.norm = ChannelNorm(channels)
        self.qkv = Pointwise(channels, 3 * channels, bias=False)
        self.out = Pointwise(channels, channels)
        silence(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """Attends within each frame of `x`."""
        check_video(x, self.channels)
        b, c, t, h, w = x.shape
        q, k, v = self.part(self._qkv, x).chunk(3, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        y = self.attend(q, k, v).transpose(1, 2).reshape(b, t, h, w, c)
        return x + from_last(self.out(y))

    def _qkv(self, x: Tensor) -> Tensor:
        last = to_last(self.norm(x))
        out: Tensor = self.qkv(last.reshape(-1, x.shape[3] * x.shape[4], self.channels))
        return out


class TemporalAttention(Attention):
    """x + W attend(q, k, v + bias) among the frames at each pixel (arXiv 2204.03458, section 3).

    A learned relative bias tells the frames apart, or rotations do. Frames marked as images see themselves alone,
    and no other frame sees them, so each comes out as it would from a clip of its own.

    Args:
        channels: C.
        heads: a divisor of C.
        reach: frames farther apart than this share one bias.
        causal: a frame sees itself and what came before it, and nothing later.
        window: a frame sees no farther than this many frames; None sees all.
        rotary: rotations over one axis of position, taken instead of the learned bias.

    Shape: (B, C, T, H, W) -> the same. At the start it is the identity.

    Raises:
        ValueError: heads that do not divide the channels, a window that is negative, rotations over other than one
            axis, or `images` of another number of frames.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        reach: int = 32,
        causal: bool = False,
        window: int | None = None,
        rotary: Rotary | None = None,
    ) -> None:
        super().__init__(channels, heads)
        if window is not None and window < 0:
            raise ValueError(f"window counts the frames to see on one side, at least 0; got {window}")
        if rotary is not None and len(rotary.widths) != 1:
            raise ValueError(f"frames have one axis of position; these rotations have {len(rotary.widths)}")
        self.causal = causal
        self.window = window
        self.rotary = rotary
        self.norm = ChannelNorm(channels)
        self.qkv = Pointwise(channels, 3 * channels, bias=False)
        self.out = Pointwise(channels, channels)
        silence(self.out)
        self.bias = RelativeBias(heads, reach) if rotary is None else None

    def forward(self, x: Tensor, images: Tensor | None = None) -> Tensor:
        """Attends across the frames of `x`; `images` is bool, (B,) or (B, T)."""
        check_video(x, self.channels)
        b, c, t, h, w = x.shape
        qkv = self.part(self._qkv, x)
        if t == 1:  # one frame attends to itself alone: the softmax is 1
            return x + from_last(self.out(qkv[..., 2 * c :]))
        q, k, v = qkv.permute(0, 2, 3, 1, 4).reshape(b, h * w, t, 3 * c).chunk(3, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        if self.rotary is not None:
            where = grid_positions(t, device=x.device)
            q, k = self.rotary.rotate(q, where), self.rotary.rotate(k, where)
        bias = self.logit_bias(images, t, x.device)
        if bias is not None and bias.shape[0] > 1:
            bias = bias.repeat_interleave(h * w, dim=0)
        y = self.attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), bias=bias)
        y = y.unflatten(0, (b, h * w)).permute(0, 3, 1, 2, 4).reshape(b, t, h, w, c)
        return x + from_last(self.out(y))

    def _qkv(self, x: Tensor) -> Tensor:
        out: Tensor = self.qkv(to_last(self.norm(x)))
        return out

    def logit_bias(self, images: Tensor | None, frames: int, device: torch.device) -> Tensor | None:
        """What `attend` is given as bias for `frames` frames: (1 or B, 1 or heads, T, T), or None."""
        seen = seen_frames(images, frames)
        if self.causal or self.window is not None:
            at = torch.arange(frames, device=device)
            behind = at[:, None] - at[None, :]
            near = self.in_sight(behind)[None]
            seen = near if seen is None else seen & near
        bias = None if self.bias is None else self.bias(frames)[None]
        if seen is None:
            return bias
        return seen[:, None] if bias is None else bias.masked_fill(~seen[:, None], -torch.inf)

    def in_sight(self, behind: Tensor) -> Tensor:
        """Whether a frame may see the one that lies `behind` frames before it (negative: after it)."""
        seen = behind >= 0 if self.causal else torch.ones_like(behind, dtype=torch.bool)
        return seen if self.window is None else seen & (behind.abs() <= self.window)


class TextAttention(Attention):
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
        super().__init__(channels, heads)
        self.norm = ChannelNorm(channels)
        self.q = Pointwise(channels, channels, bias=False)
        self.kv = Pointwise(width, 2 * channels, bias=False)
        self.out = Pointwise(channels, channels)
        silence(self.out)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Reads `text` into `x`."""
        check_video(x, self.channels)
        b, c, t, h, w = x.shape
        q = self.part(self._q, x)
        k, v = self.kv(text).chunk(2, dim=-1)
        if text.ndim == 4:
            q, k, v, mask = q.reshape(b * t, h * w, c), k.flatten(0, 1), v.flatten(0, 1), mask.flatten(0, 1)
        else:
            q = q.reshape(b, t * h * w, c)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        y = self.attend(q, k, v, bias=mask[:, None, None, :]).transpose(1, 2).reshape(b, t, h, w, c)
        return x + from_last(self.out(y))

    def _q(self, x: Tensor) -> Tensor:
        out: Tensor = self.q(to_last(self.norm(x)))
        return out
