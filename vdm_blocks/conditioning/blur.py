"""Blur as conditioning augmentation: a stage learns not to trust the sharpness of the one before it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vdm_blocks.nn.axes import check_video

__all__ = ["BlurAugmentation"]


@dataclass(frozen=True, kw_only=True)
class BlurAugmentation:
    """A Gaussian blur of random width on some of the low-resolution videos, in training only.

    (arXiv 2106.15282, section 3.) Every frame is convolved with w_i w_j, w_j = exp(-j^2 / (2 width^2)) / sum,
    |i|, |j| <= radius, mirrored at the edges. Half of the examples are blurred, with a width uniform in [0.4, 0.6]
    pixels, and none at sampling: that paper's setting for high resolutions. The network is not told; where it
    should be, use `ConditioningAugmentation`.

    Attributes:
        share: of the examples that are blurred.
        low: the least width, in pixels.
        high: the greatest.
        radius: of the filter, 2 radius + 1 pixels wide.

    Raises:
        ValueError: a share outside [0, 1], widths that are not positive and ascending, or a radius below 1.

    >>> blur = BlurAugmentation(share=1.0)
    >>> video = torch.zeros(1, 1, 1, 5, 5)
    >>> video[..., 2, :] = 1.0
    >>> blur.random(video, torch.zeros(1))[0, 0, 0, :, 2]  # a width of 0.4: exp(-3.125) of the centre beside it
    tensor([0.0000, 0.0404, 0.9192, 0.0404, 0.0000])
    """

    share: float = 0.5
    low: float = 0.4
    high: float = 0.6
    radius: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}; it is a share of the examples, from 0, none, to 1, all")
        if not 0 < self.low <= self.high < float("inf"):
            raise ValueError(
                f"BlurAugmentation got low={self.low}, high={self.high}; widths are in pixels, positive and "
                "ascending, for example 0.4 and 0.6"
            )
        if self.radius < 1:
            raise ValueError(f"radius is {self.radius}; it must be 1, for 3x3 pixels, or more")

    def random(self, video: Tensor, u: Tensor) -> Tensor:
        """`video` (B, C, T, H, W), sample i blurred if u_i < share, its width linear in u_i; u (B,) is uniform."""
        if u.shape != video.shape[:1]:
            raise ValueError(f"u has shape {tuple(u.shape)}; the batch needs ({video.shape[0]},)")
        width = self.low + (self.high - self.low) * u / max(self.share, torch.finfo(torch.float32).tiny)
        chosen = (u < self.share).view(-1, 1, 1, 1, 1)
        return torch.where(chosen, self.at_width(video, width.clamp(self.low, self.high)), video)

    def at_width(self, video: Tensor, width: Tensor) -> Tensor:
        """Every sample of `video` blurred, sample i by `width`_i, (B,).

        Raises:
            ValueError: a frame that the filter's edge does not fit into.
        """
        check_video(video)
        if min(video.shape[-2:]) <= self.radius:
            raise ValueError(
                f"a frame of {video.shape[-2]}x{video.shape[-1]} pixels cannot be mirrored over {self.radius}; "
                "take a smaller radius"
            )
        j = torch.arange(-self.radius, self.radius + 1, device=video.device)
        weights = torch.exp(-0.5 * (j / width.to(video.device, torch.float32)[:, None]) ** 2)
        weights = (weights / weights.sum(dim=1, keepdim=True)).to(video.dtype)
        return self._along(self._along(video, weights, 3), weights, 4)

    def _along(self, video: Tensor, weights: Tensor, axis: int) -> Tensor:
        size = video.shape[axis]
        place = torch.arange(size, device=video.device)
        out = torch.zeros_like(video)
        for k in range(2 * self.radius + 1):
            shifted = place + k - self.radius
            mirrored = (size - 1 - (size - 1 - shifted.abs()).abs()).abs()
            out.addcmul_(video.index_select(axis, mirrored), weights[:, k].view(-1, 1, 1, 1, 1))
        return out
