"""Anyone's folder of clips with captions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import torch

from vdm_blocks.data.raster import Raster
from vdm_blocks.data.sample import Sample
from vdm_blocks.data.scenes import generator
from vdm_blocks.video.pixels import from_bytes
from vdm_blocks.video.read import pick_frames, seconds_of
from vdm_blocks.video.resize import fit_video

CLIP_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".gif", ".webp")
_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class FolderClips:
    """Clips of any size, length and frame rate, each with a caption; a `Source` like the synthetic ones.

    A sample starts at a random moment of its clip, reaches the raster's frame rate by skipping frames, and is
    resized (antialiased bilinear) to cover the raster's full picture, then cropped. Every epoch shows every
    clip once, in an order that depends on the seed. Needs the extra `vdm-blocks[video]`.

    Args:
        clips: pairs of a path and its caption.
        random_crop: crop what the picture's shape leaves over at a random place; otherwise at the centre.
    """

    clips: tuple[tuple[Path, str], ...]
    random_crop: bool = False

    def __post_init__(self) -> None:
        if not self.clips:
            raise ValueError("a folder source needs at least one clip")

    @classmethod
    def load(cls, folder: str | Path, *, random_crop: bool = False) -> FolderClips:
        """Find clips below a folder, and captions in its `metadata.jsonl` or in a .txt beside each clip.

        A line of `metadata.jsonl` is {"file_name": "dog.mp4", "text": "a dog runs"}, the name relative to the folder.

        Raises:
            ValueError: when clips and captions do not match, both named; or there are none.
        """
        folder = Path(folder)
        found = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in CLIP_SUFFIXES and not path.name.startswith(".")
        }
        if (folder / "metadata.jsonl").is_file():
            captions = _read_metadata(folder / "metadata.jsonl")
        else:
            texts = {
                path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.txt")
            }
            stems = {Path(name).with_suffix("").as_posix(): name for name in found}
            captions = {
                stems.get(stem, f"{stem}.txt"): path.read_text(encoding="utf-8").strip()
                for stem, path in texts.items()
            }
        silent, lost = sorted(set(found) - set(captions)), sorted(set(captions) - set(found))
        empty = sorted(name for name, text in captions.items() if not text)
        if not found or silent or lost or empty:
            raise ValueError(
                f"{folder}: {len(found)} clips. Without a caption: {_few(silent)}. Captions without a clip: "
                f"{_few(lost)}. Empty captions: {_few(empty)}. Give each clip a line "
                '{"file_name": ..., "text": ...} in metadata.jsonl, or a .txt of its name beside it'
            )
        return cls(
            clips=tuple((path, captions[name]) for name, path in found.items()), random_crop=random_crop
        )

    @property
    def duration(self) -> float:
        """0: each clip has its own, and `sample` draws where to start."""
        return 0.0

    def sample(self, seed: int, index: int, raster: Raster) -> Sample:
        """Clip number `index` of an endless shuffle, on `raster`; the start of the raster is ignored.

        Raises:
            ValueError: naming the clip, when it does not decode or is too short.
        """
        path, text = self.clips[_shuffled(seed, index, len(self.clips))]
        rng = generator("clip", seed, index)
        needed = (raster.frames - 1) / raster.fps
        length = seconds_of(path)
        if length <= needed:
            raise ValueError(
                f"{path} lasts {length:.2f} s, and {raster.frames} frames at {raster.fps:g} fps need more than "
                f"{needed:.2f} s: ask for fewer frames or a higher rate, or take the clip out"
            )
        start = rng.uniform(0, length - needed)
        place = (rng.random(), rng.random()) if self.random_crop else (0.5, 0.5)
        top, left, rows, columns = raster.box
        frames = []
        for frame in pick_frames(path, fps=raster.fps, start=start, frames=raster.frames):
            picture = from_bytes(frame.unsqueeze(0))
            full = fit_video(picture, height=raster.height, width=raster.width, top=place[0], left=place[1])
            frames.append(full[..., top : top + rows, left : left + columns])
        if len(frames) < raster.frames - 1 or not frames:
            raise ValueError(
                f"{path} ends early: {len(frames)} of {raster.frames} frames decode from {start:.2f} s on"
            )
        frames += frames[-1:] * (raster.frames - len(frames))
        return Sample(video=torch.cat(frames, dim=1), captions=(text,), fps=raster.fps, raster=raster)


def _read_metadata(path: Path) -> dict[str, str]:
    captions: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            captions[str(entry["file_name"])] = str(entry["text"]).strip()
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f'{path}, line {number}: expected {{"file_name": ..., "text": ...}}, got {line[:80]!r}'
            ) from error
    return captions


def _few(names: list[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _shuffled(seed: int, index: int, count: int) -> int:
    """Entry `index` of an endless sequence in which each run of `count` holds every number once."""
    epoch, i = divmod(index, count)
    rng = generator("epoch", seed, epoch)
    step = rng.randint(1, count)
    while gcd(step, count) != 1:
        step = rng.randint(1, count)
    return (step * i + rng.randrange(count)) % count
