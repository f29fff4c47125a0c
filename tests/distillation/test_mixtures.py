"""On a mixture, where no map of the noise is affine: the perfect student, computed instead of trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from exact import ExactDenoiser, Mixture
from torch import Tensor

from vdm_blocks.denoisers.wrapper import with_x0
from vdm_blocks.diffusion import CosineSchedule
from vdm_blocks.distillation import Jumps, stochastic_jumps, two_step_target
from vdm_blocks.distillation.jumps import as_jumps
from vdm_blocks.sampling import DDIM, DistilledStochastic, StepRule, sample, uniform_times
from vdm_blocks.types import Conditioning, Denoised, Denoiser

SHAPE = (1, 1, 1, 1)
WEIGHTS, MEANS, STDS = ([0.5, 0.2, 0.3], [-0.7, 0.1, 0.8], [0.1, 0.05, 0.2])
DATA = Mixture(
    torch.tensor(WEIGHTS).double(),
    torch.tensor(MEANS).double().view(3, *SHAPE),
    torch.tensor(STDS).double().square().view(3, 1, 1),
    torch.zeros(3).long(),
)
COSINE = CosineSchedule()
TEACHER = ExactDenoiser(DATA, COSINE)
COUNT = 8000
NOISE = torch.randn(COUNT, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Perfect:
    """Answers each of its jumps with the two-step target itself, which is where training without error ends."""

    schedule = COSINE

    def __init__(self, teacher: Denoiser, jumps: Jumps) -> None:
        self.teacher, self.jumps = teacher, jumps

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        at = min(range(len(self.jumps)), key=lambda i: abs(self.jumps.t[i] - float(t)))
        assert abs(self.jumps.t[at] - float(t)) < 1e-9, "asked for a time that it never learned"
        mid, s = (torch.tensor(x[at], dtype=torch.float64) for x in (self.jumps.mid, self.jumps.s))
        return with_x0(COSINE, z_t, t, two_step_target(self.teacher, z_t, t, mid, s, cond))


def distilled(start: int, end: int, law: Callable[[int], Jumps]) -> Denoiser:
    student: Denoiser = TEACHER
    jumps: Jumps | None = None
    while start > end:
        start //= 2
        jumps = law(start) if jumps is None else law(start).by_way_of(jumps)
        student = Perfect(student, jumps)
    return student


def furthest(found: Tensor) -> float:
    """The largest distance of the empirical distribution from that of the data (Kolmogorov)."""
    x = found.flatten().sort().values
    exact = sum(w * torch.special.ndtr((x - m) / s) for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True))
    assert isinstance(exact, Tensor)
    return float((exact - (torch.arange(COUNT) + 0.5) / COUNT).abs().max())


def test_four_steps_land_where_the_teachers_64_land() -> None:
    few = NOISE[:16]
    reached = sample(distilled(64, 4, as_jumps), DDIM(), uniform_times(4), few, Conditioning())
    wanted = sample(TEACHER, DDIM(), uniform_times(64), few, Conditioning())
    torch.testing.assert_close(reached, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", [DDIM(), DistilledStochastic()], ids=["ddim", "stochastic"])
def test_four_steps_of_the_student_keep_the_marginals_of_a_mixture(rule: StepRule[Any]) -> None:
    """Within what so many draws can show (p = 0.001); the teacher in four steps is far outside of it."""
    law = as_jumps if isinstance(rule, DDIM) else stochastic_jumps
    draw = torch.Generator().manual_seed(1)
    bound = 1.95 / math.sqrt(COUNT)
    own = sample(distilled(128, 4, law), rule, uniform_times(4), NOISE, Conditioning(), generator=draw)
    assert furthest(own) < bound
    plain = sample(TEACHER, rule, uniform_times(4), NOISE, Conditioning(), generator=draw)
    assert furthest(plain) > 3 * bound
