"""Thresholding: keeping the estimate of the clean video within its range. Wrap it around guidance."""

from __future__ import annotations

from enum import Enum

from torch import Tensor

from vdm_blocks.denoisers.quantile import magnitude_quantile
from vdm_blocks.denoisers.wrapper import DenoiserWrapper, with_x0
from vdm_blocks.diffusion.values import check_value
from vdm_blocks.types import Conditioning, Denoised, Denoiser

__all__ = ["DynamicThreshold", "StaticThreshold", "ThresholdPer"]


class StaticThreshold(DenoiserWrapper):
    """x0 clipped to [-1, 1], and eps recomputed from it (arXiv 2205.11487, section 2.3)."""

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """The clipped split of z_t at t, of shape (), (B,) or (B, T)."""
        x0 = self.denoiser(z_t, t, cond).x0.clamp(-1, 1)
        return with_x0(self.schedule, z_t, t, x0)


class ThresholdPer(Enum):
    """What shares one threshold."""

    CLIP = "one for the whole clip, so that brightness does not flicker"
    FRAME = "one for each frame, as in an image model"


class DynamicThreshold(DenoiserWrapper):
    """x0 = clip(x0, -s, s) / s with s = max(quantile of |x0|, 1), and eps recomputed.

    (arXiv 2205.11487, section 2.3.) Works at any size: the quantile is exact beyond torch.quantile's 2^24
    elements, and needs less than a fifth of x0's memory beside it.

    Args:
        denoiser: the denoiser, guided already.
        quantile: 0.995 is Imagen's figure; Imagen Video's is not published.
        per: whether a clip or each of its frames has a threshold.

    Raises:
        ValueError: a quantile outside (0, 1], or a `per` that is no `ThresholdPer`.
    """

    def __init__(
        self, denoiser: Denoiser, quantile: float = 0.995, *, per: ThresholdPer = ThresholdPer.CLIP
    ) -> None:
        super().__init__(denoiser)
        if not 0 < quantile <= 1:
            raise ValueError(f"quantile is {quantile}; it must lie in (0, 1], for example 0.995")
        check_value("per", per, ThresholdPer, "ThresholdPer.CLIP or ThresholdPer.FRAME")
        self.quantile = quantile
        self.per = per

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """The thresholded split of z_t at t, of shape (), (B,) or (B, T)."""
        x0 = self.denoiser(z_t, t, cond).x0
        if self.per is ThresholdPer.CLIP:
            s = magnitude_quantile(x0, self.quantile)
            s = s.view(-1, *(1,) * (x0.ndim - 1))
        else:
            s = magnitude_quantile(x0.transpose(1, 2), self.quantile, keep=2)[:, None, :, None, None]
        s = s.clamp(min=1)
        return with_x0(self.schedule, z_t, t, x0.clamp(-s, s).div_(s))
