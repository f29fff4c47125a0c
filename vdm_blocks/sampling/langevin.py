"""A Langevin corrector after each step of another rule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vdm_blocks.diffusion.values import check_numbers
from vdm_blocks.sampling.rule import Draw, StepResult, StepRule, add_scaled_, is_clean, scales
from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["LangevinCorrector"]


@dataclass(frozen=True, kw_only=True)
class LangevinCorrector:
    """After `rule`, z_s <- z_s - (delta / 2) sigma_s eps + sqrt(delta) sigma_s n, `count` times.

    (arXiv 2204.03458, section 2, after arXiv 2011.13456, section 4.2.) One more evaluation each; none at s
    = 0. With an exact eps the variance that it keeps is too large by a factor of 1 / (1 - delta / 4) at most.

    Args:
        rule: the step that is corrected.
        delta: the step size; 0.1 in that paper.
        count: corrections for each step.

    Raises:
        ValueError: delta outside (0, 2), or a negative count.
    """

    rule: StepRule[Any]
    delta: float = 0.1
    count: int = 1

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 < self.delta < 2 or self.count < 0:
            raise ValueError(
                f"LangevinCorrector got delta={self.delta}, count={self.count}; delta lies in (0, 2), for example 0.1, "
                "and count is 0 or more"
            )

    def start(self, times: Tensor) -> Any:
        """The state of `rule`."""
        return self.rule.start(times)

    def __call__(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Tensor,
        s: Tensor,
        cond: Conditioning,
        state: Any,
        draw: Draw,
    ) -> StepResult[Any]:
        """One step of the rule, then the corrections."""
        result = self.rule(denoiser, z_t, t, s, cond, state, draw)
        if is_clean(s):
            return result
        z_s = result.z
        sigma = scales(denoiser.schedule, t, s).sigma_s
        for _ in range(self.count):
            eps = denoiser(z_s, s, cond).eps
            z_s = z_s - eps * (self.delta / 2 * sigma)
            add_scaled_(z_s, draw(z_s), math.sqrt(self.delta) * sigma)
        return StepResult(z_s, result.x0, result.state)
