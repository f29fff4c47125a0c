"""Attention over space and time at once."""

from __future__ import annotations

from torch import Tensor

from vdm_blocks.nn.axes import check_video, from_last, to_last
from vdm_blocks.nn.heads import Attention, seen_frames, silence, split_heads
from vdm_blocks.nn.norm import ChannelNorm
from vdm_blocks.nn.pointwise import Pointwise
from vdm_blocks.nn.rotary import Rotary, grid_positions

__all__ = ["JointAttention", "alone_or_together"]


class JointAttention(Attention):
    """x + W attend(q, k, v) among all positions of all frames (arXiv 2212.09748's block on T H W tokens).

    Frames marked as images see themselves alone, and no other frame sees them.

    Args:
        channels: C.
        heads: a divisor of C.
        rotary: positions (t, h, w) as rotations; None leaves the layer blind to where things are.

    Shape: (B, C, T, H, W) -> the same. At the start it is the identity.

    Raises:
        ValueError: heads that do not divide the channels, or `images` of another number of frames.

    Time and memory of the fused kernel grow as (T H W)^2 and T H W; where images are marked, a mask of (T H W)^2
    is stored.
    """

    def __init__(self, channels: int, heads: int, *, rotary: Rotary | None = None) -> None:
        super().__init__(channels, heads)
        self.rotary = rotary
        self.norm = ChannelNorm(channels)
        self.qkv = Pointwise(channels, 3 * channels, bias=False)
        self.out = Pointwise(channels, channels)
        silence(self.out)

    def forward(self, x: Tensor, images: Tensor | None = None) -> Tensor:
        """Attends over `x`; `images` is bool, (B,) or (B, T)."""
        check_video(x, self.channels)
        last = to_last(self.norm(x))
        b, t, h, w, c = last.shape
        q, k, v = self.qkv(last.reshape(b, t * h * w, c)).chunk(3, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        if self.rotary is not None:
            where = grid_positions(t, h, w, device=x.device)
            q, k = self.rotary.rotate(q, where), self.rotary.rotate(k, where)
        y = self.attend(q, k, v, bias=alone_or_together(images, t, h * w))
        return x + from_last(self.out(y.transpose(1, 2).reshape(b, t, h, w, c)))


def alone_or_together(images: Tensor | None, frames: int, pixels: int) -> Tensor | None:
    """Which of T P tokens, P to a frame, may see which: bool (B, 1, T P, T P), or None where all may."""
    seen = seen_frames(images, frames)
    if seen is None:
        return None
    return seen.repeat_interleave(pixels, 1).repeat_interleave(pixels, 2)[:, None]
