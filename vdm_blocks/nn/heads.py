"""What every attention layer has around the attention itself."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from vdm_blocks.nn.attend import attend
from vdm_blocks.nn.conv import frame_mask
from vdm_blocks.nn.recompute import Recomputing

__all__ = ["Attend", "Attention", "check_heads", "seen_frames", "silence", "split_heads", "use_attend"]


class Attend(Protocol):
    """Any function that computes softmax(q k^T / sqrt(d) + bias) v: `attend`, one of its backends, or yours."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None) -> Tensor:
        """As `vdm_blocks.nn.attend`."""


class Attention(Recomputing):
    """A layer that attends by whichever function it holds.

    Attributes:
        attend: `vdm_blocks.nn.attend` until another is put there.
    """

    attend: Attend

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        check_heads(channels, heads)
        self.channels = channels
        self.heads = heads
        self.attend = attend


def use_attend(module: nn.Module, backend: Attend) -> None:
    """Makes every attention layer within `module` attend by `backend`, such as `attend_xformers`."""
    for layer in module.modules():
        if isinstance(layer, Attention):
            layer.attend = backend


def check_heads(channels: int, heads: int) -> None:
    """Refuses heads that do not divide the channels.

    Raises:
        ValueError: with a divisor as the way out.
    """
    if heads < 1 or channels % heads:
        raise ValueError(
            f"{channels} channels do not divide into {heads} heads; take a divisor of {channels}"
        )


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(..., S, heads d) -> (..., heads, S, d), a view."""
    split: Tensor = x.unflatten(-1, (heads, -1)).transpose(-2, -3)
    return split


def seen_frames(images: Tensor | None, frames: int) -> Tensor | None:
    """Which frame may see which: bool (B, T, T), True where both are of the clip or they are one and the same.

    None where `images`, bool (B,) or (B, T), marks nothing: all may see all.
    """
    mask = frame_mask(images, frames)
    if mask is None:
        return None
    return torch.eye(frames, dtype=torch.bool, device=mask.device) | ~(mask[:, :, None] | mask[:, None, :])


def silence(out: nn.Linear) -> None:
    """Sets weight and bias to zero, so that the residual path that ends here starts silent."""
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)
