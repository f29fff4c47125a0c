"""Consistency distillation: one answer for all the points of a path, the one at its clean end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vdm_blocks.denoisers.wrapper import with_x0
from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.diffusion.noise import NoiseSource
from vdm_blocks.diffusion.process import diffuse
from vdm_blocks.diffusion.video_noise import IndependentNoise, VideoNoise
from vdm_blocks.diffusion.weightings import X0_MSE, Weighting
from vdm_blocks.distillation.jumps import ddim_jumps
from vdm_blocks.distillation.match import Emphasis, check_roles, draw_uniform, match
from vdm_blocks.sampling.rule import Draw, StepResult, affine, is_clean
from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["ConsistencyDistiller", "FreshNoise", "heun_step"]


@torch.no_grad()
def heun_step(teacher: Denoiser, z_t: Tensor, t: Tensor, s: Tensor, cond: Conditioning) -> Tensor:
    """Heun's step on dz/dphi = v, phi = atan(sigma / alpha), each sample from its own t to its own s.

    As `Heun`, which takes all samples through the same times; where s is 0 it gives the first x0. Two evaluations.
    """
    schedule = teacher.schedule
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.alpha_sigma(t), schedule.alpha_sigma(s)
    n_t, n_s = torch.hypot(alpha_t, sigma_t), torch.hypot(alpha_s, sigma_s)
    turn = expand_level(torch.atan2(sigma_s, alpha_s) - torch.atan2(sigma_t, alpha_t), z_t)

    def slope(z: Tensor, at: Tensor, alpha: Tensor, sigma: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        answer = teacher(z, at, cond)
        cos, sin = expand_level(alpha / n, z), expand_level(sigma / n, z)
        return answer.x0, cos * answer.eps - sin * answer.x0

    start, grow = z_t / expand_level(n_t, z_t), expand_level(n_s, z_t)
    x0, first = slope(z_t, t, alpha_t, sigma_t, n_t)
    _, second = slope(grow * (start + turn * first), s, alpha_s, sigma_s, n_s)
    z_s = grow * (start + turn / 2 * (first + second))
    return torch.where(expand_level(s == 0, z_t).to(torch.bool), x0, z_s)


class ConsistencyDistiller:
    """w_x |f(z_t, t) - f_target(z_s, s)|^2, f the student's x0 and z_s one Heun step of the teacher from z_t.

    (arXiv 2303.01469, algorithm 2.) t and s are neighbours on `times`. On the last interval, s = 0, the target is z_s
    itself: the boundary condition f(z, 0) = z holds for every prediction, not only where the network is built so.
    One evaluation makes a video, `FreshNoise` makes more of them count.

    Args:
        teacher: any denoiser, guided or not.
        student: any denoiser of the same schedule; starts from the teacher's weights.
        times: the grid of the path, falling from 1 to 0; 18 to 40 steps.
        target: what the student is compared with at s: a running average of it, to be updated after each step, as in
            the paper. None is the student itself without gradients (arXiv 2310.14189, section 3.2).
        weighting: how much an error counts at a noise level.
        emphasis: one more weight, which knows the conditioning; a `ResidualNetwork` wants its `precision`.
        noise: what the frames' noise has in common.

    Raises:
        ValueError: roles that do not go together, or a grid that does not fall to 0.
    """

    def __init__(
        self,
        teacher: Denoiser,
        student: Denoiser,
        times: Tensor,
        *,
        target: Denoiser | None = None,
        weighting: Weighting = X0_MSE,
        emphasis: Emphasis | None = None,
        noise: VideoNoise = IndependentNoise(),  # noqa: B008 - frozen
    ) -> None:
        check_roles(teacher, student)
        self.teacher = teacher
        self.student = student
        self.jumps = ddim_jumps(times)
        if self.jumps.s[-1] != 0:
            raise ValueError(
                f"ConsistencyDistiller got times that end at {self.jumps.s[-1]:.6g}; all paths must end at 0, clean"
            )
        self.target = student if target is None else target
        self.weighting = weighting
        self.emphasis = emphasis
        self.noise = noise

    def __call__(self, x0: Tensor, cond: Conditioning, *, generator: NoiseSource = None) -> Tensor:
        """The loss of each sample, (B,), on clean videos (B, C, T, H, W); keyed noise needs a stage for each update."""
        t, _, s = self.jumps.draw(draw_uniform(generator, x0, key="distillation/jump"))
        eps = self.noise.draw(
            generator, x0.shape, step="distillation/noise", device=x0.device, dtype=x0.dtype
        )
        z_t = diffuse(x0, eps, t, self.student.schedule)
        z_s = heun_step(self.teacher, z_t, t, s, cond)
        with torch.no_grad():
            answer = self.target(z_s, s, cond).x0
        wanted = torch.where(expand_level(s == 0, z_s).to(torch.bool), z_s, answer)
        split = with_x0(self.student.schedule, z_t, t, wanted)
        return match(self.student, z_t, t, cond, split, self.weighting, self.emphasis)


@dataclass(frozen=True, kw_only=True)
class FreshNoise:
    """z_s = alpha_s x0 + sigma_s n: to the clean end, and back with noise that is all new.

    (arXiv 2303.01469, algorithm 1.) The step rule of consistency models and of distribution matching. It keeps the
    marginals if x0 is a draw of p(x0 | z_t), not its mean.
    """

    def start(self, times: Tensor) -> None:
        """Any grid fits; there is no state."""

    def __call__(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Tensor,
        s: Tensor,
        cond: Conditioning,
        state: None,
        draw: Draw,
    ) -> StepResult[None]:
        """One step from z_t to z_s."""
        x0 = denoiser(z_t, t, cond).x0
        if is_clean(s):
            return StepResult(x0, x0, state)
        alpha, sigma = denoiser.schedule.alpha_sigma(s)
        return StepResult(affine(x0, alpha, draw(x0), sigma), x0, state)
