"""How far apart two sets of features are: Frechet and kernel distance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vdm_blocks.metrics.features import FeatureBank, GaussianStats, check_same

__all__ = [
    "bootstrap_interval",
    "frechet_by_count",
    "frechet_distance",
    "frechet_extrapolated",
    "gaussian_distance",
    "kernel_distance",
    "kernel_subsets",
]


def gaussian_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2), between N(m_a, A) and N(m_b, B).

    The squared 2-Wasserstein distance of two Gaussians (Dowson and Landau 1982, eq. 4); the roots are of symmetric
    matrices, by eigenvalues, so nothing becomes complex.

    >>> one, two = torch.eye(3, dtype=torch.float64), 4 * torch.eye(3, dtype=torch.float64)
    >>> round(gaussian_distance(torch.zeros(3), one, torch.ones(3), two), 6)  # 3 (1 + (2 - 1)^2)
    6.0
    """
    values, vectors = torch.linalg.eigh(cov_a.double())
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    inner = torch.linalg.eigvalsh(root @ cov_b.double() @ root).clamp(min=0).sqrt().sum()
    apart = (mean_a.double() - mean_b.double()).square().sum()
    return max(0.0, float(apart + cov_a.double().trace() + cov_b.double().trace() - 2 * inner))


def frechet_distance(a: GaussianStats, b: GaussianStats, *, singular: bool = False) -> float:
    """`gaussian_distance` of two sets' means and covariances: FID and FVD (arXiv 1706.08500, eq. 6; 1812.01717).

    It is biased upwards, roughly as 1 / count, so compare only sets of the same size, and never a number from one
    paper with a number from another.

    Args:
        a, b: the sets.
        singular: allow a set with no more features than their width, whose covariance is singular and whose
            distance is mostly bias.

    Raises:
        ValueError: features of different kinds, or too few of them.
    """
    check_same(a, b)
    for stats in (a, b):
        needed = 2 if singular else stats.width + 1
        if stats.count < needed:
            raise ValueError(
                f"a set has {stats.count} features of width {stats.width}; the covariance needs {needed} or more. "
                "Take more videos or a narrower extractor"
            )
    return gaussian_distance(a.mean, a.covariance, b.mean, b.covariance)


