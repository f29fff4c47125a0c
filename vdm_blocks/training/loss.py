"""The denoising loss, per sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from vdm_blocks.denoisers.model import ModelDenoiser
from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.diffusion.noise import NoiseSource
from vdm_blocks.diffusion.predictions import X0, Prediction
from vdm_blocks.diffusion.process import diffuse
from vdm_blocks.diffusion.video_noise import IndependentNoise, VideoNoise
from vdm_blocks.diffusion.weightings import V_MSE, Weighting, weight_at
from vdm_blocks.types import Conditioning, Denoiser, check_denoiser

__all__ = ["DiffusionLoss", "MultiscaleDiffusionLoss"]


def _output_error(
    denoiser: Denoiser, x0: Tensor, t: Tensor, cond: Conditioning, noise: VideoNoise, generator: NoiseSource
) -> tuple[Prediction, Tensor]:
    """How far the network's own output, or a foreign denoiser's x0, is from its target, in float32 at least."""
    check_denoiser(denoiser)
    if not x0.is_floating_point():
        raise ValueError(
            f"x0 is {x0.dtype}; give video as floating-point numbers in [-1, 1]: bytes / 127.5 - 1"
        )
    eps = noise.draw(generator, x0.shape, step="loss", device=x0.device, dtype=x0.dtype)
    z_t = diffuse(x0, eps, t, denoiser.schedule)
    if not isinstance(denoiser, ModelDenoiser):
        return X0, _wide(denoiser(z_t, t, cond).x0) - _wide(x0)
    target = denoiser.prediction.target(x0, eps, *denoiser.schedule.alpha_sigma(t))
    return denoiser.prediction, _wide(denoiser.output(z_t, t, cond)) - _wide(target)


def _wide(x: Tensor) -> Tensor:
    return x if x.element_size() >= 4 else x.float()


@dataclass(frozen=True, kw_only=True)
class DiffusionLoss:
    """w_x(logsnr_t) |x0 - x0_hat(z_t)|^2, averaged over a sample's entries: (B,), the batch is not reduced.

    For a `ModelDenoiser` it is computed on the network's own output with the weight that belongs there, so that
    with V and the weight of V (SNR + 1, the default) it is the plain mean of (v_hat - v)^2 at every level. Any
    other denoiser is judged by its x0.

    Attributes:
        weighting: how much an error counts at a noise level.
        noise: what the frames' noise has in common.

    Raises:
        ValueError: on a call, a bare network for a denoiser, x0 in whole numbers, or a `t` or a `mask` that does
            not fit it.
    """

    weighting: Weighting = V_MSE
    noise: VideoNoise = IndependentNoise()  # noqa: RUF009 - frozen

    def __call__(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        t: Tensor,
        cond: Conditioning,
        *,
        generator: NoiseSource = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The loss of each sample.

        Args:
            denoiser: what is trained.
            x0: clean videos, (B, C, T, H, W).
            t: times, (), (B,) or (B, T).
            cond: passed on to the denoiser.
            generator: where the noise comes from; keyed noise must have a stage of its own for each training step.
            mask: which frames, (B, T), or entries, (B, 1 or C, T, H, W), count, by 0 and 1 or any weights between.
        """
        prediction, error = _output_error(denoiser, x0, t, cond, self.noise, generator)
        weight = weight_at(self.weighting, prediction, denoiser.schedule, t)
        return _mean(expand_level(weight, error) * error.square(), mask)


@dataclass(frozen=True, kw_only=True)
class MultiscaleDiffusionLoss:
    """sum_f f L_f, L_f the loss of errors averaged over f by f pixels (arXiv 2301.11093, multiscale loss).

    Up to the factor 1 / d this is the sum over s = d / f of L^{s x s} / s, which is written there for square
    pictures of side d. It keeps the coarse structure of large pictures from being drowned by fine detail.

    Attributes:
        factors: the sides f of the squares; each must divide height and width.
        weighting: how much an error counts at a noise level.
        noise: what the frames' noise has in common.

    Raises:
        ValueError: no factors or one below 1; on a call, one that does not divide the video's sides.
    """

    factors: tuple[int, ...] = (1, 2, 4)
    weighting: Weighting = V_MSE
    noise: VideoNoise = IndependentNoise()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if not self.factors or min(self.factors) < 1:
            raise ValueError(
                f"MultiscaleDiffusionLoss got factors={self.factors}; give some, each at least 1"
            )

    def __call__(
        self, denoiser: Denoiser, x0: Tensor, t: Tensor, cond: Conditioning, *, generator: NoiseSource = None
    ) -> Tensor:
        """The loss of each sample, (B,); arguments as for `DiffusionLoss`."""
        height, width = x0.shape[-2:]
        if any(height % f or width % f for f in self.factors):
            raise ValueError(
                f"factors={self.factors} do not all divide a video of height {height} and width {width}; leave out "
                "those that do not"
            )
        prediction, error = _output_error(denoiser, x0, t, cond, self.noise, generator)
        weight = expand_level(weight_at(self.weighting, prediction, denoiser.schedule, t), error)
        pooled = [F.avg_pool3d(error, (1, f, f)) for f in self.factors]
        scales = [f * _mean(weight * e.square(), None) for f, e in zip(self.factors, pooled, strict=True)]
        return sum(scales[1:], scales[0])


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of (B, ...) over all but the first axis, where `mask` counts."""
    if mask is None:
        return values.flatten(1).mean(dim=1)
    if mask.ndim == 2:
        weight = expand_level(mask, values)
    elif mask.ndim == 5 and all(m in (1, v) for m, v in zip(mask.shape, values.shape, strict=True)):
        weight = mask.to(values)
    else:
        raise ValueError(
            f"a mask of shape {tuple(mask.shape)} does not fit a video of shape {tuple(values.shape)}; give (B, T) "
            "for frames or (B, 1 or C, T, H, W) for entries"
        )
    weight = weight.expand_as(values).flatten(1)
    return (values.flatten(1) * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-12)
