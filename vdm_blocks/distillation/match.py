"""What every distiller does: noise the data, draw from a key, and compare the student with a target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from vdm_blocks.denoisers.model import ModelDenoiser
from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.diffusion.noise import NoiseSource, draw_normal
from vdm_blocks.diffusion.predictions import X0, Prediction
from vdm_blocks.diffusion.weightings import Weighting, weight_at
from vdm_blocks.types import Conditioning, Denoised, Denoiser, check_denoiser

__all__ = ["Distiller", "Emphasis", "check_roles", "draw_uniform", "match"]

Emphasis = Callable[[Tensor, Conditioning], Tensor]
"""A weight, (B,) or (B, T), from the log-SNR and what the student is told; `ResidualNetwork.precision` is one."""


class Distiller(Protocol):
    """A method over roles: the student's loss on a batch, whatever the roles are made of."""

    def __call__(self, x0: Tensor, cond: Conditioning, *, generator: NoiseSource = None) -> Tensor:
        """The loss of each sample, (B,); gradients reach the student alone."""


def draw_uniform(generator: NoiseSource, like: Tensor, *, key: str) -> Tensor:
    """A uniform number for each sample of `like`, float64 (B,), on its device.

    Made from normal ones, so that any source will do, keyed noise too.
    """
    normal = draw_normal(generator, (like.shape[0], 1), step=key, device=like.device)
    uniform: Tensor = torch.special.ndtr(normal[:, 0].double())
    return uniform


def match(
    student: Denoiser,
    z_t: Tensor,
    t: Tensor,
    cond: Conditioning,
    target: Denoised,
    weighting: Weighting,
    emphasis: Emphasis | None = None,
) -> Tensor:
    """w_x(logsnr_t) |x0_student - x0_target|^2, averaged over a sample's entries and times `emphasis`: (B,).

    For a `ModelDenoiser` on the network's own output, with the weight that belongs there, so that nothing is lost
    to rounding where sigma is small; any other denoiser is judged by its x0.
    """
    schedule = student.schedule
    alpha, sigma = schedule.alpha_sigma(t)
    prediction: Prediction = X0
    if isinstance(student, ModelDenoiser):
        prediction = student.prediction
        answer, wanted = student.output(z_t, t, cond), prediction.target(target.x0, target.eps, alpha, sigma)
    else:
        answer, wanted = student(z_t, t, cond).x0, target.x0
    weight = weight_at(weighting, prediction, schedule, t)
    if emphasis is not None:
        weight = weight * emphasis(schedule.logsnr(t), cond).to(weight)
    error = _wide(answer) - _wide(wanted)
    return (expand_level(weight.detach(), error) * error.square()).flatten(1).mean(dim=1)


def check_roles(teacher: Denoiser, student: Denoiser) -> None:
    """Refuse a student that is its own teacher, in part or whole, or that reads times by another schedule.

    Raises:
        ValueError: either of them, or a bare network for a role.
    """
    check_denoiser(teacher)
    check_denoiser(student)
    shared = set(_parameters(teacher)) & set(_parameters(student))
    if teacher is student or shared:
        raise ValueError(
            "teacher and student share weights, so the teacher would change as the student learns; give "
            "copy.deepcopy of one of them"
        )
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    theirs, own = teacher.schedule.logsnr(t).detach(), student.schedule.logsnr(t).detach()
    if not torch.allclose(theirs.cpu(), own.cpu(), rtol=0, atol=1e-4):
        raise ValueError(
            f"teacher and student read times by different schedules: at t=0.5 the log-SNR is {float(theirs[4]):.4g} "
            f"for the teacher and {float(own[4]):.4g} for the student; give both the same schedule"
        )


def _parameters(role: Denoiser) -> list[nn.Parameter]:
    return list(role.parameters()) if isinstance(role, nn.Module) else []


def _wide(x: Tensor) -> Tensor:
    return x if x.element_size() >= 4 else x.float()