def kernel_distance(
    a: FeatureBank, b: FeatureBank, *, degree: int = 3, scale: float | None = None, offset: float = 1.0
) -> float:
    """The squared maximum mean discrepancy under k(x, y) = (scale x.y + offset)^degree, unbiased (arXiv 1801.01401).

        mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j)

    Its expectation does not depend on the sizes of the sets, and is 0 for sets of one distribution, so a single value
    may be negative.

    Args:
        a, b: the sets.
        degree: 3 for KID.
        scale: None is 1 / width, as in KID.
        offset: 1 for KID.

    Raises:
        ValueError: features of different kinds, or a set of fewer than two.
    """
    check_same(a, b)
    if min(a.count, b.count) < 2:
        raise ValueError(
            f"the sets have {a.count} and {b.count} features; an unbiased distance needs 2 of each"
        )
    gain = 1 / a.width if scale is None else scale
    x, y = a.features, b.features

    def kernel(left: Tensor, right: Tensor) -> Tensor:
        return (gain * left @ right.T + offset) ** degree

    def within(z: Tensor) -> Tensor:
        k = kernel(z, z)
        return (k.sum() - k.diagonal().sum()) / (len(z) * (len(z) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def bootstrap_interval(
    bank: FeatureBank, reference: GaussianStats, *, rounds: int = 200, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The interval that holds `level` of the Frechet distances of resampled sets, drawn with replacement.

    Drawing with replacement adds to the bias of the distance, so the interval lies above it: read its width.

    Raises:
        ValueError: as `frechet_distance`; a level outside (0, 1), or fewer than two rounds.
    """
    if not 0 < level < 1 or rounds < 2:
        raise ValueError(f"level lies in (0, 1) and rounds is 2 or more; got {level} and {rounds}")
    check_same(bank, reference)
    draw = torch.Generator().manual_seed(seed)
    features = bank.features
    found = []
    for _ in range(rounds):
        stats = GaussianStats(bank.width, extractor=bank.extractor)
        stats.update(features[torch.randint(len(features), (len(features),), generator=draw)])
        found.append(frechet_distance(stats, reference))
    tail = (1 - level) / 2
    low, high = (
        torch.tensor(found, dtype=torch.float64).quantile(torch.tensor([tail, 1 - tail]).double()).tolist()
    )
    return low, high


def kernel_subsets(
    a: FeatureBank, b: FeatureBank, *, subset: int = 1000, rounds: int = 100, seed: int = 0
) -> tuple[float, float]:
    """Mean and standard deviation of `kernel_distance` over random subsets: how KID is printed (arXiv 1801.01401).

    Subsets are drawn without replacement: a feature drawn twice would make a pair with itself, and the distance biased.
    The deviation is that of one subset of `subset` features, so sets of n are known sqrt(n / subset) times better.

    Args:
        a, b: the sets.
        subset: features of each in a round.
        rounds: how many.
        seed: of the draws.

    Raises:
        ValueError: features of different kinds, or sets smaller than the subset.
    """
    check_same(a, b)
    if not 2 <= subset <= min(a.count, b.count) or rounds < 2:
        raise ValueError(
            f"the sets have {a.count} and {b.count} features; subset={subset} needs as many of each, "
            f"is 2 or more, and so is rounds={rounds}"
        )
    draw = torch.Generator().manual_seed(seed)
    found = [kernel_distance(_some(a, subset, draw), _some(b, subset, draw)) for _ in range(rounds)]
    each = torch.tensor(found, dtype=torch.float64)
    return float(each.mean()), float(each.std())


def frechet_by_count(
    bank: FeatureBank, reference: GaussianStats, *, counts: Sequence[int], rounds: int = 10, seed: int = 0
) -> list[tuple[int, float]]:
    """The mean Frechet distance of random subsets of each size: the small-sample bias, to be looked at.

    A set of the reference's own distribution has distance 0, and yet a small one prints a number far above it. Unless
    the last two sizes agree within what you compare, the comparison is one of sample sizes.

    Args:
        bank: the set.
        reference: what it is compared with.
        counts: sizes.
        rounds: subsets of each size.
        seed: of the draws.

    Raises:
        ValueError: as `frechet_distance`; a size beyond the set.
    """
    if not counts or max(counts) > bank.count or rounds < 1:
        raise ValueError(
            f"counts={tuple(counts)} lie between {bank.width + 1} and the set's {bank.count}; "
            f"rounds={rounds} is 1 or more"
        )
    draw = torch.Generator().manual_seed(seed)
    found = []
    for count in counts:
        each = [frechet_distance(_some(bank, count, draw).stats(), reference) for _ in range(rounds)]
        found.append((count, sum(each) / rounds))
    return found


def frechet_extrapolated(
    bank: FeatureBank, reference: GaussianStats, *, sizes: int = 8, rounds: int = 10, seed: int = 0
) -> float:
    """The Frechet distance that infinitely many samples would have, from a line through those of fewer.

        d(count) = d(infinity) + slope / count,  by least squares over `sizes` sizes from half the set to all of it

    (arXiv 1911.07023, section 4). The bias of the reference stays: give it as many samples as there are.

    Raises:
        ValueError: as `frechet_distance` of half the set; fewer than two sizes.
    """
    if sizes < 2:
        raise ValueError(f"a line needs two sizes or more; got {sizes}")
    steps = torch.linspace(bank.count / 2, bank.count, sizes).round().int().tolist()
    points = frechet_by_count(bank, reference, counts=steps, rounds=rounds, seed=seed)
    x = torch.tensor([1 / count for count, _ in points], dtype=torch.float64)
    y = torch.tensor([distance for _, distance in points], dtype=torch.float64)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return float(y.mean() - slope * x.mean())


def _some(bank: FeatureBank, count: int, draw: torch.Generator) -> FeatureBank:
    some = FeatureBank(bank.width, extractor=bank.extractor)
    some.update(bank.features[torch.randperm(bank.count, generator=draw)[:count]])
    return some
