"""Guidance distillation: both evaluations of classifier-free guidance in one, for a whole range of scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from vdm_blocks.denoisers.classifier_free import ClassifierFreeGuidance
from vdm_blocks.denoisers.passes import Passes
from vdm_blocks.denoisers.scales import OfLogSNR, Scale, as_scale
from vdm_blocks.denoisers.wrapper import DenoiserWrapper
from vdm_blocks.diffusion.broadcast import level_of_batch
from vdm_blocks.diffusion.noise import NoiseSource
from vdm_blocks.diffusion.process import diffuse
from vdm_blocks.diffusion.times import TimeLaw, UniformLaw
from vdm_blocks.diffusion.video_noise import IndependentNoise, VideoNoise
from vdm_blocks.diffusion.weightings import V_MSE, Weighting
from vdm_blocks.distillation.match import Emphasis, check_roles, draw_uniform, match
from vdm_blocks.distillation.scale import (
    GUIDANCE_SCALE,
    ScaleRange,
    as_range,
    guidance_scale_of,
    with_guidance_scale,
)
from vdm_blocks.types import Conditioning, Denoised, Denoiser

__all__ = ["DistilledGuidance", "GuidanceDistiller", "ToldGuidance"]


class GuidanceDistiller:
    """w_x |x0_student(z_t, scale) - (uncond + scale (cond - uncond))|^2, scale ~ U[scales], t ~ U[0, 1].

    (arXiv 2210.03142, eq. 2; its w is our scale - 1.) The student is told the scale through
    `Conditioning.extra["guidance_scale"]`; `ScaleAdapter` makes any network read it. It starts from the teacher's
    conditional weights. A sample whose text was dropped learns the unconditional estimate at every scale.

    Args:
        teacher: the denoiser before guidance.
        student: a denoiser of the same schedule that reads the scale.
        scales: the range; it must cover those in use.
        times: the law of the times, continuous.
        weighting: how much an error counts at a noise level.
        emphasis: one more weight, which knows the conditioning; a `ResidualNetwork` wants its `precision`.
        unconditional: makes the conditioning to push away from, as for `ClassifierFreeGuidance`.
        both: whether the teacher's two evaluations are made apart or together.
        noise: what the frames' noise has in common.

    Raises:
        ValueError: roles that do not go together, or an empty range.
    """

    def __init__(
        self,
        teacher: Denoiser,
        student: Denoiser,
        scales: ScaleRange | tuple[float, float] = (1.0, 16.0),
        *,
        times: TimeLaw = UniformLaw(),  # noqa: B008 - frozen
        weighting: Weighting = V_MSE,
        emphasis: Emphasis | None = None,
        unconditional: Callable[[Conditioning], Conditioning] = Conditioning.without_text,
        both: Passes = Passes.APART,
        noise: VideoNoise = IndependentNoise(),  # noqa: B008 - frozen
    ) -> None:
        check_roles(teacher, student)
        self.teacher = teacher
        self.student = student
        self.scales = as_range(scales)
        self.times = times
        self.weighting = weighting
        self.emphasis = emphasis
        self.unconditional = unconditional
        self.both = both
        self.noise = noise

    def __call__(self, x0: Tensor, cond: Conditioning, *, generator: NoiseSource = None) -> Tensor:
        """The loss of each sample, (B,), on clean videos (B, C, T, H, W); keyed noise needs a stage for each update."""
        t = self.times.quantile(draw_uniform(generator, x0, key="distillation/time"))
        scale = self.scales.draw(generator, x0)
        eps = self.noise.draw(
            generator, x0.shape, step="distillation/noise", device=x0.device, dtype=x0.dtype
        )
        z_t = diffuse(x0, eps, t, self.student.schedule)
        target = self.target(z_t, t, scale, cond)
        return match(
            self.student, z_t, t, with_guidance_scale(cond, scale), target, self.weighting, self.emphasis
        )

    @torch.no_grad()
    def target(self, z_t: Tensor, t: Tensor, scale: Tensor, cond: Conditioning) -> Denoised:
        """The teacher's answer guided by `scale`, (B,) or (B, T)."""
        told = ToldGuidance(self.teacher, unconditional=self.unconditional, both=self.both)
        answer: Denoised = told(z_t, t, with_guidance_scale(cond, scale))
        return answer


