"""Smaller and larger frames without aliasing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdm_blocks.nn.axes import check_video, fold_frames, unfold_frames

__all__ = ["BlurDownsample", "BlurUpsample"]


class _Blur(nn.Module):
    """A fixed low-pass filter, the product of one along each axis; its gains sum to one."""

    taps: Tensor

    def __init__(self, taps: tuple[float, ...]) -> None:
        super().__init__()
        if len(taps) < 2 or len(taps) % 2 or taps != taps[::-1] or sum(taps) <= 0:
            raise ValueError(
                f"a filter for a factor of two is symmetric, of even length and positive sum, such as (1, 3, 3, 1); "
                f"got {taps}"
            )
        one = torch.tensor(taps, dtype=torch.float64)
        self.register_buffer("taps", (one / one.sum()).float(), persistent=False)

    def kernels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One for columns (C, 1, K, 1), one for rows (C, 1, 1, K)."""
        taps = self.taps.to(x.dtype).expand(x.shape[1], 1, -1)
        return taps[..., None], taps[..., None, :]


def repeat_edges(frames: Tensor, edge: int) -> Tensor:
    """`frames` (N, C, H, W) with `edge` more pixels on every side."""
    if not edge:
        return frames
    if frames.dtype == torch.float16 and frames.device.type == "cpu":  # torch 2.5 has no such kernel
        return F.pad(frames.float(), (edge,) * 4, mode="replicate").half()
    return F.pad(frames, (edge,) * 4, mode="replicate")


class BlurDownsample(_Blur):
    """Frames of half the size: low-pass filtered along height and width, then every second position kept.

    A shift of the input by two positions is a shift of the result by one, and what lies above the new Nyquist
    frequency is damped before it can alias (arXiv 1904.11486, section 3). Edges are repeated.

    Args:
        taps: the filter, symmetric and of even length.

    Shape: (B, C, T, H, W) -> (B, C, T, H/2, W/2).

    Raises:
        ValueError: odd H or W, or taps that do not fit.
    """

    def __init__(self, taps: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)) -> None:
        super().__init__(taps)

    def forward(self, x: Tensor) -> Tensor:
        """Halves the frames of `x`."""
        check_video(x)
        if x.shape[-2] % 2 or x.shape[-1] % 2:
            raise ValueError(f"frames of {x.shape[-2]}x{x.shape[-1]} do not halve; crop to even sizes")
        frames, edge, channels = fold_frames(x), len(self.taps) // 2 - 1, x.shape[1]
        down, along = self.kernels(x)
        frames = repeat_edges(frames, edge)
        frames = F.conv2d(frames, down, stride=(2, 1), groups=channels)
        return unfold_frames(F.conv2d(frames, along, stride=(1, 2), groups=channels), x.shape[2])


class BlurUpsample(_Blur):
    """Frames of twice the size: zeros put between, then low-pass filtered; twice the transpose of `BlurDownsample`.

    A constant stays itself up to the edges. Edges are repeated.

    Args:
        taps: the filter, symmetric and of even length.

    Shape: (B, C, T, H, W) -> (B, C, T, 2 H, 2 W).

    Raises:
        ValueError: taps that do not fit.
    """

    def __init__(self, taps: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)) -> None:
        super().__init__(taps)

    def forward(self, x: Tensor) -> Tensor:
        """Doubles the frames of `x`."""
        check_video(x)
        channels, half = x.shape[1], len(self.taps) // 2
        edge = half // 2
        crop = half - 1 + 2 * edge
        down, along = (2 * kernel for kernel in self.kernels(x))
        frames = repeat_edges(fold_frames(x), edge)
        frames = F.conv_transpose2d(frames, down, stride=(2, 1), padding=(crop, 0), groups=channels)
        frames = F.conv_transpose2d(frames, along, stride=(1, 2), padding=(0, crop), groups=channels)
        return unfold_frames(frames, x.shape[2])
