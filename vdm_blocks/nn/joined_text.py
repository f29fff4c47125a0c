"""The caption among the keys and values of attention within a frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vdm_blocks.nn.axes import check_video, from_last, to_last
from vdm_blocks.nn.heads import Attention, silence, split_heads
from vdm_blocks.nn.norm import ChannelNorm
from vdm_blocks.nn.pointwise import Pointwise

__all__ = ["JoinedTextAttention"]


class JoinedTextAttention(Attention):
    """x + W attend(q(x), [k(x), k(text)], [v(x), v(text)]): one softmax over a frame's positions and its caption.

    Imagen reads text so wherever it attends within frames (arXiv 2205.11487, section 2.3 and appendix D.3.1); it
    costs one attention where `SpatialAttention` and `TextAttention` cost two.

    Args:
        channels: C.
        width: D of the text states.
        heads: a divisor of C.

    Shape: x (B, C, T, H, W), text (B, L, D) or (B, T, L, D), mask of text's shape without D -> x's shape. At the
        start it is the identity. A caption may be masked out altogether.

    Raises:
        ValueError: heads that do not divide the channels.
    """

    def __init__(self, channels: int, width: int, heads: int) -> None:
        super().__init__(channels, heads)
        self.norm = ChannelNorm(channels)
        self.qkv = Pointwise(channels, 3 * channels, bias=False)
        self.text_kv = Pointwise(width, 2 * channels, bias=False)
        self.out = Pointwise(channels, channels)
        silence(self.out)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Attends within each frame of `x`, and to `text`."""
        check_video(x, self.channels)
        last = to_last(self.norm(x))
        b, t, h, w, c = last.shape
        q, k, v = self.qkv(last.reshape(b * t, h * w, c)).chunk(3, dim=-1)
        text_kv = self.text_kv(text)
        if text.ndim == 3:
            text_kv, mask = (
                part[:, None].expand(-1, t, *(-1,) * (part.ndim - 1)) for part in (text_kv, mask)
            )
        text_k, text_v = text_kv.flatten(0, 1).chunk(2, dim=-1)
        k, v = torch.cat([k, text_k], dim=1), torch.cat([v, text_v], dim=1)
        seen = nn.functional.pad(mask.flatten(0, 1), (h * w, 0), value=True)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        y = self.attend(q, k, v, bias=seen[:, None, None, :]).transpose(1, 2).reshape(b, t, h, w, c)
        return x + from_last(self.out(y))
