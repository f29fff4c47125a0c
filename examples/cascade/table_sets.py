"""How far a row's videos are from renders, as sets of embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import torch
from mean_error import mean_and_error
from table_read import Reading
from torch import Tensor

from vdm_blocks.metrics import FeatureBank, bootstrap_interval, frechet_distance, kernel_distance

At = tuple[int, int]
"""Number of the prompt, and seed."""
Readings = Mapping[At, Reading]
Figure = dict[str, float | None]
LEADING = 12
"""Directions of the leading Frechet distance."""
ROUNDS = 100
"""Of the bootstrap of a difference."""


class Renders:
    """The embeddings of renders that rows are compared with.

    Three distances: the kernel's, which is not biased; Frechet's of all numbers of an embedding, which needs more
    videos than these; and Frechet's in the `LEADING` directions in which the renders differ most from one another,
    u_i^T x with u_i the first eigenvectors of their covariance, which a row of few videos has as well.

    Args:
        embeddings: (M, D).
        extractor: names what embedded them.
    """

    def __init__(self, embeddings: Tensor, *, extractor: str) -> None:
        self.extractor = extractor
        self.whole = self.embedded(embeddings)

    @cached_property
    def axes(self) -> Tensor:
        """(D, LEADING) eigenvectors of the renders' covariance, those of the greatest values."""
        vectors: Tensor = torch.linalg.eigh(self.whole.stats().covariance)[1]
        return vectors[:, -LEADING:]

    @cached_property
    def led(self) -> FeatureBank:
        """The renders in those directions."""
        return self.lead(self.whole)

    def embedded(self, embeddings: Tensor) -> FeatureBank:
        """Embeddings (N, D) as a set."""
        return self._bank(_spread(embeddings))

    def bank(self, readings: Readings) -> FeatureBank:
        """The embeddings of a row, in the order of prompts and seeds."""
        return self.embedded(torch.tensor([r["embedding"] for _, r in sorted(readings.items())]))

    def banks(self, readings: Readings) -> dict[str, FeatureBank]:
        """What each distance is of, where there are enough videos for it."""
        bank = self.bank(readings)
        found = {"kernel": bank} if bank.count >= 2 else {}
        both = {"frechet": bank, "leading": self.lead(bank)}
        return found | {n: own for n, own in both.items() if min(own.count, self.whole.count) > own.width}

    def distance(self, name: str, bank: FeatureBank) -> float:
        """Of one of `banks`."""
        return self.kernel(bank) if name == "kernel" else self.frechet(bank)

    def lead(self, bank: FeatureBank) -> FeatureBank:
        """The embeddings in the leading directions."""
        return self._bank(bank.features @ self.axes)

    def kernel(self, bank: FeatureBank) -> float:
        """The kernel distance."""
        return kernel_distance(bank, self.whole)

    def frechet(self, bank: FeatureBank) -> float:
        """Frechet's, of all numbers of an embedding or, of a bank that was led there, in the leading directions."""
        return frechet_distance(bank.stats(), self._like(bank).stats())

    def distances(self, readings: Readings) -> dict[str, Figure]:
        """`kernel`, `frechet` and `leading`, where there are enough videos, each with its error.

        The kernel distance's is over the seeds' sets, of two videos or more each; Frechet's is a quarter of the 95%
        interval over videos drawn again.
        """
        found: dict[str, Figure] = {}
        for name, bank in self.banks(readings).items():
            if name == "kernel":
                sets = [self.bank(own) for own in by_seed(readings)]
                several = min(own.count for own in sets) >= 2
                error = mean_and_error([self.kernel(own) for own in sets])[1] if several else None
            else:
                low, high = bootstrap_interval(bank, self._like(bank).stats())
                error = (high - low) / 4
            found[name] = {"mean": self.distance(name, bank), "error": error, "n": bank.count}
        return found

    def differences(self, full: Readings, few: Readings) -> dict[str, tuple[float, float | None]]:
        """By how much `few` is farther off than `full`, of the same prompts and seeds, with the error of that.

        Of the kernel distance it is over the seeds' sets; of Frechet's, the standard deviation over pairs drawn again.
        """
        one, other = self.banks(full), self.banks(few)
        return {
            name: (self.distance(name, other[name]) - self.distance(name, bank), self._error(name, full, few))
            for name, bank in one.items()
            if name in other
        }

    def _error(self, name: str, full: Readings, few: Readings) -> float | None:
        if name == "kernel":
            pairs = list(zip(by_seed(full), by_seed(few), strict=True))
            if min(len(own) for own, _ in pairs) < 2:
                return None
            return mean_and_error([self.kernel(self.bank(b)) - self.kernel(self.bank(a)) for a, b in pairs])[
                1
            ]
        banks = [self.banks(own)[name] for own in (full, few)]
        draw = torch.Generator().manual_seed(0)
        apart = []
        for _ in range(ROUNDS):
            again = torch.randint(banks[0].count, (banks[0].count,), generator=draw)
            before, after = (self.frechet(self._bank(bank.features[again])) for bank in banks)
            apart.append(after - before)
        return float(torch.tensor(apart, dtype=torch.float64).std())

    def _like(self, bank: FeatureBank) -> FeatureBank:
        return self.whole if bank.width == self.whole.width else self.led

    def _bank(self, features: Tensor) -> FeatureBank:
        width = features.shape[1]
        bank = FeatureBank(width, extractor=f"{self.extractor} {width}")
        bank.update(features)
        return bank


def by_seed(readings: Readings) -> list[Readings]:
    """The readings of each seed."""
    seeds = sorted({seed for _, seed in readings})
    return [{at: r for at, r in readings.items() if at[1] == seed} for seed in seeds]


def _spread(embeddings: Tensor) -> Tensor:
    """Embeddings of unit length, stretched to unit mean square."""
    unit: Tensor = torch.nn.functional.normalize(embeddings.double(), dim=1)
    return unit * math.sqrt(embeddings.shape[1])