class ToldGuidance(DenoiserWrapper):
    """A teacher guided by the scale that it is told of, as its student is: two evaluations, and no error.

    It stands in for the student wherever a distiller tells its roles a scale, so that the first student of few steps
    learns from the teacher itself.

    Args:
        denoiser: the denoiser to guide; it is not told the scale.
        unconditional: makes the conditioning to push away from, as for `ClassifierFreeGuidance`.
        both: whether the two evaluations are made apart or together.

    >>> from vdm_blocks.diffusion import CosineSchedule
    >>> class Caption:  # answers with what the text says
    ...     schedule = CosineSchedule()
    ...     def __call__(self, z_t, t, cond):
    ...         said = (cond.text[..., 0] * cond.text_mask).sum().expand(z_t.shape)
    ...         return Denoised(said, said)
    >>> cond = Conditioning(text=torch.full((1, 1, 1), 2.0), text_mask=torch.ones(1, 1, dtype=torch.bool))
    >>> told = with_guidance_scale(cond, torch.tensor([6.0]))
    >>> ToldGuidance(Caption())(torch.zeros(1, 1, 1, 1, 1), torch.tensor(0.5), told).x0.item()
    12.0
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        unconditional: Callable[[Conditioning], Conditioning] = Conditioning.without_text,
        both: Passes = Passes.APART,
    ) -> None:
        super().__init__(denoiser)
        self.unconditional = unconditional
        self.both = both

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """The guided split of z_t at t, of shape (), (B,) or (B, T)."""
        scale = guidance_scale_of(cond)
        extra = {name: value for name, value in cond.extra.items() if name != GUIDANCE_SCALE}
        guided = ClassifierFreeGuidance(
            self.denoiser,
            OfLogSNR(function=lambda _logsnr: scale),
            unconditional=self.unconditional,
            both=self.both,
        )
        answer: Denoised = guided(z_t, t, replace(cond, extra=extra))
        return answer


class DistilledGuidance(DenoiserWrapper):
    """A student that was told the scale, used as a guided denoiser: one evaluation, whatever the scale.

    Args:
        denoiser: the student.
        scale: a number, or a `Scale` of the noise level such as `Oscillating`, as for `ClassifierFreeGuidance`.

    >>> from vdm_blocks.denoisers import Oscillating
    >>> from vdm_blocks.diffusion import CosineSchedule
    >>> from vdm_blocks.distillation import GUIDANCE_SCALE
    >>> class Told:  # answers with the scale
    ...     schedule = CosineSchedule()
    ...     def __call__(self, z_t, t, cond):
    ...         return Denoised(cond.extra[GUIDANCE_SCALE].view(-1, 1, 1, 1, 1).expand(z_t.shape), z_t)
    >>> told = DistilledGuidance(Told(), Oscillating(high=15.0, low=1.0, times=[1.0, 0.75, 0.5, 0.25, 0.0]))
    >>> [told(torch.zeros(1, 1, 1, 1, 1), t, Conditioning()).x0.item() for t in torch.tensor([1.0, 0.75])]
    [15.0, 1.0]
    """

    def __init__(self, denoiser: Denoiser, scale: float | Scale) -> None:
        super().__init__(denoiser)
        self.scale = as_scale(scale)

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """The student's split of z_t at t, of shape (), (B,) or (B, T)."""
        scale = level_of_batch(self.scale(t, self.schedule.logsnr(t)), z_t)
        return self.denoiser(z_t, t, with_guidance_scale(cond, scale))
