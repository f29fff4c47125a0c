"""The jumps that a student learns to make at once, where its teacher takes two steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vdm_blocks.sampling.grids import check_times, uniform_times

__all__ = ["Jumps", "as_jumps", "ddim_jumps", "stochastic_jumps"]

_CLOSE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Jumps:
    """From each of `t` to its `s`, by way of `mid`; a jump to 0 ends at x0 itself.

    The teacher steps from t to mid and from mid to s. Where mid is t or s that is one step, the whole way.

    Attributes:
        t: where the jumps begin, noise being 1.
        mid: where the teacher halts.
        s: where they end.

    Raises:
        ValueError: no jumps, unequal counts, times that do not fall within [0, 1], or two jumps from one time, which
            no function of the time can learn.
    """

    t: tuple[float, ...]
    mid: tuple[float, ...]
    s: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.t or not len(self.t) == len(self.mid) == len(self.s):
            raise ValueError(
                f"Jumps got {len(self.t)} starts, {len(self.mid)} halts and {len(self.s)} ends; give as many of each, "
                "at least one"
            )
        for t, mid, s in self:
            if not (1 >= t >= mid >= s >= 0 and t > s):
                raise ValueError(
                    f"Jumps got one from {t} by way of {mid} to {s}; times fall from 1, noise, towards 0, clean"
                )
        if len(set(self.t)) != len(self.t):
            twice = next(t for t in self.t if self.t.count(t) > 1)
            raise ValueError(f"Jumps got two jumps from {twice}; a student can learn one from each time")

    def __iter__(self) -> Iterator[tuple[float, float, float]]:
        return iter(zip(self.t, self.mid, self.s, strict=True))

    def __len__(self) -> int:
        return len(self.t)

    def draw(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(t, mid, s), float64 and of u's shape: the jumps that numbers in [0, 1] stand for, all alike likely."""
        index = (u * len(self)).long().clamp(max=len(self) - 1)
        t, mid, s = (torch.tensor(x, dtype=torch.float64, device=u.device)[index] for x in self._columns())
        return t, mid, s

    def makes(self, start: float, end: float) -> bool:
        """Whether one of them leads from `start` to `end`; staying where one is takes none."""
        near = [abs(t - start) < _CLOSE and abs(s - end) < _CLOSE for t, _, s in self]
        return any(near) or abs(start - end) < _CLOSE

    def by_way_of(self, teacher: Jumps) -> Jumps:
        """The same jumps by steps that `teacher`, itself a student once, was trained for.

        Each by its own halt where the teacher makes both steps, and else in one step.

        Raises:
            ValueError: a jump that the teacher makes in neither way.

        >>> stochastic_jumps(4).mid[-1], stochastic_jumps(4).by_way_of(stochastic_jumps(8)).mid[-1]
        (0.125, 0.25)
        """
        halts = []
        for t, mid, s in self:
            if teacher.makes(t, mid) and teacher.makes(mid, s):
                halts.append(mid)
            elif teacher.makes(t, s):
                halts.append(t)
            else:
                raise ValueError(
                    f"the teacher makes the jump from {t:.6g} to {s:.6g} neither at once nor by way of {mid:.6g}; "
                    "halve the steps from one student to the next, all of them by the same kind of jumps"
                )
        return Jumps(t=self.t, mid=tuple(halts), s=self.s)

    def _columns(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        return self.t, self.mid, self.s


def ddim_jumps(times: Tensor) -> Jumps:
    """The N steps of a sampling grid of any start and end, each by way of its middle (arXiv 2202.00512, algorithm 2).

    Raises:
        ValueError: a grid that does not fall within [0, 1].

    >>> ddim_jumps(uniform_times(2))
    Jumps(t=(1.0, 0.5), mid=(0.75, 0.25), s=(0.5, 0.0))
    """
    times = check_times(times)
    t, s = times[:-1], times[1:]
    return Jumps(t=tuple(t.tolist()), mid=tuple(((t + s) / 2).tolist()), s=tuple(s.tolist()))


def stochastic_jumps(steps: int) -> Jumps:
    """What `DistilledStochastic` asks of a model on N steps: 2 / N from every time of the grid, 1 / N from its last.

    (arXiv 2210.02303, section 2.7.) The teacher's steps are those of N-step DDIM, and two of half the length on the
    last jump. A student of 2N steps makes the last jump at once: `by_way_of` sees to it. The student serves N / 2
    steps of DDIM as well.

    Raises:
        ValueError: fewer than one step.

    >>> stochastic_jumps(4)
    Jumps(t=(1.0, 0.75, 0.5, 0.25), mid=(0.75, 0.5, 0.25, 0.125), s=(0.5, 0.25, 0.0, 0.0))
    """
    t = uniform_times(steps)[:-1].tolist()
    following = [*t[1:], 0.5 / steps]
    ends = [*t[2:], 0.0, 0.0][: len(t)]
    return Jumps(t=tuple(t), mid=tuple(following), s=tuple(ends))


def as_jumps(steps: int | Jumps) -> Jumps:
    """A number as the steps of uniform DDIM; jumps as they are.

    Raises:
        ValueError: neither jumps nor a whole number of steps, at least 1.
    """
    return steps if isinstance(steps, Jumps) else ddim_jumps(uniform_times(steps))
