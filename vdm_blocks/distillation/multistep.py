"""Multistep consistency: paths cut into segments, one answer for all the points of a segment."""

from __future__ import annotations

import torch
from torch import Tensor

from vdm_blocks.denoisers.wrapper import with_x0
from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.diffusion.noise import NoiseSource
from vdm_blocks.diffusion.process import diffuse
from vdm_blocks.diffusion.video_noise import IndependentNoise, VideoNoise
from vdm_blocks.diffusion.weightings import TruncatedSNR, Weighting
from vdm_blocks.distillation.jumps import Jumps
from vdm_blocks.distillation.match import Emphasis, check_roles, draw_uniform, match
from vdm_blocks.distillation.targets import ddim_step, first_share, jump_gain
from vdm_blocks.sampling.grids import check_times, uniform_times
from vdm_blocks.types import Conditioning, Denoiser, Schedule

__all__ = ["MultistepConsistencyDistiller", "adjusted_ddim_step", "segment_jumps"]


def segment_jumps(segments: int, steps: int | Tensor) -> Jumps:
    """From every time of a grid to the end of its segment, by way of the next time.

    Args:
        segments: of as many steps of the grid each.
        steps: of a uniform grid; or the grid itself, falling.

    Raises:
        ValueError: segments that do not divide the steps, or a grid that does not fall within [0, 1].

    >>> segment_jumps(2, 4)
    Jumps(t=(1.0, 0.75, 0.5, 0.25), mid=(0.75, 0.5, 0.25, 0.0), s=(0.5, 0.5, 0.0, 0.0))
    """
    count = steps if isinstance(steps, int) else len(steps) - 1
    if segments < 1 or count < 1 or count % segments:
        raise ValueError(
            f"{segments} segments do not divide {count} steps; give a multiple, such as 8 and 64"
        )
    times = (uniform_times(steps) if isinstance(steps, int) else check_times(steps)).tolist()
    length = count // segments
    ends = [times[(i // length + 1) * length] for i in range(count)]
    return Jumps(t=tuple(times[:-1]), mid=tuple(times[1:]), s=tuple(ends))


def adjusted_ddim_step(
    schedule: Schedule, z_t: Tensor, x0: Tensor, t: Tensor, s: Tensor, x_var: Tensor
) -> Tensor:
    """aDDIM: z_s = alpha_s x0 + sqrt(sigma_s^2 + (d / |eps|^2) gain^2 x_var) eps.

    gain = alpha_s - alpha_t sigma_s / sigma_t (arXiv 2403.06807, section 3.2). x0 is a mean and so less varied than
    data; the noise takes over the part of the variance that is missing. |eps|^2 is each sample's own, over its d
    entries. x_var = 0 is DDIM to the bit, and a step to time 0 gives x0 itself.

    Args:
        schedule: what the times mean.
        z_t: (B, C, T, H, W).
        x0: the estimate at z_t.
        t: the time of z_t, () or (B,).
        s: the time to go to.
        x_var: the variance of the data given z_t, per entry, (B,).
    """
    return ddim_step(schedule, z_t, x0, t, s) + _excess(schedule, z_t, x0, t, s, x_var)


def _excess(schedule: Schedule, z_t: Tensor, x0: Tensor, t: Tensor, s: Tensor, x_var: Tensor) -> Tensor:
    """What aDDIM adds to DDIM: (sqrt(sigma_s^2 + e) - sigma_s) eps, as e / (sqrt(..) + sigma_s) eps."""
    (alpha_t, sigma_t), (_, sigma_s) = schedule.alpha_sigma(t), schedule.alpha_sigma(s)
    eps = (z_t - expand_level(alpha_t, z_t) * x0) / expand_level(sigma_t, z_t)
    mean_square = eps.flatten(1).square().mean(dim=1, dtype=torch.float64).clamp(min=1e-12)
    extra = jump_gain(schedule, t, s).to(mean_square) ** 2 * x_var.to(mean_square) / mean_square
    level = sigma_s.to(mean_square)
    added = torch.where((s == 0).to(extra.device), 0.0, extra / ((level**2 + extra).sqrt() + level))
    return expand_level(added, eps) * eps


class MultistepConsistencyDistiller:
    """w_x |x0_student(z_t) - x0_ref|^2, x0_ref landing where the teacher's step and the student's from there land.

    (arXiv 2403.06807, algorithm 1.) Time is cut into `segments` of as many steps each; from where the teacher's step
    ends the student, without gradients, goes to the end of the segment. One segment is a consistency model, as many
    segments as steps the teacher. The teacher steps by aDDIM, its missing variance estimated as `adjust` times
    |x0_teacher - x0|^2 / d, which a guided teacher is off by for another reason: give it 0. Samples with `DDIM` on the
    ends of the segments, `uniform_times(segments)` of a uniform grid.

    Args:
        teacher: any denoiser, guided or not.
        student: any denoiser of the same schedule; starts from the teacher's weights.
        segments: as many as the steps that will be taken.
        steps: of the teacher's uniform grid, a multiple of `segments`; or its grid, falling from 1 to 0.
        adjust: the share of the error that is the teacher's missing variance; 0 is DDIM.
        target: what the student is compared with at s; None is the student itself.
        weighting: how much an error counts at a noise level.
        emphasis: one more weight, which knows the conditioning; a `ResidualNetwork` wants its `precision`.
        noise: what the frames' noise has in common.

    Raises:
        ValueError: roles that do not go together, segments that do not divide the steps, or a negative share.
    """

    def __init__(
        self,
        teacher: Denoiser,
        student: Denoiser,
        segments: int,
        *,
        steps: int | Tensor = 64,
        adjust: float = 0.75,
        target: Denoiser | None = None,
        weighting: Weighting = TruncatedSNR(),  # noqa: B008 - frozen
        emphasis: Emphasis | None = None,
        noise: VideoNoise = IndependentNoise(),  # noqa: B008 - frozen
    ) -> None:
        check_roles(teacher, student)
        if not 0 <= adjust < float("inf"):
            raise ValueError(f"MultistepConsistencyDistiller got adjust={adjust}; it is 0, for DDIM, or more")
        self.teacher = teacher
        self.student = student
        self.jumps = segment_jumps(segments, steps)
        self.adjust = adjust
        self.target = student if target is None else target
        self.weighting = weighting
        self.emphasis = emphasis
        self.noise = noise

    def __call__(self, x0: Tensor, cond: Conditioning, *, generator: NoiseSource = None) -> Tensor:
        """The loss of each sample, (B,), on clean videos (B, C, T, H, W); keyed noise needs a stage for each update."""
        schedule = self.student.schedule
        t, mid, s = self.jumps.draw(draw_uniform(generator, x0, key="distillation/jump"))
        eps = self.noise.draw(
            generator, x0.shape, step="distillation/noise", device=x0.device, dtype=x0.dtype
        )
        z_t = diffuse(x0, eps, t, schedule)
        with torch.no_grad():
            first = self.teacher(z_t, t, cond).x0
            x_var = self.adjust * (first - x0).flatten(1).square().mean(dim=1)
            excess = _excess(schedule, z_t, first, t, mid, x_var)
            z_mid = ddim_step(schedule, z_t, first, t, mid) + excess
            second = self.target(z_mid, mid, cond).x0
            share = expand_level(first_share(schedule, t, mid, s), first)
            _, sigma_mid = schedule.alpha_sigma(mid)
            _, sigma_s = schedule.alpha_sigma(s)
            carried = torch.where(s == 0, 0.0, sigma_s / sigma_mid / jump_gain(schedule, t, s))
            wanted = torch.lerp(second, first, share) + expand_level(carried, excess) * excess
        split = with_x0(schedule, z_t, t, wanted)
        return match(self.student, z_t, t, cond, split, self.weighting, self.emphasis)
