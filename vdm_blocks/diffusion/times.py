"""The times that a network is trained at: how they are distributed, and how evenly they are drawn."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vdm_blocks.diffusion.schedules import NoiseSchedule
from vdm_blocks.diffusion.values import check_numbers, check_value

__all__ = [
    "IndependentTimes",
    "LogNormalLaw",
    "LogitNormalLaw",
    "LowDiscrepancyTimes",
    "PerFrameTimes",
    "TimeLaw",
    "TimeSampler",
    "UniformLaw",
]


class TimeLaw(Protocol):
    """A distribution of times on [0, 1]."""

    def quantile(self, u: Tensor) -> Tensor:
        """The time below which a share `u` of the distribution lies."""


@dataclass(frozen=True, kw_only=True)
class UniformLaw:
    """Uniform between `low` and `high`."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(
                f"UniformLaw got low={self.low}, high={self.high}; it needs 0 <= low < high <= 1"
            )

    def quantile(self, u: Tensor) -> Tensor:
        """low + u (high - low)."""
        return self.low + u * (self.high - self.low)


def _check_normal(name: str, mean: float, std: float) -> None:
    if not math.isfinite(mean) or not 0 < std < math.inf:
        raise ValueError(f"{name} got mean={mean}, std={std}; the mean must be finite and std positive")


@dataclass(frozen=True, kw_only=True)
class LogitNormalLaw:
    """t = sigmoid(mean + std n), n standard normal: dense in the middle (arXiv 2403.03206, section 3.1)."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self)
        _check_normal("LogitNormalLaw", self.mean, self.std)

    def quantile(self, u: Tensor) -> Tensor:
        """sigmoid(mean + std ndtri(u))."""
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))


@dataclass(frozen=True, kw_only=True)
class LogNormalLaw:
    """log(sigma / alpha) = mean + std n, n standard normal (arXiv 2206.00364, table 1); -0.4 and 1 in EDM2.

    Levels beyond the ends of `schedule`, which says what time they are at, are moved to them.
    """

    schedule: NoiseSchedule
    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        check_numbers(self)
        _check_normal("LogNormalLaw", self.mean, self.std)

    def quantile(self, u: Tensor) -> Tensor:
        """The time at logsnr = -2 (mean + std ndtri(u))."""
        logsnr = -2 * (self.mean + self.std * torch.special.ndtri(u))
        clean, noisy = (
            self.schedule.logsnr(torch.tensor([0.0, 1.0], dtype=u.dtype, device=u.device)).detach().unbind()
        )
        return self.schedule.time(logsnr.clamp(noisy, clean)).clamp(0, 1)


class TimeSampler(Protocol):
    """Draws training times, by key: a draw depends on (seed, step, rank, world) alone and is the same on resumption."""

    def draw(self, batch: int, *, seed: int, step: int, rank: int = 0, world: int = 1) -> Tensor:
        """Times for `batch` samples, float32, (batch,) or (batch, T), on the CPU.

        Args:
            batch: samples on this process.
            seed: of the run.
            step: of training.
            rank: which share of the step's samples this is. With gradient accumulation the shares are
                the processes times the passes: rank = passing * processes + process.
            world: how many shares there are.
        """


def _generator(*key: int | str) -> torch.Generator:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def _check_share(batch: int, rank: int, world: int) -> None:
    check_value("batch", batch, int, "a whole number of samples")
    if batch < 1 or not 0 <= rank < world:
        raise ValueError(
            f"a draw of {batch} times for share {rank} of {world} is impossible; batch must be at least 1 and "
            "0 <= rank < world"
        )


@dataclass(frozen=True, kw_only=True)
class IndependentTimes:
    """Every time on its own."""

    law: TimeLaw = UniformLaw()

    def draw(self, batch: int, *, seed: int, step: int, rank: int = 0, world: int = 1) -> Tensor:
        """`batch` independent times of `law`."""
        _check_share(batch, rank, world)
        generator = _generator("independent times", seed, step, rank)
        u = torch.rand(batch, generator=generator, dtype=torch.float64, device="cpu")
        return self.law.quantile(u).float()


@dataclass(frozen=True, kw_only=True)
class LowDiscrepancyTimes:
    """One time in each equal share of the law: u_i = (u + i / N) mod 1 over the whole step (arXiv 2107.00630, I.1).

    N counts the samples of all processes and accumulation passes, whose times interleave, so that each of them
    spans [0, 1] too. Each time by itself has the law's distribution. Their order is shuffled, so that it tells nothing.

    >>> t = LowDiscrepancyTimes().draw(4, seed=0, step=7)
    >>> (t.sort().values * 4).int().tolist()
    [0, 1, 2, 3]
    """

    law: TimeLaw = UniformLaw()

    def draw(self, batch: int, *, seed: int, step: int, rank: int = 0, world: int = 1) -> Tensor:
        """`batch` of the step's `batch * world` times."""
        _check_share(batch, rank, world)
        common = torch.rand((), generator=_generator("offset", seed, step), dtype=torch.float64, device="cpu")
        order = torch.randperm(batch, generator=_generator("order", seed, step, rank), device="cpu")
        u = (common + (order * world + rank).double() / (batch * world)) % 1
        return self.law.quantile(u).float()


@dataclass(frozen=True, kw_only=True)
class PerFrameTimes:
    """A level for each frame, (batch, frames), as for diffusion forcing (arXiv 2407.01392).

    Raises:
        ValueError: fewer than one frame.
    """

    base: TimeSampler = IndependentTimes()
    frames: int

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.frames < 1:
            raise ValueError(f"PerFrameTimes got frames={self.frames}; it needs at least 1")

    def draw(self, batch: int, *, seed: int, step: int, rank: int = 0, world: int = 1) -> Tensor:
        """The times of `batch * frames` samples, one for each frame."""
        times = self.base.draw(batch * self.frames, seed=seed, step=step, rank=rank, world=world)
        return times.view(batch, self.frames)
