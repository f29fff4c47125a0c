"""Guidance towards several conditions, each with a scale of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vdm_blocks.denoisers.passes import Passes, evaluate_all, is_everywhere
from vdm_blocks.denoisers.scales import Scale, as_scale
from vdm_blocks.denoisers.wrapper import DenoiserWrapper
from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.diffusion.values import check_value
from vdm_blocks.types import Conditioning, Denoised, Denoiser

__all__ = ["Guide", "MultiGuidance"]


@dataclass(frozen=True, kw_only=True)
class Guide:
    """One condition to guide by.

    Attributes:
        without: the conditioning less this condition.
        scale: a number or a `Scale`; 1 is off.
    """

    without: Callable[[Conditioning], Conditioning]
    scale: float | Scale


class MultiGuidance(DenoiserWrapper):
    """x0 = D(c_n) + sum_i scale_i (D(c_(i-1)) - D(c_i)), c_0 everything and c_i what `without_i` leaves of c_(i-1).

    Two guides are the two-scale guidance of arXiv 2211.09800, eq. 3; one is `ClassifierFreeGuidance`. The same holds
    in eps. An estimate whose weight, scale_(i+1) - scale_i, is 0 is not made, so all scales at 1 cost one evaluation;
    a guide that finds nothing to take away costs none.

    Args:
        denoiser: the denoiser to guide.
        guides: the conditions, in the order in which they are taken away.
        both: whether the evaluations are made apart or together.

    Raises:
        ValueError: no guides, something else than a `Guide`, or a scale that is not finite.
    """

    def __init__(self, denoiser: Denoiser, guides: Sequence[Guide], *, both: Passes = Passes.APART) -> None:
        super().__init__(denoiser)
        if not guides:
            raise ValueError("MultiGuidance got no guides; give at least one Guide(without=..., scale=...)")
        for guide in guides:
            check_value("guide", guide, Guide, "Guide(without=..., scale=...)")
        self.guides = tuple(guides)
        self.scales = tuple(as_scale(guide.scale) for guide in guides)
        self.both = both

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """The guided split of z_t at t, of shape (), (B,) or (B, T)."""
        logsnr = self.schedule.logsnr(t)
        scales = [scale(t, logsnr) for scale in self.scales]
        below = [torch.zeros_like(scales[0]), *scales]
        above = [*scales, torch.ones_like(scales[0])]
        weights: list[Tensor] = []
        conds: list[Conditioning] = []
        for i, (low, high) in enumerate(zip(below, above, strict=True)):
            cond = self.guides[i - 1].without(cond) if i > 0 else cond
            if conds and conds[-1] is cond:  # there was nothing to take away
                weights[-1] = weights[-1] + high - low
            elif not is_everywhere(high - low, 0.0):
                weights.append(high - low)
                conds.append(cond)
        x0, eps = torch.zeros_like(z_t), torch.zeros_like(z_t)
        for weight, part in zip(weights, evaluate_all(self.denoiser, z_t, t, conds, self.both), strict=True):
            x0 = x0 + expand_level(weight, part.x0) * part.x0
            eps = eps + expand_level(weight, part.eps) * part.eps
        return Denoised(x0, eps)
