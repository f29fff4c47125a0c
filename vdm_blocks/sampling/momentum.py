"""The momentum of adaptive projected guidance: what guidance remembers from step to step, as a state of the chain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vdm_blocks.denoisers.projected import Momentum
from vdm_blocks.diffusion.values import check_numbers
from vdm_blocks.sampling.rule import Draw, StepResult, StepRule
from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["GuidanceMomentum", "MomentumState"]


@dataclass(frozen=True)
class MomentumState:
    """What the next step is given.

    Attributes:
        before: the difference of the last guided evaluation, momentum included; None before the first.
        inner: the state of the rule that steps.
    """

    before: Tensor | None
    inner: Any


@dataclass(frozen=True, kw_only=True)
class GuidanceMomentum:
    """d <- d + beta d_before in `ProjectedGuidance` (arXiv 2410.02416, section 4), around any step rule.

    `sample` is given the denoiser that is to be guided, and this rule puts guidance, and what goes around it, on for
    each step, with the d of the evaluation before. That d is the rule's state, so a denoiser stays a function of its
    arguments, runs do not leak into one another, and a resumed run is the unbroken one to the bit.

    Args:
        rule: what steps.
        guide: from the denoiser and the step's momentum to the guided denoiser.
        beta: how much of the d before is added; between -0.75 and -0.25 in that paper, 0 is `ProjectedGuidance` alone.

    Raises:
        ValueError: beta outside (-1, 1), where the sum over the steps would not stay finite.

    >>> from vdm_blocks.denoisers.projected import ProjectedGuidance
    >>> from vdm_blocks.denoisers.thresholding import DynamicThreshold
    >>> from vdm_blocks.sampling.ddim import DDIM
    >>> GuidanceMomentum(rule=DDIM(), guide=lambda d, m: DynamicThreshold(ProjectedGuidance(d, 8.0, momentum=m))).beta
    -0.5
    """

    rule: StepRule[Any]
    guide: Callable[[Denoiser, Momentum], Denoiser]
    beta: float = -0.5

    def __post_init__(self) -> None:
        check_numbers(self)
        if not math.fabs(self.beta) < 1:
            raise ValueError(
                f"GuidanceMomentum got beta={self.beta}; it lies between -1 and 1, for example -0.5"
            )

    def start(self, times: Tensor) -> MomentumState:
        """Nothing to remember yet, and the state of `rule`."""
        return MomentumState(None, self.rule.start(times))

    def __call__(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Tensor,
        s: Tensor,
        cond: Conditioning,
        state: MomentumState,
        draw: Draw,
    ) -> StepResult[MomentumState]:
        """One guided step of the rule."""
        momentum = Momentum(self.beta, state.before)
        result = self.rule(self.guide(denoiser, momentum), z_t, t, s, cond, state.inner, draw)
        return StepResult(result.z, result.x0, MomentumState(momentum.before, result.state))
