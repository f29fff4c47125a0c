"""Streaming statistics are those of the whole set, however it came in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from vdm_blocks.metrics.features import FeatureBank, GaussianStats


@pytest.fixture
def features() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(37, 5, generator=draw, dtype=torch.float64) * 3 + 100


def gathered(parts: list[Tensor]) -> GaussianStats:
    stats = GaussianStats(5, extractor="x")
    for part in parts:
        stats.update(part)
    return stats


def test_statistics_are_the_whole_sets(features: Tensor) -> None:
    for parts in (
        [features],
        list(features.split(4)),
        list(features.flip(0).split(1)),
        [features[:0], features],
    ):
        stats = gathered(parts)
        assert stats.count == 37
        torch.testing.assert_close(stats.mean, features.mean(0), rtol=1e-12, atol=0)
        torch.testing.assert_close(stats.covariance, torch.cov(features.T), rtol=1e-9, atol=1e-9)


def test_merging_is_gathering(features: Tensor) -> None:
    one, two, empty = gathered([features[:9]]), gathered([features[9:]]), gathered([])
    for other in (two, empty):
        one.merge_from(other)
    torch.testing.assert_close(one.covariance, torch.cov(features.T), rtol=1e-9, atol=1e-9)
    bank, rest = FeatureBank(5, extractor="x"), FeatureBank(5, extractor="x")
    bank.update(features[:9])
    rest.update(features[9:])
    bank.merge_from(rest)
    assert bank.count == 37
    assert torch.equal(bank.features, features)


def test_a_bank_keeps_copies(features: Tensor) -> None:
    bank = FeatureBank(5, extractor="x")
    mine = features.clone()
    bank.update(mine)
    mine.zero_()
    assert torch.equal(bank.features, features)


@pytest.mark.parametrize("kind", [GaussianStats, FeatureBank])
def test_what_does_not_belong_is_refused(kind: type[GaussianStats] | type[FeatureBank]) -> None:
    bank = kind(3, extractor="x")
    for wrong in (torch.zeros(2, 4), torch.zeros(3)):
        with pytest.raises(ValueError, match=r"features are \(N, 3\)"):
            bank.update(wrong)
    with pytest.raises(ValueError, match="NaN"):
        bank.update(torch.full((1, 3), torch.nan))
    with pytest.raises(ValueError, match="width=0"):
        kind(0, extractor="x")
    assert bank.count == 0


def test_kinds_do_not_mix() -> None:
    with pytest.raises(ValueError, match="do not compare"):
        GaussianStats(3, extractor="x").merge_from(GaussianStats(3, extractor="y"))
    with pytest.raises(ValueError, match="do not compare"):
        FeatureBank(3, extractor="x").merge_from(FeatureBank(4, extractor="x"))
    with pytest.raises(ValueError, match="two features"):
        _ = gathered([]).covariance


def test_files_that_cannot_be_written_or_read_are_refused(tmp_path: Path) -> None:
    stats = GaussianStats(3, extractor="x")
    with pytest.raises(ValueError, match=r"cannot write .*; give a folder that is there"):
        stats.save(tmp_path / "none" / "stats.safetensors", dataset="videos")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ValueError, match="cannot be read"):
        GaussianStats.load(tmp_path / "text", extractor="x", dataset="videos")
