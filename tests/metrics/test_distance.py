"""Distances against closed forms between Gaussians, and against plain sums."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vdm_blocks.metrics.distance import (
    bootstrap_interval,
    frechet_by_count,
    frechet_distance,
    frechet_extrapolated,
    gaussian_distance,
    kernel_distance,
    kernel_subsets,
)
from vdm_blocks.metrics.features import FeatureBank, GaussianStats


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bank_of(features: Tensor, extractor: str = "x") -> FeatureBank:
    bank = FeatureBank(features.shape[1], extractor=extractor)
    bank.update(features)
    return bank


def stats_of(features: Tensor, extractor: str = "x") -> GaussianStats:
    stats = GaussianStats(features.shape[1], extractor=extractor)
    stats.update(features)
    return stats


def test_gaussians_with_common_axes() -> None:
    a, b = torch.tensor([1.0, 4.0, 0.0]).double(), torch.tensor([9.0, 0.25, 2.0]).double()
    turn, _ = torch.linalg.qr(normal(3, 3, seed=0))
    mean = torch.tensor([1.0, 2.0, -2.0]).double()
    expected = float(mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    got = gaussian_distance(torch.zeros(3), turn @ a.diag() @ turn.T, mean, turn @ b.diag() @ turn.T)
    assert got == pytest.approx(expected, rel=1e-12)


def test_gaussians_in_two_dimensions_whose_axes_differ() -> None:
    # For 2 x 2 matrices tr (A B)^1/2 = sqrt(tr A B + 2 sqrt(det A B)), by Cayley and Hamilton.
    a, b = (x @ x.T for x in (normal(2, 2, seed=1), normal(2, 2, seed=2)))
    root = math.sqrt(float((a @ b).trace()) + 2 * math.sqrt(float(torch.linalg.det(a @ b))))
    expected = float(a.trace() + b.trace()) - 2 * root
    zero = torch.zeros(2)
    assert gaussian_distance(zero, a, zero, b) == pytest.approx(expected, rel=1e-9)
    assert gaussian_distance(zero, b, zero, a) == pytest.approx(expected, rel=1e-9)


def test_a_set_and_itself() -> None:
    x = normal(40, 6, seed=0)
    assert frechet_distance(stats_of(x), stats_of(x.flip(0))) < 1e-9


def test_frechet_distance_of_a_moved_and_stretched_set() -> None:
    x = normal(50, 4, seed=0)
    y = 2 * x + torch.tensor([1.0, 0.0, -1.0, 3.0]).double()
    moved = float((y.mean(0) - x.mean(0)).square().sum())
    expected = moved + float(torch.cov(x.T).trace())  # covariance 4 C: tr(C + 4 C - 2 (2 C))
    assert frechet_distance(stats_of(x), stats_of(y)) == pytest.approx(expected, rel=1e-9)


def test_too_few_features_are_refused_with_the_number_needed() -> None:
    few, many = stats_of(normal(6, 6, seed=0)), stats_of(normal(7, 6, seed=1))
    with pytest.raises(ValueError, match="needs 7 or more"):
        frechet_distance(few, many)
    assert frechet_distance(few, many, singular=True) > 0
    with pytest.raises(ValueError, match="needs 2 of each"):
        kernel_distance(bank_of(normal(1, 6, seed=0)), bank_of(normal(7, 6, seed=0)))


def test_kernel_distance_is_its_sum() -> None:
    x, y = normal(5, 3, seed=0), normal(4, 3, seed=1)

    def k(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within = [
        sum(k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j) / (len(z) * (len(z) - 1))
        for z in (x, y)
    ]
    across = sum(k(a, b) for a in x for b in y) / 20
    expected = sum(within) - 2 * across
    assert kernel_distance(bank_of(x), bank_of(y)) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(bank_of(x.flip(0)), bank_of(y.flip(0))) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_has_no_bias_and_a_linear_kernel_is_the_distance_of_means() -> None:
    shift = torch.tensor([1.0, -1.0]).double()
    found = [
        kernel_distance(
            bank_of(normal(6, 2, seed=2 * i)),
            bank_of(normal(9, 2, seed=2 * i + 1) + shift),
            degree=1,
            scale=1.0,
            offset=0.0,
        )
        for i in range(400)
    ]
    mean = torch.tensor(found).double()
    assert abs(float(mean.mean()) - 2) < 4 * float(mean.std()) / 20  # |shift|^2 = 2
    assert min(found) < 0.5  # single values scatter around it


def test_sets_of_different_kinds_do_not_compare() -> None:
    x = normal(9, 3, seed=0)
    with pytest.raises(ValueError, match="do not compare"):
        frechet_distance(stats_of(x), stats_of(x, "other"))
    with pytest.raises(ValueError, match="do not compare"):
        kernel_distance(bank_of(x), bank_of(x, "other"))
    with pytest.raises(ValueError, match="do not compare"):
        bootstrap_interval(bank_of(x), stats_of(x, "other"))


def test_the_small_sample_bias_and_the_interval_are_seen() -> None:
    truth = stats_of(normal(4000, 4, seed=0))
    small = [frechet_distance(stats_of(normal(20, 4, seed=s)), truth) for s in range(1, 40)]
    large = [frechet_distance(stats_of(normal(200, 4, seed=s)), truth) for s in range(1, 40)]
    assert 5 < sum(small) / sum(large) < 20  # about 1 / count
    bank = bank_of(normal(200, 4, seed=1))
    low, high = bootstrap_interval(bank, truth, rounds=50)
    assert 0 < low < high
    assert (low, high) == bootstrap_interval(bank, truth, rounds=50)
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(bank, truth, level=1.0)


def test_the_interval_is_as_wide_as_fresh_sets_scatter() -> None:
    """Sets moved by 1 have distances about 1 that scatter by 2 / sqrt(count), of which resampling one set must know."""
    truth, move = stats_of(normal(20_000, 2, seed=0)), torch.tensor([1.0, 0.0]).double()
    fresh = [frechet_distance(stats_of(normal(200, 2, seed=s) + move), truth) for s in range(1, 200)]
    low, high = torch.tensor(fresh).double().quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    assert high - low == pytest.approx(2 * 1.96 * 2 / 200**0.5, rel=0.15)
    widths = []
    for seed in range(1, 6):
        one, other = bootstrap_interval(bank_of(normal(200, 2, seed=seed) + move), truth, rounds=150)
        widths.append(other - one)
        assert one < fresh[seed - 1] < other
    assert sum(widths) / 5 == pytest.approx(high - low, rel=0.15)


def test_subsets_print_what_kid_prints() -> None:
    x, y = bank_of(normal(60, 3, seed=0)), bank_of(normal(50, 3, seed=1) + 1)
    mean, std = kernel_subsets(x, y, subset=20, rounds=60)
    assert abs(mean - kernel_distance(x, y)) < 4 * std / 60**0.5
    whole, none = kernel_subsets(x, x, subset=60, rounds=2)
    assert whole == pytest.approx(kernel_distance(x, x), rel=1e-9)
    assert none < 1e-9
    with pytest.raises(ValueError, match="60 and 50"):
        kernel_subsets(x, y, subset=51)


def test_the_bias_falls_with_the_count_and_a_line_takes_most_of_it_away() -> None:
    """Sets of the reference's own distribution, N(0, 1) in four dimensions: the distance is 0, and few print more."""
    truth = GaussianStats(4, extractor="x")
    truth.update(
        2 * torch.cat([torch.eye(4), -torch.eye(4)]).double().repeat(2_000, 1)
    )  # mean 0, covariance 1
    torch.testing.assert_close(truth.covariance, torch.eye(4).double(), atol=1e-4, rtol=0)
    plain, extrapolated, fewer = [], [], []
    for seed in range(12):
        bank = bank_of(normal(60, 4, seed=seed))
        plain.append(frechet_distance(bank.stats(), truth))
        extrapolated.append(frechet_extrapolated(bank, truth, sizes=4, rounds=6))
        ((_, first), (_, last)) = frechet_by_count(bank, truth, counts=[8, 60], rounds=4)
        assert last == pytest.approx(plain[-1])
        fewer.append(first)
    assert sum(fewer) > 4 * sum(plain)
    assert abs(sum(extrapolated)) < sum(plain) / 2
    with pytest.raises(ValueError, match="the set's 60"):
        frechet_by_count(bank_of(normal(60, 4, seed=0)), truth, counts=[61])
    with pytest.raises(ValueError, match="two sizes"):
        frechet_extrapolated(bank_of(normal(60, 4, seed=0)), truth, sizes=1)
