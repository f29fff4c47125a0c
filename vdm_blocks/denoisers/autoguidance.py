"""Guidance by a worse version of the same model."""

from __future__ import annotations

from torch import Tensor

from vdm_blocks.denoisers.passes import is_everywhere, lerp
from vdm_blocks.denoisers.scales import Scale, as_scale
from vdm_blocks.denoisers.wrapper import DenoiserWrapper
from vdm_blocks.types import Conditioning, Denoised, Denoiser, check_denoiser

__all__ = ["Autoguidance"]


class Autoguidance(DenoiserWrapper):
    """x0 = bad + scale (good - bad), and the same in eps, under one conditioning (arXiv 2406.02507).

    The bad one is smaller or less trained, not differently conditioned. Scale 1 is off and costs one evaluation.

    Args:
        denoiser: the good one.
        bad: the bad one, a second denoiser over an equal schedule.
        scale: a number or a `Scale`; 1.7 in that paper's best ImageNet-64 model.

    Raises:
        ValueError: different schedules, or a bare network.
    """

    bad: Denoiser

    def __init__(self, denoiser: Denoiser, bad: Denoiser, scale: float | Scale = 1.7) -> None:
        super().__init__(denoiser)
        check_denoiser(bad)
        if denoiser.schedule is not bad.schedule and denoiser.schedule != bad.schedule:
            raise ValueError(
                f"the denoisers read t by different schedules, {denoiser.schedule} and {bad.schedule}; at one t "
                "they would speak of different noise levels. Give both the same schedule"
            )
        self.bad = bad
        self.scale = as_scale(scale)

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """The guided split of z_t at t, of shape (), (B,) or (B, T)."""
        scale = self.scale(t, self.schedule.logsnr(t))
        good = self.denoiser(z_t, t, cond)
        return good if is_everywhere(scale, 1.0) else lerp(self.bad(z_t, t, cond), good, scale)
