"""Students whose best weights are known: one affine map for each time, fitted by least squares instead of trained."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from exact import Mixture
from torch import Tensor, nn

from vdm_blocks.denoisers.wrapper import with_x0
from vdm_blocks.distillation import Jumps, two_step_target
from vdm_blocks.sampling import StepRule
from vdm_blocks.types import Conditioning, Denoised, Denoiser, Schedule

__all__ = ["AffineTable", "chain_moments", "distilled"]

SHAPE = (1, 2, 1, 1)
SIZE = 2


class AffineTable(nn.Module):
    """x0 = A_t z_t + b_t, a map for every jump: on Gaussian data all exact denoisers and their targets are such."""

    def __init__(self, jumps: Jumps, schedule: Schedule) -> None:
        super().__init__()
        self.jumps, self.schedule = jumps, schedule
        self.maps = nn.Parameter(torch.zeros(len(jumps), SIZE + 1, SIZE, dtype=torch.float64))

    def index(self, t: Tensor) -> Tensor:
        """Which jump begins at `t`."""
        distance = (torch.tensor(self.jumps.t, dtype=torch.float64) - t.double()[..., None]).abs()
        assert float(distance.min(dim=-1).values.max()) < 1e-9, "asked for a time that it never learned"
        return distance.argmin(dim=-1)

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        maps = self.maps[self.index(t.expand(z_t.shape[0]))]
        flat = torch.cat([z_t.flatten(1), torch.ones(z_t.shape[0], 1).double()], dim=1)
        return with_x0(self.schedule, z_t, t, torch.einsum("bi,bij->bj", flat, maps).view_as(z_t))

    @torch.no_grad()
    def fit(self, target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> AffineTable:
        """Each map by least squares to target(z_t, t, mid, s), the last jump first."""
        points = torch.randn(8, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        flat = torch.cat([points.flatten(1), torch.ones(8, 1).double()], dim=1)
        for i in reversed(range(len(self.jumps))):
            t, mid, s = (
                torch.full((8,), x[i], dtype=torch.float64)
                for x in (self.jumps.t, self.jumps.mid, self.jumps.s)
            )
            self.maps[i] = torch.linalg.lstsq(flat, target(points, t, mid, s).flatten(1)).solution
        return self


def distilled(teacher: Denoiser, start: int, end: int, law: Callable[[int], Jumps]) -> AffineTable:
    """The student that perfect training would leave after halving from `start` to `end` steps."""
    jumps: Jumps | None = None
    student: AffineTable | None = None
    while start > end:
        start //= 2
        jumps = law(start) if jumps is None else law(start).by_way_of(jumps)
        now: Denoiser = teacher if student is None else student

        def target(z_t: Tensor, t: Tensor, mid: Tensor, s: Tensor, now: Denoiser = now) -> Tensor:
            return two_step_target(now, z_t, t, mid, s, Conditioning())

        student = AffineTable(jumps, teacher.schedule).fit(target)
    assert student is not None
    return student


@torch.no_grad()
def chain_moments(
    rule: StepRule[Any], denoiser: Denoiser, times: Tensor, data: Mixture
) -> tuple[Tensor, Tensor]:
    """Mean and covariance at the end of an affine chain from the exact marginal, with no sampling error.

    One row of the batch has no noise at all, and one for each coordinate of each draw has it at 1.
    """
    alpha, sigma = denoiser.schedule.alpha_sigma(times[0])
    root = torch.linalg.cholesky(alpha**2 * data.covariances[0] + sigma**2 * torch.eye(SIZE).double())
    rows = 1 + SIZE * len(times)
    z = (alpha * data.means).repeat(rows, 1, 1, 1, 1)
    z[1 : 1 + SIZE] += root.T.reshape(SIZE, *SHAPE)
    draws = 0

    def draw(like: Tensor) -> Tensor:
        nonlocal draws
        draws += 1
        noise = torch.zeros_like(like)
        at = 1 + SIZE * draws
        noise[at : at + SIZE] = torch.eye(SIZE).double().view(SIZE, *SHAPE)
        return noise

    state = rule.start(times)
    for t, s in pairwise(times):
        result = rule(denoiser, z, t, s, Conditioning(), state, draw)
        z, state = result.z, result.state
    columns = (z[1:] - z[0]).view(rows - 1, SIZE)
    return z[0].flatten(), columns.T @ columns
