from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from vdm_blocks.data.sample import Batch, Sample, Source, collate
from vdm_blocks.data.scenes import HeldOut, SpriteScene
from vdm_blocks.data.solid_source import SolidClips, SolidImages
from vdm_blocks.data.solids import SolidScene
from vdm_blocks.data.sprite_source import SpriteClips, SpriteImages
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.data.stream import Stream, View
from vdm_blocks.video.resize import resize_video, skip_frames

CASCADE = Path(__file__).parents[2] / "examples" / "cascade"
BASE = View(frames=4, height=12, width=20, fps=3.0)


@pytest.fixture(scope="module")
def sources() -> list[tuple[Source, float]]:
    pack = SpritePack.load(CASCADE / "sprites")
    held_out = HeldOut.load(CASCADE / "heldout.json")
    return [
        (SpriteClips(pack=pack, held_out=held_out), 0.4),
        (SpriteImages(pack=pack, held_out=held_out), 0.3),
        (SolidClips(held_out=held_out), 0.2),
        (SolidImages(held_out=held_out), 0.1),
    ]


def batches(stream: Stream, count: int, *, start: int = 0, workers: int = 0) -> list[Batch]:
    loader = iter(stream.loader(3, start=start, workers=workers))
    return [batch for batch in islice(loader, count) if isinstance(batch, Batch)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one core
def test_workers_and_resumption_change_nothing(sources: list[tuple[Source, float]]) -> None:
    stream = Stream(sources, BASE, seed=5)
    straight = batches(stream, 4)
    assert len(straight) == 4
    for other in (batches(stream, 4, workers=2), batches(stream, 2) + batches(stream, 2, start=6)):
        for one, two in zip(straight, other, strict=True):
            assert torch.equal(one.video, two.video)
            assert one.captions == two.captions
            assert torch.equal(one.images, two.images)
    assert not torch.equal(straight[0].video, batches(Stream(sources, BASE, seed=6), 1)[0].video)


def test_parts_of_a_batch_make_up_the_batch(sources: list[tuple[Source, float]]) -> None:
    stream = Stream(sources, BASE, seed=5)
    whole = list(islice(stream.loader(3, start=6), 2))
    first = list(islice(stream.loader(3, start=6, part=slice(0, 2)), 2))
    rest = list(islice(stream.loader(3, start=6, part=slice(2, 3)), 2))
    for batch, one, two in zip(whole, first, rest, strict=True):
        assert isinstance(batch, Batch)
        assert isinstance(one, Batch)
        assert isinstance(two, Batch)
        assert len(one.video) == 2
        assert torch.equal(batch.video, torch.cat([one.video, two.video]))
        assert batch.captions == one.captions + two.captions
    with pytest.raises(ValueError, match=r"slice\(3, 6, None\) of a batch of 3 holds no sample; give a part"):
        stream.loader(3, part=slice(3, 6))


def test_shares_are_kept_and_packs_say_so(sources: list[tuple[Source, float]]) -> None:
    stream = Stream(sources, View(frames=2, height=4, width=6, fps=3.0), seed=0)
    samples = [stream[i] for i in range(400)]
    kinds = [(isinstance(sample.scenes[0], SolidScene), sample.images) for sample in samples]
    for kind, share in {
        (False, False): 0.4,
        (False, True): 0.3,
        (True, False): 0.2,
        (True, True): 0.1,
    }.items():
        assert kinds.count(kind) / 400 == pytest.approx(share, abs=3 * (share * (1 - share) / 400) ** 0.5)
    for sample in samples:
        assert len(sample.captions) == len(sample.scenes) == (2 if sample.images else 1)
        assert sample.fps == (0 if sample.images else 3)
        assert sample.video.abs().max() <= 1
        if sample.images:
            assert not torch.equal(sample.video[:, 0], sample.video[:, 1])


def test_low_is_the_same_crop_seen_by_the_stage_before(sources: list[tuple[Source, float]]) -> None:
    view = View(frames=4, height=48, width=80, fps=6.0, crop=(24, 40), shrink=4, skip=2)
    stream = Stream(sources[:1], view, seed=0)
    corners = set()
    for index in range(12):
        sample = stream[index]
        assert sample.low is not None
        assert sample.raster is not None
        expected = resize_video(skip_frames(sample.video, 2), height=6, width=10, filter="area")
        torch.testing.assert_close(sample.low, expected)
        top, left, *_ = sample.raster.box
        assert top % 4 == left % 4 == 0
        corners.add((top, left))
    assert len(corners) > 6
    assert stream[0].video.shape == (3, 4, 24, 40)


def test_a_pack_keeps_its_pictures_and_goes_in_batches_apart(sources: list[tuple[Source, float]]) -> None:
    view = View(frames=4, height=8, width=12, fps=6.0, shrink=2, skip=2)
    clip, pack = Stream(sources[:1], view, seed=0)[0], Stream(sources[1:2], view, seed=0)[0]
    assert clip.low is not None
    assert pack.low is not None
    assert clip.low.shape == (3, 2, 4, 6)
    assert pack.low.shape == (3, 4, 4, 6)
    with pytest.raises(ValueError, match="share one too"):
        collate([clip, pack])


def test_one_scene_is_one_film_on_the_grids_of_all_stages(sources: list[tuple[Source, float]]) -> None:
    """What a later stage trains on, seen as the base sees it, is what the base trains on."""
    fine = View(frames=16, height=96, width=160, fps=6.0, shrink=4, skip=2)
    base = View(frames=8, height=24, width=40, fps=3.0)
    for index in range(4):
        high = Stream(sources[:1], fine, seed=0)[index]
        scene = high.scenes[0]
        assert isinstance(scene, SpriteScene)
        assert high.raster is not None
        assert high.low is not None
        same = Stream(sources[:1], base, seed=0)[index]
        assert same.scenes == high.scenes
        assert same.raster is not None
        assert same.raster.start == pytest.approx(high.raster.start)
        assert (same.video - high.low).abs().mean() < 0.02


def test_wrong_views_shares_and_batches_are_refused(sources: list[tuple[Source, float]]) -> None:
    with pytest.raises(ValueError, match="divide"):
        View(frames=4, height=48, width=80, fps=6.0, shrink=5)
    with pytest.raises(ValueError, match="larger"):
        View(frames=4, height=48, width=80, fps=6.0, crop=(64, 80))
    with pytest.raises(ValueError, match="shares"):
        Stream([(source, 0.0) for source, _ in sources], BASE, seed=0)
    with pytest.raises(ValueError, match="captions"):
        Sample(video=torch.zeros(3, 4, 2, 2), captions=("one",), fps=0.0, images=True)
    one = Sample(video=torch.zeros(3, 4, 2, 2), captions=("one",), fps=3.0)
    two = Sample(video=torch.zeros(3, 2, 2, 2), captions=("two",), fps=3.0)
    with pytest.raises(ValueError, match="share a shape"):
        collate([one, two])


def test_samples_alike_share_a_source_and_every_source_comes(sources: list[tuple[Source, float]]) -> None:
    stream = Stream(sources, BASE, seed=5, alike=3)
    kinds = [bool(stream[i].images) for i in range(36)]
    assert all(len(set(kinds[i : i + 3])) == 1 for i in range(0, 36, 3))
    assert len(set(kinds)) == 2
    with pytest.raises(ValueError, match="alike"):
        Stream(sources, BASE, seed=5, alike=0)


def test_views_and_samples_of_nothing_are_refused() -> None:
    for wrong in ({"skip": 0}, {"shrink": 0}, {"fps": 0.0}, {"frames": 0}):
        with pytest.raises(ValueError, match="shrink and skip of 1 or more, and fps > 0"):
            replace(BASE, **wrong)
    with pytest.raises(ValueError, match=r"a sample's video is \(3, T, H, W\); got \(3,\)"):
        Sample(video=torch.zeros(3), captions=("a cat",), fps=3.0, images=True)
