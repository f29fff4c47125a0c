from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vdm_blocks.video.read import frame_rate, read_frames, read_video
from vdm_blocks.video.sheet import contact_sheet
from vdm_blocks.video.write import VideoWriter, write_video


def greys(frames: int = 8, height: int = 16, width: int = 24) -> Tensor:
    """Frame i is flat grey of level i / (frames - 1): a frame tells its number."""
    return torch.linspace(-1, 1, frames).view(1, -1, 1, 1).expand(3, -1, height, width).contiguous()


def numbers(video: Tensor, frames: int = 8) -> list[int]:
    return ((video.mean(dim=(0, 2, 3)) + 1) / 2 * (frames - 1)).round().int().tolist()


def smooth(height: int = 32, width: int = 48) -> Tensor:
    x = torch.linspace(-0.9, 0.9, width).view(1, 1, 1, -1)
    y = torch.linspace(-0.9, 0.9, height).view(1, 1, -1, 1)
    t = torch.linspace(-0.5, 0.5, 6).view(1, -1, 1, 1)
    return torch.cat(torch.broadcast_tensors(x + 0 * t, y + 0 * x, 0 * x + t), dim=0).clamp(-1, 1)


def psnr(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(4 / float((a - b).square().mean()))


@pytest.mark.parametrize(
    ("suffix", "least"), [(".mp4", 34.0), (".webp", 32.0), (".png", 50.0), (".gif", 22.0)]
)
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str, least: float) -> None:
    video = smooth()
    write_video(tmp_path / f"film{suffix}", video, fps=10)
    film = read_video(tmp_path / f"film{suffix}")
    assert film.video.shape == video.shape
    assert film.fps == pytest.approx(10)
    assert psnr(film.video, video) > least


def test_saturated_colours_survive_h264(tmp_path: Path) -> None:
    corners = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [-1, 1, 1], [1, -1, 1]])
    video = corners.T.view(3, 6, 1, 1).expand(3, 6, 32, 32).contiguous()
    write_video(tmp_path / "film.mp4", video, fps=6, crf=4)
    assert (read_video(tmp_path / "film.mp4").video - video).abs().max() < 0.1


@pytest.mark.parametrize("suffix", [".mp4", ".webp"])
@pytest.mark.parametrize(
    ("fps", "shown"),
    [(12.0, [0, 1, 2, 3, 4, 5, 6, 7]), (6.0, [0, 2, 4, 6]), (4.0, [0, 3, 6]), (24.0, [0, 0, 1, 1, 2, 2])],
)
def test_a_frame_rate_is_reached_by_skipping_and_repeating(
    tmp_path: Path, suffix: str, fps: float, shown: list[int]
) -> None:
    write_video(tmp_path / f"film{suffix}", greys(), fps=12)
    film = read_video(tmp_path / f"film{suffix}", fps=fps)
    assert numbers(film.video)[: len(shown)] == shown
    assert film.video.shape[1] == round(8 * fps / 12 + 0.4)


@pytest.mark.parametrize("suffix", [".mp4", ".webp"])
@pytest.mark.parametrize("start", [0, 1, 3, 7])
def test_start_and_frames_pick_the_right_ones(tmp_path: Path, suffix: str, start: int) -> None:
    write_video(tmp_path / f"film{suffix}", greys(), fps=12)
    film = read_video(tmp_path / f"film{suffix}", start=start / 12, frames=3)
    assert numbers(film.video) == list(range(start, min(start + 3, 8)))


def test_chunks_make_the_same_file_as_the_whole(tmp_path: Path) -> None:
    video = smooth()
    write_video(tmp_path / "whole.mp4", video, fps=10)
    with VideoWriter(tmp_path / "chunks.mp4", fps=10) as writer:
        for frame in range(6):
            writer.write(video[:, frame : frame + 1])
    assert (tmp_path / "chunks.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize("suffix", [".mp4", ".webp"])
def test_a_failure_leaves_nothing_and_spares_what_was_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film{suffix}"
    path.write_bytes(b"older")

    def fail_half_way() -> None:
        with VideoWriter(path, fps=10) as writer:
            writer.write(smooth())
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail_half_way()
    assert path.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_broken_film_is_named(tmp_path: Path) -> None:
    for suffix in (".mp4", ".webp", ".gif"):
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(b"not a film at all" * 50)
        with pytest.raises(ValueError, match=f"broken{suffix}"):
            read_video(path)
        with pytest.raises(ValueError, match=f"absent{suffix}"):
            read_video(tmp_path / f"absent{suffix}")


def test_a_film_cut_short_is_named_or_read_as_far_as_it_goes(tmp_path: Path) -> None:
    write_video(tmp_path / "whole.mkv", smooth(64, 96), fps=10)
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "short.mkv").write_bytes(data[: len(data) // 40])
    with pytest.raises(ValueError, match=r"short\.mkv"):
        read_video(tmp_path / "short.mkv")


def test_wrong_input_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        write_video(tmp_path / "odd.mp4", torch.zeros(3, 2, 15, 24), fps=3)
    with pytest.raises(ValueError, match=r"video\[i\]"):
        write_video(tmp_path / "batch.mp4", torch.zeros(2, 3, 2, 16, 24), fps=3)
    with pytest.raises(ValueError, match="folder"):
        write_video(tmp_path / "nowhere" / "film.mp4", smooth(), fps=3)
    with pytest.raises(ValueError, match="no frames"), VideoWriter(tmp_path / "empty.mp4", fps=3):
        pass
    write_video(tmp_path / "film.mp4", smooth(), fps=10)
    with pytest.raises(ValueError, match="no frame at"):
        read_video(tmp_path / "film.mp4", start=60.0)
    assert {p.name for p in tmp_path.iterdir()} == {"film.mp4"}


def test_a_stream_of_frames_knows_its_times(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", greys(), fps=12)
    times = [time for time, _ in read_frames(tmp_path / "film.mp4")]
    assert times == pytest.approx([i / 12 for i in range(8)], abs=1e-3)
    assert frame_rate(tmp_path / "film.mp4") == pytest.approx(12)


def test_a_sheet_has_a_row_a_clip_and_a_column_a_frame(tmp_path: Path) -> None:
    from PIL import Image

    contact_sheet(tmp_path / "sheet.png", [greys(), greys(4)], ["one", "two"], frames=8, cell_height=32)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 48, 2 * (32 + 14))
        row = [sheet.getpixel((48 * i + 24, 14 + 16)) for i in range(8)]
    assert row == [(round(255 * i / 7),) * 3 for i in range(8)]
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]
