"""The denoising loss, per sample."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vdm_blocks.denoisers.model import ModelDenoiser
from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.diffusion.noise import NoiseSource, draw_normal
from vdm_blocks.diffusion.predictions import X0
from vdm_blocks.diffusion.weightings import V_MSE, Weighting, output_weight
from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["DiffusionLoss"]


@dataclass(frozen=True, kw_only=True)
class DiffusionLoss:
    """w_x(logsnr_t) |x0 - x0_hat(z_t)|^2, averaged over a sample's entries: (B,), the batch is not reduced.

    For a `ModelDenoiser` it is computed on the network's own output with the weight that belongs there, so
    that with V and the weight of V (SNR + 1, the default) it is the plain mean of (v_hat - v)^2 at every
    level. Any other denoiser is judged by its x0.

    Raises:
        ValueError: on a call, a `t` or a `mask` that does not fit x0.
    """

    weighting: Weighting = V_MSE

    def __call__(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        t: Tensor,
        cond: Conditioning,
        *,
        mask: Tensor | None = None,
        generator: NoiseSource = None,
    ) -> Tensor:
        """The loss of each sample.

        Args:
            denoiser: what is trained.
            x0: clean videos, (B, C, T, H, W).
            t: times, (), (B,) or (B, T).
            cond: passed on to the denoiser.
            mask: (B, T) frames or, broadcastable to x0, entries that count; the mean is over those.
            generator: where the noise comes from.
        """
        eps = draw_normal(generator, x0.shape, step="loss", device=x0.device, dtype=x0.dtype)
        alpha, sigma = denoiser.schedule.alpha_sigma(t)
        z_t = expand_level(alpha, x0) * x0 + expand_level(sigma, x0) * eps
        if isinstance(denoiser, ModelDenoiser):
            prediction = denoiser.prediction
            error = denoiser.output(z_t, t, cond).float() - prediction.target(x0, eps, alpha, sigma).float()
        else:
            prediction = X0
            error = denoiser(z_t, t, cond).x0.float() - x0.float()
        weight = output_weight(self.weighting, prediction, denoiser.schedule.logsnr(t), alpha, sigma)
        weighted = expand_level(weight, error) * error.square()
        return masked_mean(weighted, mask)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of (B, ...) over all but the first axis, where `mask` is not 0."""
    if mask is None:
        return values.flatten(1).mean(dim=1)
    weight = expand_level(mask, values) if mask.ndim == 2 else mask.to(values.dtype)
    weight = weight.expand_as(values)
    return (values * weight).flatten(1).sum(dim=1) / weight.flatten(1).sum(dim=1).clamp(min=1)
