"""Averages with a power-function profile, and any such average reconstructed after training (arXiv 2312.02696)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vdm_blocks.diffusion.values import check_numbers

__all__ = ["PowerDecay", "Snapshot", "reconstruct"]


@dataclass(frozen=True, kw_only=True)
class PowerDecay:
    """decay = (1 - 1 / step)^(gamma + 1): weights from step tau count as tau^gamma (arXiv 2312.02696, section 3).

    The average is always the same part of the training so far, whatever its length.

    Raises:
        ValueError: gamma not above -1.

    >>> round(PowerDecay.of_width(0.10).gamma, 2)
    6.94
    """

    gamma: float

    def __post_init__(self) -> None:
        check_numbers(self)
        if not -1 < self.gamma < math.inf:
            raise ValueError(f"PowerDecay got gamma={self.gamma}; it must be above -1, e.g. 6.94 or 16.97")

    @classmethod
    def of_width(cls, std: float) -> PowerDecay:
        """The profile whose standard deviation is `std` of the training so far; 0.05 and 0.10 are worth keeping.

        Solves std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) by bisection.

        Raises:
            ValueError: a width outside (0, 0.288), which no gamma >= 0 has.
        """
        if not 0 < std < 12**-0.5:
            raise ValueError(
                f"PowerDecay.of_width got {std}; a width lies above 0 and below 0.288, e.g. 0.05 or 0.1"
            )
        low, high = 0.0, 2 / std
        for _ in range(200):
            middle = 0.5 * (low + high)
            wide = (middle + 1) / ((middle + 2) ** 2 * (middle + 3)) > std**2
            low, high = (middle, high) if wide else (low, middle)
        return cls(gamma=0.5 * (low + high))

    def __call__(self, step: int) -> float:
        """(1 - 1 / step)^(gamma + 1)."""
        return math.pow(1 - 1 / step, self.gamma + 1)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What an `EMA` with a `PowerDecay` held at some step.

    Attributes:
        decay: its profile.
        step: how many updates it had had.
        average: `EMA.state_dict()` then, or any of its tensors.
    """

    decay: PowerDecay
    step: int
    average: Mapping[str, Tensor]


def _inner(gamma_a: Tensor, step_a: Tensor, gamma_b: Tensor, step_b: Tensor) -> Tensor:
    """The inner product over time of two profiles, each tau^gamma up to its step and of integral 1."""
    ratio = step_a / step_b
    exponent = torch.where(step_a < step_b, gamma_b, -gamma_a)
    both = (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1)
    return both * ratio**exponent / torch.maximum(step_a, step_b)


def coefficients(snapshots: Sequence[Snapshot], decay: PowerDecay, step: int) -> Tensor:
    """The weights, of sum 1, with which the snapshots come nearest to the profile `decay` at `step`."""
    gammas = torch.tensor([s.decay.gamma for s in snapshots], dtype=torch.float64, device="cpu")
    steps = torch.tensor([float(s.step) for s in snapshots], dtype=torch.float64, device="cpu")
    gamma, end = (
        torch.tensor(decay.gamma, dtype=torch.float64, device="cpu"),
        torch.tensor(float(step), dtype=torch.float64, device="cpu"),
    )
    gram = _inner(gammas[:, None], steps[:, None], gammas, steps)
    wanted = _inner(gammas, steps, gamma, end)
    x: Tensor = torch.linalg.lstsq(gram, wanted[:, None], driver="gelsd").solution[:, 0]
    return x / x.sum()


def reconstruct(
    snapshots: Sequence[Snapshot], decay: PowerDecay, step: int | None = None
) -> dict[str, Tensor]:
    """The average that an EMA with the profile `decay` would hold at `step`, from what others held on the way.

    Least squares between profiles (arXiv 2312.02696, appendix C). Keep two profiles, of widths 0.05 and 0.10, and
    snapshots all through the training; the result is the better the more there are.

    Args:
        snapshots: of one training, in any order.
        decay: the profile that is wanted.
        step: at which point of the training; the last snapshot's if not given.

    Raises:
        ValueError: no snapshots, different tensors in them, or a step that they do not reach.
    """
    if not snapshots:
        raise ValueError("reconstruct needs snapshots; it was given none")
    names = set(snapshots[0].average)
    if any(set(s.average) != names for s in snapshots):
        raise ValueError("the snapshots do not hold the same tensors; give those of one module only")
    last = max(s.step for s in snapshots)
    step = last if step is None else step
    if not 1 <= step <= last or min(s.step for s in snapshots) < 1:
        raise ValueError(
            f"step {step} cannot be had from snapshots that end at {last}; it must lie between 1 and that"
        )
    weights = coefficients(snapshots, decay, step).tolist()
    out: dict[str, Tensor] = {}
    for name, example in snapshots[0].average.items():
        if not name.startswith("average."):
            newest = max(snapshots, key=lambda s: s.step)
            out[name] = torch.tensor(step, device="cpu") if name == "step" else newest.average[name].clone()
            continue
        total = torch.zeros_like(example, dtype=torch.float64)
        for weight, snapshot in zip(weights, snapshots, strict=True):
            total.add_(snapshot.average[name].to(total), alpha=weight)
        out[name] = total.to(example.dtype)
    return out
