"""Classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vdm_blocks.denoisers.passes import Passes, evaluate_both, is_everywhere, lerp
from vdm_blocks.denoisers.scales import Scale, as_scale
from vdm_blocks.denoisers.wrapper import DenoiserWrapper
from vdm_blocks.types import Conditioning, Denoised, Denoiser

__all__ = ["ClassifierFreeGuidance"]


class ClassifierFreeGuidance(DenoiserWrapper):
    """x0 = uncond + scale (cond - uncond), and the same in eps; 1 is off.

    (arXiv 2207.12598, eq. 6.) Imagen Video writes (1 + w) cond - w uncond (arXiv 2210.02303, section 2.6): its w is
    our scale - 1. Where the scale is 1 or 0 for every sample, or there is no text to take away, only one evaluation
    is made.

    Args:
        denoiser: the denoiser to guide.
        scale: a number, or a `Scale` that depends on the noise level: `Oscillating`, `Interval`, `OfLogSNR`.
        unconditional: makes the conditioning to push away from; without its text if not given. A negative prompt
            goes in here.
        both: whether the two evaluations are made apart or together.

    >>> from dataclasses import dataclass
    >>> import torch
    >>> from vdm_blocks.diffusion.schedules import CosineSchedule
    >>> class Caption:  # answers with what the text says
    ...     schedule = CosineSchedule()
    ...     def __call__(self, z_t, t, cond):
    ...         said = (cond.text[..., 0] * cond.text_mask).sum().expand(z_t.shape)
    ...         return Denoised(said, said)
    >>> cond = Conditioning(text=torch.full((1, 1, 1), 2.0), text_mask=torch.ones(1, 1, dtype=torch.bool))
    >>> z_t = torch.zeros(1, 1, 1, 1, 1)
    >>> ClassifierFreeGuidance(Caption(), scale=6.0)(z_t, torch.tensor(0.5), cond).x0.item()
    12.0
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scale: float | Scale = 6.0,
        *,
        unconditional: Callable[[Conditioning], Conditioning] = Conditioning.without_text,
        both: Passes = Passes.APART,
    ) -> None:
        super().__init__(denoiser)
        self.scale = as_scale(scale)
        self.unconditional = unconditional
        self.both = both

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """The guided split of z_t at t, of shape (), (B,) or (B, T)."""
        scale = self.scale(t, self.schedule.logsnr(t))
        without = cond if is_everywhere(scale, 1.0) else self.unconditional(cond)
        if without is cond:
            return self.denoiser(z_t, t, cond)
        if is_everywhere(scale, 0.0):
            return self.denoiser(z_t, t, without)
        conditional, unconditional = evaluate_both(self.denoiser, z_t, t, (cond, without), self.both)
        return lerp(unconditional, conditional, scale)
