"""Distribution matching distillation: a student whose videos, noised, cannot be told from the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor

from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.diffusion.noise import NoiseSource
from vdm_blocks.diffusion.process import diffuse, initial
from vdm_blocks.diffusion.times import TimeLaw, UniformLaw
from vdm_blocks.diffusion.video_noise import IndependentNoise, VideoNoise
from vdm_blocks.distillation.adversary import Adversary
from vdm_blocks.distillation.match import check_roles, draw_uniform
from vdm_blocks.sampling.grids import check_times, uniform_times
from vdm_blocks.training.loss import DiffusionLoss
from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["DistributionMatching"]


class DistributionMatching:
    """DMD2: the student moves its x along (x0_critic - x0_teacher) / mean |x - x0_teacher|, at a random noise level.

    (arXiv 2405.14867; the gradient is that of arXiv 2311.18828, eq. 7 and 8.) The difference is that of two scores, so
    it is the gradient of KL(student || teacher) between the noised distributions. The critic learns to denoise the
    student's own videos and takes several updates, five in the paper, for each of the student's:

        for step, (x0, cond) in enumerate(data):
            turn = step % 6
            loss = method(x0, cond) if turn == 5 else method.critic_loss(x0, cond)

    with an optimizer for each role. A student of several steps is trained on the inputs that it will meet, made by
    itself (section 4.5 there), and samples with `FreshNoise` on the same times.

    Args:
        teacher: any denoiser, usually guided.
        student: any denoiser of the same schedule; starts from the teacher's weights.
        critic: likewise; the student's own score.
        steps: of the student, uniform in time; or its grid, falling from 1 to 0.
        levels: the law of the times at which the two are compared.
        adversary: the GAN term, if it is wanted; then `discriminator_loss` trains it.
        noise: what the frames' noise has in common.

    Raises:
        ValueError: roles that do not go together, or a grid that does not run from 1 to 0.
    """

    def __init__(
        self,
        teacher: Denoiser,
        student: Denoiser,
        critic: Denoiser,
        steps: int | Tensor = 1,
        *,
        levels: TimeLaw = UniformLaw(low=0.02, high=0.98),  # noqa: B008 - frozen
        adversary: Adversary | None = None,
        noise: VideoNoise = IndependentNoise(),  # noqa: B008 - frozen
    ) -> None:
        check_roles(teacher, student)
        check_roles(teacher, critic)
        check_roles(critic, student)
        self.teacher = teacher
        self.student = student
        self.critic = critic
        self.times = check_times(uniform_times(steps) if isinstance(steps, int) else steps)
        if float(self.times[0]) != 1 or float(self.times[-1]) != 0:
            raise ValueError(
                f"DistributionMatching got times from {float(self.times[0]):.6g} to {float(self.times[-1]):.6g}; the "
                "student makes videos from noise: they run from 1 to 0"
            )
        self.levels = levels
        self.adversary = adversary
        self.noise = noise

    def __call__(self, x0: Tensor, cond: Conditioning, *, generator: NoiseSource = None) -> Tensor:
        """The student's loss, (B,): its gradient, not its value, says something.

        Of `x0`, the data, shape and device alone are used. No gradient reaches the critic or the adversary.
        """
        x = self.generate(x0, cond, generator=generator)
        t = self._levels(x0, generator)
        z_t = self._noised(x, t, "distillation/noise", generator)
        with torch.no_grad():
            real, fake = self.teacher(z_t, t, cond).x0, self.critic(z_t, t, cond).x0
            size = (x - real).abs().flatten(1).mean(dim=1).clamp(min=1e-8)
            wanted = x - (fake - real) / expand_level(size, x)
        loss = 0.5 * (x - wanted).square().flatten(1).mean(dim=1)
        if self.adversary is not None:
            loss = loss + self.adversary.student_loss(z_t, t, cond)
        return loss

    def critic_loss(
        self, x0: Tensor, cond: Conditioning, *, generator: NoiseSource = None, made: Tensor | None = None
    ) -> Tensor:
        """The critic's loss, (B,): plain denoising of the student's videos. Of `x0` the shape alone is used.

        `made` is what `generate` made, where it is at hand.
        """
        x = self._made(x0, cond, generator, made)
        return DiffusionLoss(noise=self.noise)(
            self.critic, x, self._levels(x0, generator), cond, generator=generator
        )

    def discriminator_loss(
        self, x0: Tensor, cond: Conditioning, *, generator: NoiseSource = None, made: Tensor | None = None
    ) -> Tensor:
        """The discriminator's loss, (B,): softplus(-d(noised data)) + softplus(d(noised student)).

        `made` is what `generate` made, where it is at hand.

        Raises:
            ValueError: no adversary.
        """
        if self.adversary is None:
            raise ValueError(
                "this DistributionMatching has no adversary to train; give adversary=Adversary(...)"
            )
        x = self._made(x0, cond, generator, made)
        t = self._levels(x0, generator)
        real = self._noised(x0, t, "distillation/real", generator)
        fake = self._noised(x, t, "distillation/noise", generator)
        return self.adversary.own_loss(real, fake, t, cond)

    def generate(self, like: Tensor, cond: Conditioning, *, generator: NoiseSource = None) -> Tensor:
        """Videos of the student, shaped as `like`: from noise to a random step of its grid, whose x0 they are.

        Gradients pass through the last evaluation alone. All samples of a batch stop at the same step.
        """
        schedule, count = self.student.schedule, len(self.times) - 1
        u = draw_uniform(generator, like, key="distillation/step")[0]
        last = min(int(u * count), count - 1)
        z = initial(self._draw(like, "distillation/start", generator), schedule)
        with torch.no_grad():
            for index in range(last):
                x = self.student(z, self.times[index], cond).x0
                alpha, sigma = schedule.alpha_sigma(self.times[index + 1])
                z = alpha * x + sigma * self._draw(like, f"distillation/renoise {index}", generator)
        return self.student(z, self.times[last], cond).x0

    def _made(self, like: Tensor, cond: Conditioning, generator: NoiseSource, made: Tensor | None) -> Tensor:
        with torch.no_grad():
            return self.generate(like, cond, generator=generator) if made is None else made.detach()

    def _levels(self, like: Tensor, generator: NoiseSource) -> Tensor:
        return self.levels.quantile(draw_uniform(generator, like, key="distillation/time"))

    def _noised(self, x: Tensor, t: Tensor, key: str, generator: NoiseSource) -> Tensor:
        return diffuse(x, self._draw(x, key, generator), t, self.student.schedule)

    def _draw(self, like: Tensor, key: str, generator: NoiseSource) -> Tensor:
        return self.noise.draw(generator, like.shape, step=key, device=like.device, dtype=like.dtype)
