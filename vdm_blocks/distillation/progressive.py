"""Progressive distillation: a student that makes in one step what its teacher makes in two."""

from __future__ import annotations

from torch import Tensor

from vdm_blocks.denoisers.wrapper import with_x0
from vdm_blocks.diffusion.noise import NoiseSource
from vdm_blocks.diffusion.process import diffuse
from vdm_blocks.diffusion.video_noise import IndependentNoise, VideoNoise
from vdm_blocks.diffusion.weightings import TruncatedSNR, Weighting
from vdm_blocks.distillation.jumps import Jumps, as_jumps
from vdm_blocks.distillation.match import Emphasis, check_roles, draw_uniform, match
from vdm_blocks.distillation.scale import ScaleRange, as_range, with_guidance_scale
from vdm_blocks.distillation.targets import two_step_target
from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["ProgressiveDistiller"]


class ProgressiveDistiller:
    """w_x |x0_student(z_t) - x0_target|^2, the target landing where two DDIM steps of the teacher land.

    (arXiv 2202.00512, algorithm 2; for a student that is told the guidance scale arXiv 2210.03142, section 3.2.) One
    halving of the number of steps. The conditioning reaches both of them untouched: text dropped or not, the
    low-resolution video with its noise level, and marks of independent pictures.

    Args:
        teacher: any denoiser, guided or not, whose steps are halved.
        student: any denoiser of the same schedule; it starts from the teacher's weights.
        steps: the student's, uniform in time and for DDIM; or the jumps it shall learn, such as
            `stochastic_jumps(8)` or `ddim_jumps(times)`.
        weighting: how much an error counts at a noise level.
        emphasis: one more weight, which knows the conditioning; a `ResidualNetwork` wants its `precision`.
        scales: where given, each sample draws a guidance scale from this range, and both are told of it.
        noise: what the frames' noise has in common.

    Raises:
        ValueError: roles that do not go together, no steps, or an empty range of scales.

    >>> import copy
    >>> import torch
    >>> from vdm_blocks.denoisers import ModelDenoiser
    >>> class Scale(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.gain = torch.nn.Parameter(torch.tensor(0.1))
    ...     def forward(self, z_t, logsnr, cond):
    ...         return self.gain * z_t
    >>> teacher = ModelDenoiser(Scale())
    >>> distiller = ProgressiveDistiller(teacher, copy.deepcopy(teacher), steps=4)
    >>> distiller(torch.randn(2, 3, 4, 8, 8), Conditioning()).shape
    torch.Size([2])
    """

    def __init__(
        self,
        teacher: Denoiser,
        student: Denoiser,
        steps: int | Jumps,
        *,
        weighting: Weighting = TruncatedSNR(),  # noqa: B008 - frozen
        emphasis: Emphasis | None = None,
        scales: ScaleRange | tuple[float, float] | None = None,
        noise: VideoNoise = IndependentNoise(),  # noqa: B008 - frozen
    ) -> None:
        check_roles(teacher, student)
        self.teacher = teacher
        self.student = student
        self.jumps = as_jumps(steps)
        self.weighting = weighting
        self.emphasis = emphasis
        self.scales = None if scales is None else as_range(scales)
        self.noise = noise

    def __call__(self, x0: Tensor, cond: Conditioning, *, generator: NoiseSource = None) -> Tensor:
        """The loss of each sample, (B,), on clean videos (B, C, T, H, W); keyed noise needs a stage for each update."""
        t, mid, s = self.jumps.draw(draw_uniform(generator, x0, key="distillation/jump"))
        if self.scales is not None:
            cond = with_guidance_scale(cond, self.scales.draw(generator, x0))
        eps = self.noise.draw(
            generator, x0.shape, step="distillation/noise", device=x0.device, dtype=x0.dtype
        )
        z_t = diffuse(x0, eps, t, self.student.schedule)
        target = two_step_target(self.teacher, z_t, t, mid, s, cond)
        split = with_x0(self.student.schedule, z_t, t, target)
        return match(self.student, z_t, t, cond, split, self.weighting, self.emphasis)
