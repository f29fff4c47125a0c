"""Classifier-free guidance with the contrast of the conditional estimate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vdm_blocks.denoisers.passes import Passes, evaluate_both, is_everywhere, lerp
from vdm_blocks.denoisers.scales import Scale, as_scale
from vdm_blocks.denoisers.wrapper import DenoiserWrapper, with_x0
from vdm_blocks.types import Conditioning, Denoised, Denoiser

__all__ = ["RescaledGuidance"]


class RescaledGuidance(DenoiserWrapper):
    """x0 = (share std(x0_cond) / std(x0_guided) + 1 - share) x0_guided (arXiv 2305.08891, eq. 15 and 16).

    Standard deviations are per sample, over all other axes. The paper takes them of the network's output; we take
    them of x0, which has a meaning whatever the network predicts. eps is recomputed.

    Args:
        denoiser: the denoiser to guide.
        scale: as for `ClassifierFreeGuidance`; 1 is off.
        share: 0 leaves the guided estimate alone, 1 takes over the whole contrast; 0.7 there.
        unconditional: makes the conditioning to push away from.
        both: whether the two evaluations are made apart or together.

    Raises:
        ValueError: a share outside [0, 1].
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scale: float | Scale = 6.0,
        share: float = 0.7,
        *,
        unconditional: Callable[[Conditioning], Conditioning] = Conditioning.without_text,
        both: Passes = Passes.APART,
    ) -> None:
        super().__init__(denoiser)
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}; it runs from 0, no rescaling, to 1, all of it")
        self.scale = as_scale(scale)
        self.share = share
        self.unconditional = unconditional
        self.both = both

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """The guided and rescaled split of z_t at t, of shape (), (B,) or (B, T)."""
        scale = self.scale(t, self.schedule.logsnr(t))
        without = cond if is_everywhere(scale, 1.0) else self.unconditional(cond)
        if without is cond:
            return self.denoiser(z_t, t, cond)
        conditional, unconditional = evaluate_both(self.denoiser, z_t, t, (cond, without), self.both)
        x0 = lerp(unconditional, conditional, scale).x0
        own = _std(x0)
        contrast = torch.where(own > 0, _std(conditional.x0) / own, 1.0)  # a flat video has none to take over
        return with_x0(self.schedule, z_t, t, x0 * (self.share * contrast + 1 - self.share))


def _std(x: Tensor) -> Tensor:
    return x.std(dim=tuple(range(1, x.ndim)), keepdim=True, correction=0)
