"""The same features, by torchmetrics and by us."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

torchmetrics = pytest.importorskip("torchmetrics", reason="vdm-blocks[dev]")

from torchmetrics.image.fid import FrechetInceptionDistance  # noqa: E402
from torchmetrics.image.kid import poly_mmd  # noqa: E402
from torchmetrics.retrieval import RetrievalHitRate  # noqa: E402

from vdm_blocks.metrics import FeatureBank, GaussianStats, frechet_distance, kernel_distance, r_precision  # noqa: E402


class Pixels(nn.Module):
    """The features are the first six pixels."""

    num_features = 6

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :6].double()


def sets() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(40, 3, 2, 2, generator=draw, dtype=torch.float64)
    y = torch.rand(55, 3, 2, 2, generator=draw, dtype=torch.float64) ** 2 + 0.1
    return x, y


def test_frechet_distance_agrees() -> None:
    x, y = sets()
    theirs = FrechetInceptionDistance(feature=Pixels(), normalize=True, input_img_size=(3, 2, 2)).set_dtype(
        torch.float64
    )
    ours = []
    for images, real in ((x, True), (y, False)):
        theirs.update(images, real=real)
        stats = GaussianStats(6, extractor="pixels")
        stats.update(Pixels()(images))
        ours.append(stats)
    assert frechet_distance(*ours) == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_kernel_distance_agrees() -> None:
    x, y = sets()
    banks = []
    for images in (x, y[:40]):  # theirs takes sets of one size
        bank = FeatureBank(6, extractor="pixels")
        bank.update(Pixels()(images))
        banks.append(bank)
    theirs = poly_mmd(banks[0].features, banks[1].features, degree=3, gamma=None, coef=1.0)
    assert kernel_distance(*banks) == pytest.approx(float(theirs), rel=1e-9)


@pytest.mark.parametrize("rank", [1, 3])
def test_r_precision_is_the_hit_rate_where_the_pool_is_everything(rank: int) -> None:
    draw = torch.Generator().manual_seed(0)
    texts = torch.randn(12, 5, generator=draw)
    videos = texts + torch.randn(12, 5, generator=draw)
    near = torch.nn.functional.cosine_similarity(videos[:, None], texts[None], dim=2)
    theirs = RetrievalHitRate(top_k=rank)(
        near.flatten(),
        torch.eye(12, dtype=torch.bool).flatten(),
        indexes=torch.arange(12).repeat_interleave(12),
    )
    ours = r_precision(texts, videos, pool=12, rank=rank)
    assert float(ours.mean()) == pytest.approx(float(theirs))
    assert 0.2 < float(theirs) < 1
