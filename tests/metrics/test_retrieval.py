"""CLIP score by hand, and R-precision against every pool there is."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from vdm_blocks.metrics.retrieval import clip_score, r_precision


def test_clip_score_by_hand() -> None:
    texts = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    frames = torch.tensor([[[4.0, 3.0], [-3.0, -4.0]], [[5.0, 0.0], [1.0, 1.0]]])
    expected = torch.tensor([0.96 / 2, (1 + 0.5**0.5) / 2]).double()
    torch.testing.assert_close(clip_score(texts, frames), 100 * expected)
    torch.testing.assert_close(clip_score(texts, frames, weight=2.5), 2.5 * expected)


@pytest.mark.parametrize(("pool", "rank"), [(2, 1), (4, 1), (4, 2), (6, 3)])
def test_r_precision_is_the_mean_over_all_pools(pool: int, rank: int) -> None:
    draw = torch.Generator().manual_seed(0)
    texts = torch.randn(6, 4, generator=draw)
    videos = texts + 1.2 * torch.randn(6, 4, generator=draw)
    near = torch.nn.functional.cosine_similarity(videos[:, None], texts[None], dim=2)
    expected = []
    for i in range(6):
        pools = list(combinations([j for j in range(6) if j != i], pool - 1))
        hits = [sum(float(near[i, j] >= near[i, i]) for j in others) < rank for others in pools]
        expected.append(sum(hits) / len(pools))
    assert r_precision(texts, videos, pool=pool, rank=rank).tolist() == pytest.approx(expected)


def test_videos_that_say_nothing_are_found_as_often_as_chance_has_it() -> None:
    draw = torch.Generator().manual_seed(0)
    texts, videos = torch.randn(800, 16, generator=draw), torch.randn(800, 16, generator=draw)
    for rank in (1, 5):
        found = r_precision(texts, videos, pool=20, rank=rank)
        assert abs(float(found.mean()) - rank / 20) < 4 * float(found.std()) / 800**0.5


def test_frames_are_asked_one_by_one() -> None:
    draw = torch.Generator().manual_seed(0)
    texts = torch.randn(7, 4, generator=draw)
    frames = texts[:, None] + torch.randn(7, 3, 4, generator=draw)
    each = [r_precision(texts, frames[:, t], pool=4) for t in range(3)]
    torch.testing.assert_close(r_precision(texts, frames, pool=4), sum(each) / torch.tensor(3.0))
    assert not torch.equal(r_precision(texts, frames, pool=4), r_precision(texts, frames.mean(1), pool=4))


def test_order_and_batches_do_not_matter_and_a_set_finds_itself() -> None:
    draw = torch.Generator().manual_seed(0)
    texts, frames = torch.randn(9, 5, generator=draw), torch.randn(9, 3, 5, generator=draw)
    order = torch.randperm(9, generator=draw)
    for score in (clip_score, lambda t, v: r_precision(t, v, pool=4, rank=2)):
        torch.testing.assert_close(score(texts[order], frames[order]), score(texts, frames)[order])
    parts = [clip_score(t, f) for t, f in zip(texts.split(4), frames.split(4), strict=True)]
    torch.testing.assert_close(torch.cat(parts), clip_score(texts, frames))
    torch.testing.assert_close(clip_score(texts, texts[:, None]), torch.full((9,), 100.0).double())
    assert r_precision(texts, texts, pool=9).tolist() == [1.0] * 9


def test_equal_texts_are_no_hit() -> None:
    same = torch.ones(4, 3)
    assert r_precision(same, same, pool=3).tolist() == [0.0] * 4


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="pool <= 4"):
        r_precision(torch.eye(4), torch.eye(4), pool=5)
    with pytest.raises(ValueError, match="rank <= pool"):
        r_precision(torch.eye(4), torch.eye(4), pool=2, rank=3)
    with pytest.raises(ValueError, match=r"\(N, D\)"):
        r_precision(torch.eye(4), torch.eye(3), pool=2)
    with pytest.raises(ValueError, match=r"frames \(N, T, D\)"):
        clip_score(torch.eye(4), torch.eye(4))
