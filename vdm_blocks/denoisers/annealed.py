"""Condition-annealed sampling: a noisy text at first, for variety."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from vdm_blocks.denoisers.wrapper import DenoiserWrapper
from vdm_blocks.diffusion.noise import KeyedNoise
from vdm_blocks.types import Conditioning, Denoised, Denoiser

__all__ = ["ConditionAnnealing"]


class ConditionAnnealing(DenoiserWrapper):
    """CADS: text <- sqrt(g) text + strength sqrt(1 - g) n, brought back to its mean and deviation (arXiv 2310.17347).

    g falls from 1 at times up to `clear` to 0 at times from `blurred`. Put it inside guidance,
    so that the text that is masked out stays out. Its noise is keyed by the time, so the same call gives the same
    answer; for one noise level that all samples share, as in sampling.

    Args:
        denoiser: the denoiser.
        noise: whose noise, one seed per sample.
        strength: the noise's scale; 0.1 to 0.25 there.
        clear: tau_1, the time up to which the text is as it is.
        blurred: tau_2, the time from which on it is noise.
        mixing: how much of the rescaled text is taken, the rest being the text that was not rescaled.

    Raises:
        ValueError: times in the wrong order, or a strength that is negative or not finite; on a call, more than one
            level.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        noise: KeyedNoise,
        *,
        strength: float = 0.15,
        clear: float = 0.6,
        blurred: float = 0.9,
        mixing: float = 1.0,
    ) -> None:
        super().__init__(denoiser)
        if not 0 <= clear < blurred <= 1 or not 0 <= strength < math.inf or not 0 <= mixing <= 1:
            raise ValueError(
                f"ConditionAnnealing got clear={clear}, blurred={blurred}, strength={strength}, mixing={mixing}; it "
                "needs 0 <= clear < blurred <= 1, strength >= 0 and mixing in [0, 1]"
            )
        self.noise = noise
        self.strength = strength
        self.clear = clear
        self.blurred = blurred
        self.mixing = mixing

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """The split of z_t at t, of shape ()."""
        return self.denoiser(z_t, t, self.annealed(t, cond))

    def annealed(self, t: Tensor, cond: Conditioning) -> Conditioning:
        """The conditioning as the denoiser gets it at `t`."""
        if t.ndim > 0:
            raise ValueError(
                f"ConditionAnnealing got t of shape {tuple(t.shape)}; it works at one level, of shape ()"
            )
        time = float(t)
        g = min(max((self.blurred - time) / (self.blurred - self.clear), 0.0), 1.0)
        if cond.text is None or cond.text_mask is None or g == 1:
            return cond
        text, real = cond.text, cond.text_mask[..., None]
        key = f"annealing at {time!r}"
        n = self.noise.normal(text.shape, step=key, device=text.device, dtype=text.dtype)
        wide = text.to(torch.promote_types(text.dtype, torch.float32))  # half precision cannot hold the sums
        noisy = math.sqrt(g) * wide + self.strength * math.sqrt(1 - g) * n
        mean, std = _moments(wide, real)
        noisy_mean, noisy_std = _moments(noisy, real)
        rescaled = (noisy - noisy_mean) / noisy_std * std + mean
        annealed = torch.lerp(noisy, rescaled, self.mixing).to(text.dtype)
        return replace(cond, text=torch.where(real, annealed, text))


def _moments(text: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the tokens that are not padding, per sample."""
    axes = tuple(range(1, text.ndim))
    count = (real.sum(dim=axes, keepdim=True) * text.shape[-1]).clamp(min=1)
    mean = torch.where(real, text, 0).sum(dim=axes, keepdim=True) / count
    variance = torch.where(real, (text - mean).square(), 0).sum(dim=axes, keepdim=True) / count
    return mean, variance.sqrt().clamp(min=torch.finfo(text.dtype).tiny)
