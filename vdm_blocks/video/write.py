"""Writing video files: all of one, or none of it."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from vdm_blocks.video.extras import import_av, import_pillow
from vdm_blocks.video.pixels import to_bytes
from vdm_blocks.video.read import PICTURES


def write_video(path: str | Path, video: Tensor, *, fps: float, crf: int = 16) -> None:
    """Write (3, T, H, W) in [-1, 1] to .mp4 and the like (H.264), or .gif, .webp, .png (animated).

    The file appears when it is complete. Needs the extra `vdm-blocks[video]`.

    Args:
        path: where to; the suffix says how.
        video: (3, T, H, W).
        fps: frames a second.
        crf: H.264's constant rate factor: 0 to 51, higher is smaller and worse.

    Raises:
        ValueError: for other shapes, odd sizes with H.264, or a folder that does not exist.
    """
    with VideoWriter(path, fps=fps, crf=crf) as writer:
        for chunk in torch.split(video, 8, dim=-3):
            writer.write(chunk)


class VideoWriter:
    """Write a film chunk by chunk, so that no second copy of it is needed.

    Inside a `with`, `write` takes (3, T, H, W) chunks in [-1, 1]. Frames go to a temporary file beside `path`;
    leaving the `with` renames it to `path`, leaving by an exception deletes it.

    Args:
        path: where to; .gif, .webp, .png go through Pillow, all else through PyAV as H.264, yuv420p.
        fps: frames a second.
        crf: H.264's constant rate factor.
    """

    def __init__(self, path: str | Path, *, fps: float, crf: int = 16) -> None:
        self.path = Path(path)
        self.fps = fps
        self.crf = crf
        self.frames = 0
        if not fps > 0 or not 0 <= crf <= 51:
            raise ValueError(f"fps is above zero and crf 0 to 51, got {fps} and {crf}")
        if not self.path.parent.is_dir() or not self.path.suffix:
            raise ValueError(f"{self.path}: needs a folder that exists and a suffix such as .mp4 or .gif")
        self._partial = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix}")
        self._size: tuple[int, int] | None = None
        self._container: Any = None
        self._stream: Any = None
        self._pictures: list[Any] = []

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, chunk: Tensor) -> None:
        """Append (3, T, H, W) in [-1, 1].

        Raises:
            ValueError: when the chunk's shape is another, or its size differs from the first one's.
        """
        data = to_bytes(chunk)
        size = (data.shape[1], data.shape[2])
        if self._size is None:
            self._open(size)
        if size != self._size:
            raise ValueError(f"{self.path}: its frames are {self._size}, and a chunk of {size} came")
        for frame in data:
            self._append(frame)
            self.frames += 1

    def _open(self, size: tuple[int, int]) -> None:
        if self.path.suffix.lower() not in PICTURES:
            if size[0] % 2 or size[1] % 2:
                raise ValueError(
                    f"{self.path}: yuv420p halves both sides, so they must be even, got {size[0]} x {size[1]}; "
                    "resize or crop, or write a .gif or .webp"
                )
            av = import_av()
            self._container = av.open(str(self._partial), "w", options={"movflags": "+faststart"})
            rate = Fraction(self.fps).limit_denominator(100_000)
            self._stream = self._container.add_stream("libx264", rate=rate, options={"crf": str(self.crf)})
            self._stream.height, self._stream.width = size
            self._stream.pix_fmt = "yuv420p"
        self._size = size

    def _append(self, frame: Tensor) -> None:
        if self._container is None:
            self._pictures.append(import_pillow().fromarray(frame.numpy()))
            return
        picture = import_av().VideoFrame.from_ndarray(frame.numpy(), format="rgb24")
        for packet in self._stream.encode(picture):
            self._container.mux(packet)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._finish(failed=kind is not None)
        finally:
            self._partial.unlink(missing_ok=True)

    def _finish(self, *, failed: bool) -> None:
        if self._container is not None:
            if not failed:
                for packet in self._stream.encode():
                    self._container.mux(packet)
            self._container.close()
        if failed:
            return
        if self.frames == 0:
            raise ValueError(f"{self.path}: no frames were written")
        if self._pictures:
            self._save_pictures()
        self._partial.replace(self.path)

    def _save_pictures(self) -> None:
        first, *rest = self._pictures
        options: dict[str, Any] = {"save_all": True, "append_images": rest, "loop": 0}
        if self.path.suffix.lower() == ".webp":
            options |= {"quality": 90, "method": 4}
        steps = torch.arange(self.frames + 1, dtype=torch.float64) * 1000 / self.fps
        options["duration"] = steps.round().diff().int().tolist()
        if self.frames == 1:
            options = {}
        first.save(self._partial, **options)
