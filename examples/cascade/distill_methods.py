"""What distill.py trains a stage's student by: the loss of each method, on the stage's own grid."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from distilled_stages import is_guided, times_of
from stages import Plan
from torch import Tensor, nn

from vdm_blocks.denoisers import ModelDenoiser
from vdm_blocks.denoisers.residual import ResidualNetwork
from vdm_blocks.diffusion.noise import NoiseSource
from vdm_blocks.distillation import (
    Adversary,
    ConsistencyDistiller,
    Distiller,
    DistributionMatching,
    Emphasis,
    FeatureDiscriminator,
    GuidanceDistiller,
    Jumps,
    MultistepConsistencyDistiller,
    ProgressiveDistiller,
    ScaleRange,
)
from vdm_blocks.distillation.scale import guidance_scale_of
from vdm_blocks.models import UNetSpec
from vdm_blocks.types import Conditioning, Denoiser

CRITIC = 5
"""Updates of the critic for each of the student's."""
TOLD_APART = 1e-2
"""What telling data from the student's videos counts in the critic's loss."""


def emphasis_of(plan: Plan, student: ModelDenoiser) -> Emphasis | None:
    """How much an error counts: relative to the guidance scale, which what is aimed at grows with.

    Times the residual network's precision, as in training.
    """
    network = student.network
    own = network.precision if isinstance(network, ResidualNetwork) else None
    if not is_guided(plan):
        return own

    def by_scale(logsnr: Tensor, cond: Conditioning) -> Tensor:
        plain = logsnr.new_ones(logsnr.shape) if own is None else own(logsnr, cond)
        scale = guidance_scale_of(cond).to(plain)
        return plain / (scale[:, None] if plain.ndim > scale.ndim else scale).square()

    return by_scale


def guidance_of(
    plan: Plan, teacher: Denoiser, student: ModelDenoiser, scales: ScaleRange
) -> GuidanceDistiller:
    """Guidance into one evaluation."""
    return GuidanceDistiller(teacher, student, scales, noise=plan.noise, emphasis=emphasis_of(plan, student))


def halving_of(plan: Plan, teacher: Denoiser, student: ModelDenoiser, jumps: Jumps) -> Distiller:
    """Two steps in one."""
    return ProgressiveDistiller(
        teacher, student, jumps, noise=plan.noise, emphasis=emphasis_of(plan, student)
    )


def multistep_of(plan: Plan, teacher: Denoiser, student: ModelDenoiser, steps: int, fine: int) -> Distiller:
    """To the end of each of `steps` segments of a grid of `fine`; a guided teacher's error is no missing variance."""
    return MultistepConsistencyDistiller(
        teacher,
        student,
        steps,
        steps=times_of(plan, fine),
        adjust=0.0 if is_guided(plan) else 0.75,
        noise=plan.noise,
        emphasis=emphasis_of(plan, student),
    )


def consistency_of(plan: Plan, teacher: Denoiser, student: ModelDenoiser, fine: int) -> Distiller:
    """From any time of a grid of `fine` steps to the clean end."""
    times, emphasis = times_of(plan, fine), emphasis_of(plan, student)
    return ConsistencyDistiller(teacher, student, times, noise=plan.noise, emphasis=emphasis)


def direct_of(
    plan: Plan, method: str, teacher: Denoiser, student: ModelDenoiser, steps: int, fine: int
) -> tuple[nn.ModuleDict, Callable[[int], Distiller]]:
    """A method that goes straight to few steps: the roles that learn, and the loss of an update."""
    if method == "consistency":
        made = consistency_of(plan, teacher, student, fine)
        return nn.ModuleDict({"student": student}), lambda _update: made
    if method == "multistep":
        towards = multistep_of(plan, teacher, student, steps, fine)
        return nn.ModuleDict({"student": student}), lambda _update: towards
    critic = copy.deepcopy(student)
    head = discriminator_of(plan, critic) if method == "adversarial" else None  # the critic is part of it
    roles = nn.ModuleDict({"student": student, "critic": critic if head is None else head})
    adversary = None if head is None else Adversary(discriminator=head)
    matching = DistributionMatching(
        teacher, student, critic, times_of(plan, steps), adversary=adversary, noise=plan.noise
    )

    def of_critic(x0: Tensor, cond: Conditioning, *, generator: NoiseSource = None) -> Tensor:
        with torch.no_grad():
            made = matching.generate(x0, cond, generator=generator)
        loss = matching.critic_loss(x0, cond, generator=generator, made=made)
        if adversary is None:
            return loss
        told = matching.discriminator_loss(x0, cond, generator=generator, made=made)
        return loss + TOLD_APART * told

    return roles, lambda update: matching if update % (CRITIC + 1) == CRITIC else of_critic


def discriminator_of(plan: Plan, critic: ModelDenoiser) -> FeatureDiscriminator:
    """On what the critic's coarsest level puts out on its way down."""
    assert isinstance(plan.unet, UNetSpec)
    levels = plan.unet.levels
    own = f"levels.{len(levels) - 1}.down.{levels[-1].blocks - 1}"
    at = next(name for name, _ in critic.named_modules() if name.endswith(own))
    return FeatureDiscriminator(critic, at=at, channels=levels[-1].channels)
