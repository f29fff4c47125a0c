"""A reference is of the videos that it was measured on, or it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vdm_blocks.metrics import FeatureBank, Fingerprint, GaussianStats


def videos(count: int = 6) -> torch.Tensor:
    return torch.rand(count, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def of(*parts: torch.Tensor) -> str:
    mark = Fingerprint()
    for part in parts:
        mark.update(part)
    return mark.text


def test_order_batches_and_processes_do_not_matter() -> None:
    x = videos()
    whole = of(x)
    assert whole == of(x.flip(0)) == of(*x.split(2)) == of(x[:1], x[1:])
    one, two = Fingerprint(), Fingerprint()
    one.update(x[:4])
    two.update(x[4:])
    one.merge_from(two)
    assert (one.text, one.count) == (whole, 6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.uint8, torch.bool])
def test_any_dtype_has_a_fingerprint(dtype: torch.dtype) -> None:
    x = (255 * videos()).to(dtype)
    assert of(x) == of(x.clone()) != of(x[:5])


def test_any_other_set_is_another() -> None:
    x = videos()
    changed = x.clone()
    changed[3, 0, 0, 0, 0] += 1e-6
    others = [x[:5], torch.cat([x, x[:1]]), changed, x.double(), x.transpose(-1, -2).reshape(6, 3, 4, 2, 4)]
    found = {of(other) for other in others}
    assert len(found) == 5
    assert of(x) not in found


@pytest.mark.parametrize("kind", [GaussianStats, FeatureBank])
def test_a_saved_reference_serves_its_own_set_alone(
    kind: type[GaussianStats] | type[FeatureBank], tmp_path: Path
) -> None:
    x, path = videos(), tmp_path / "reference.safetensors"
    kept = kind(4, extractor="first row")
    kept.update(x[:, 0, 0, 0])
    kept.save(path, dataset=of(x))
    back = kind.load(path, extractor="first row", dataset=of(x.flip(0)))
    assert back.count == 6
    one, two = (y.stats() if isinstance(y, FeatureBank) else y for y in (kept, back))
    assert torch.equal(one.covariance, two.covariance)
    if isinstance(kept, FeatureBank) and isinstance(back, FeatureBank):
        assert torch.equal(kept.features, back.features)
    with pytest.raises(ValueError, match="has dataset"):
        kind.load(path, extractor="first row", dataset=of(x[:5]))
    with pytest.raises(ValueError, match="has extractor 'first row'"):
        kind.load(path, extractor="other", dataset=of(x))
    other = FeatureBank if kind is GaussianStats else GaussianStats
    with pytest.raises(ValueError, match="has kind"):
        other.load(path, extractor="first row", dataset=of(x))
    with pytest.raises(ValueError, match="does not exist"):
        kind.load(tmp_path / "none", extractor="first row", dataset=of(x))
    with pytest.raises(ValueError, match="say what was measured"):
        kept.save(path, dataset="")


def test_processes_that_shared_the_work_join_through_files(tmp_path: Path) -> None:
    x = videos()
    whole = GaussianStats(4, extractor="first row")
    whole.update(x[:, 0, 0, 0])
    joined = GaussianStats(4, extractor="first row")
    for rank, part in enumerate(x.split(2)):
        mine = GaussianStats(4, extractor="first row")
        mine.update(part[:, 0, 0, 0])
        mine.save(tmp_path / f"{rank}.safetensors", dataset=of(part))
    for rank, part in enumerate(x.split(2)):
        file = tmp_path / f"{rank}.safetensors"
        joined.merge_from(GaussianStats.load(file, extractor="first row", dataset=of(part)))
    assert joined.count == 6
    torch.testing.assert_close(joined.covariance, whole.covariance, atol=1e-12, rtol=1e-9)
