from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vdm_blocks.data.clips import FolderClips
from vdm_blocks.data.raster import Raster
from vdm_blocks.video.write import write_video

TIMES = Raster(frames=4, height=12, width=20, fps=5.0)


def counting(frames: int, level: float = 0.0, height: int = 32, width: int = 48) -> torch.Tensor:
    """Flat frames whose green and blue count the frame number up from -1 by 0.1, and whose red is `level`."""
    video = torch.full((3, frames, height, width), level)
    video[1:] = (-1 + 0.1 * torch.arange(frames)).view(1, -1, 1, 1)
    return video


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "more").mkdir()
    names = ("a.mp4", "b.webp", "more/c.mkv")
    for i, name in enumerate(names):
        write_video(tmp_path / name, counting(20, level=i / 2 - 0.5, width=48 + 16 * i), fps=10 + 5 * i)
    lines = [json.dumps({"file_name": name, "text": f"clip {name}"}) for name in names]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_every_epoch_shows_every_clip_once_with_its_caption(folder: Path) -> None:
    source = FolderClips.load(folder)
    orders = set()
    for epoch in range(6):
        captions = [source.sample(0, 3 * epoch + i, TIMES).captions[0] for i in range(3)]
        assert sorted(captions) == ["clip a.mp4", "clip b.webp", "clip more/c.mkv"]
        orders.add(tuple(captions))
    assert len(orders) > 1


def test_frames_come_at_the_asked_rate_from_the_right_clip(folder: Path) -> None:
    source = FolderClips.load(folder)
    for index in range(6):
        sample = source.sample(0, index, TIMES)
        assert sample.video.shape == (3, 4, 12, 20)
        number = ["a", "b", "c"].index(Path(sample.captions[0].removeprefix("clip ")).stem)
        assert float(sample.video[0].mean()) == pytest.approx(number / 2 - 0.5, abs=0.06)
        shown = (sample.video[1:].mean(dim=(0, 2, 3)) + 1) / 0.1
        skipped = (10 + 5 * number) / 5
        torch.testing.assert_close(shown.diff(), torch.full((3,), skipped), atol=0.6, rtol=0)


def test_a_sample_depends_on_seed_and_index_alone(folder: Path) -> None:
    source = FolderClips.load(folder, random_crop=True)
    assert torch.equal(source.sample(3, 7, TIMES).video, source.sample(3, 7, TIMES).video)


def test_a_random_crop_moves_and_a_centre_crop_does_not(tmp_path: Path) -> None:
    ramp = torch.linspace(-1, 1, 96).view(1, 1, 1, -1).expand(3, 4, 32, 96).contiguous()
    write_video(tmp_path / "a.mkv", ramp, fps=10)
    (tmp_path / "a.txt").write_text("a ramp\n")
    still = Raster(frames=1, height=16, width=16, fps=10.0)
    means = {
        crop: {
            round(float(FolderClips.load(tmp_path, random_crop=crop).sample(0, i, still).video.mean()), 1)
            for i in range(8)
        }
        for crop in (False, True)
    }
    assert means[False] == {0.0}
    assert len(means[True]) > 3


def test_captions_beside_clips_are_read(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", counting(8), fps=10)
    (tmp_path / "a.txt").write_text(" a grey field \n")
    assert FolderClips.load(tmp_path).clips == ((tmp_path / "a.mp4", "a grey field"),)


def test_clips_and_captions_that_do_not_match_are_both_named(folder: Path) -> None:
    entries = (("a.mp4", "a"), ("z.mp4", "z"), ("b.webp", ""))
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in entries]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    expected = r"Without a caption: more/c\.mkv\. Captions without a clip: z\.mp4\."
    with pytest.raises(ValueError, match=expected) as error:
        FolderClips.load(folder)
    assert "Empty captions: b.webp" in str(error.value)
    (folder / "metadata.jsonl").write_text('{"file": "a.mp4"}\n')
    with pytest.raises(ValueError, match="line 1"):
        FolderClips.load(folder)
    (folder / "metadata.jsonl").unlink()
    (folder / "q.txt").write_text("q")
    with pytest.raises(ValueError, match=r"a\.mp4, b\.webp, more/c\.mkv.*q\.txt"):
        FolderClips.load(folder)


def test_a_clip_that_does_not_decode_or_is_too_short_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"nothing of a film" * 99)
    (tmp_path / "broken.txt").write_text("broken")
    with pytest.raises(ValueError, match=r"broken\.mp4"):
        FolderClips.load(tmp_path).sample(0, 0, TIMES)
    (tmp_path / "broken.mp4").unlink()
    (tmp_path / "broken.txt").rename(tmp_path / "short.txt")
    write_video(tmp_path / "short.mp4", counting(3), fps=10)
    with pytest.raises(ValueError, match=r"short\.mp4 lasts 0\.30 s"):
        FolderClips.load(tmp_path).sample(0, 0, TIMES)
