"""Convolution over space, over time, and the two in a row."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdm_blocks.nn.axes import check_video, flatten_space, fold_frames, unfold_frames

__all__ = ["FactorizedConv", "SpatialConv", "TemporalConv", "frame_mask"]


def frame_mask(images: Tensor | None, frames: int) -> Tensor | None:
    """`images`, bool (B,) or (B, T), as (B, T).

    Raises:
        ValueError: another dtype or shape, or (B, T) with another T.
    """
    if images is None:
        return None
    if images.dtype != torch.bool or images.ndim not in (1, 2):
        raise ValueError(
            f"images is {images.dtype} of shape {tuple(images.shape)}; it must be bool, (B,) or (B, T)"
        )
    if images.ndim == 1:
        return images[:, None].expand(-1, frames)
    if images.shape[1] != frames:
        raise ValueError(f"images marks {images.shape[1]} frames; the video has {frames}")
    return images


class SpatialConv(nn.Module):
    """A k x k convolution of every frame by itself.

    Args:
        in_channels, out_channels: C and C'.
        kernel: odd; the frame keeps its size.

    Shape: (B, C, T, H, W) -> (B, C', T, H, W).

    Raises:
        ValueError: an even kernel.

    The frames are folded into the batch as a free view. `nn.Conv3d` with kernel (1, k, k) computes the same
    thing, but leaves the fast kernels on a CPU for small inputs (up to 15 times slower).
    Weights lie in memory as torch's own do, so FSDP2 and whatever else reads them flat take them. On a CPU they are
    brought to the video's layout at every call: `network.to(memory_format=torch.channels_last)` spares that (1.2 times
    as fast at 480 channels and 3x5 pixels, forward and with backward).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"an even kernel cannot keep the frame size; got {kernel}, take {kernel + 1}")
        self.in_channels = in_channels
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Convolves `x` (B, C, T, H, W)."""
        check_video(x, self.in_channels)
        return unfold_frames(self.conv(fold_frames(x)), x.shape[2])


class TemporalConv(nn.Module):
    """x + conv_t(x), where conv_t mixes neighbouring frames at each pixel and starts at zero.

    Frames marked as images neither give nor take: their input to the convolution is zero, as the clip's padding
    is, and the convolution's path is masked out of their output (arXiv 2210.02303, section 2.5). A clip of one
    frame is an image.

    Args:
        channels: C.
        kernel: odd number of frames.
        causal: a frame sees itself and the `kernel - 1` frames before it, rather than both sides.

    Shape: (B, C, T, H, W) -> the same. At the start it is the identity.

    Raises:
        ValueError: an even kernel.
    """

    def __init__(self, channels: int, kernel: int = 3, *, causal: bool = False) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(
                f"an even kernel cannot keep the frame count centred; got {kernel}, take {kernel + 1}"
            )
        self.channels = channels
        self.kernel = kernel
        self.causal = causal
        self.conv = nn.Conv2d(channels, channels, (kernel, 1))
        nn.init.zeros_(self.conv.weight)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, images: Tensor | None = None) -> Tensor:
        """Mixes the frames of `x`; `images` is bool, (B,) or (B, T)."""
        check_video(x, self.channels)
        frames = x.shape[2]
        if frames == 1:
            return x
        mask = frame_mask(images, frames)
        keep = None if mask is None else (~mask)[:, None, :, None].to(x.dtype)
        flat = flatten_space(x)
        inner = flat if keep is None else flat * keep
        if self.causal:
            y = self.conv_padded(F.pad(inner, (0, 0, self.kernel - 1, 0)), 0)
        else:
            y = self.conv_padded(inner, self.kernel // 2)
        out: Tensor = (flat + (y if keep is None else y * keep)).unflatten(3, x.shape[3:])
        return out

    def conv_padded(self, flat: Tensor, padding: int) -> Tensor:
        """The bare convolution on (B, C, T, H W)."""
        return F.conv2d(flat, self.conv.weight, self.conv.bias, padding=(padding, 0))


class FactorizedConv(nn.Module):
    """A spatial convolution, then a temporal one: (k, k) within the frame, then k_t across frames.

    At the start it is exactly the spatial convolution, so an image network becomes a video network.

    Shape: (B, C, T, H, W) -> (B, C', T, H, W).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, *, frames: int = 3, causal: bool = False
    ) -> None:
        super().__init__()
        self.spatial = SpatialConv(in_channels, out_channels, kernel)
        self.temporal = TemporalConv(out_channels, frames, causal=causal)

    def forward(self, x: Tensor, images: Tensor | None = None) -> Tensor:
        """Convolves `x`; frames marked in `images` are convolved in space alone."""
        out: Tensor = self.temporal(self.spatial(x), images)
        return out


def zero_(conv: SpatialConv) -> SpatialConv:
    """`conv` with weight and bias set to zero, so that a residual path through it starts silent."""
    with torch.no_grad():
        conv.conv.weight.zero_()
        assert conv.conv.bias is not None
        conv.conv.bias.zero_()
    return conv
