"""Reading video files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vdm_blocks.video.extras import import_av, import_pillow
from vdm_blocks.video.pixels import from_bytes

PICTURES = frozenset({".gif", ".webp", ".png", ".apng"})
"""What Pillow reads and writes; everything else is PyAV's."""

_TICK = 1e-3  # Matroska, WebP and GIF round times to a millisecond or worse


class Film(NamedTuple):
    """A video (3, T, H, W) in [-1, 1] and its frames a second."""

    video: Tensor
    fps: float


def read_video(
    path: str | Path, *, fps: float | None = None, start: float = 0.0, frames: int | None = None
) -> Film:
    """Read a file; needs the extra `vdm-blocks[video]`.

    With `fps`, frame i is the one shown at `start + i / fps` seconds: a lower rate skips frames, a higher one
    repeats them, none are mixed.

    Args:
        path: .gif, .webp, .png through Pillow, all else through PyAV.
        fps: frames a second wanted; None keeps the file's.
        start: seconds to leave out.
        frames: how many to read at most; None reads to the end.

    Raises:
        ValueError: naming the file when it is missing, does not decode, or ends before `start`.
    """
    rate = fps or frame_rate(path)
    kept = list(pick_frames(path, fps=rate, start=start, frames=frames))
    if not kept:
        raise ValueError(f"{path} has no frame at or after {start} s")
    return Film(from_bytes(torch.stack(kept)), rate)


def pick_frames(
    path: str | Path, *, fps: float, start: float = 0.0, frames: int | None = None
) -> Iterator[Tensor]:
    """The frames shown at start, start + 1 / fps, ... one by one: uint8 (H, W, 3). Arguments as in `read_video`."""
    if not fps > 0 or start < 0 or (frames is not None and frames < 1):
        raise ValueError(
            f"fps and frames are above zero and start is not below, got {fps=}, {frames=}, {start=}"
        )
    count, last, until = 0, None, start
    rate = frame_rate(path)
    for begin, frame in read_frames(path, start=start):
        while last is not None and begin > start + count / fps + _TICK:
            yield last
            count += 1
            if count == frames:
                return
        last, until = frame, begin + 1 / rate
    while last is not None and start + count / fps + _TICK < until and count != frames:
        yield last
        count += 1


def seconds_of(path: str | Path) -> float:
    """How long a file lasts, by its header."""
    path = Path(path)
    if path.suffix.lower() in PICTURES:
        return sum(duration for _, duration, _ in _read_picture(path))
    with _opened(path) as container:
        stream = container.streams.video[0]
        if stream.duration:
            return float(stream.duration * stream.time_base)
        if container.duration:
            return float(container.duration / import_av().time_base)
        raise ValueError(f"{path} does not say how long it is")


def frame_rate(path: str | Path) -> float:
    """Frames a second of a file; of an animated picture, the mean."""
    path = Path(path)
    if path.suffix.lower() in PICTURES:
        times = [duration for _, duration, _ in _read_picture(path)]
        return len(times) / max(sum(times), 1e-3)
    with _opened(path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise ValueError(f"{path} does not say its frame rate")
        return float(rate)


def read_frames(path: str | Path, *, start: float = 0.0) -> Iterator[tuple[float, Tensor]]:
    """Decode (seconds from the first frame, uint8 (H, W, 3)), beginning with the frame shown at `start`.

    Raises:
        ValueError: naming the file when it is missing or does not decode.
    """
    path = Path(path)
    if path.suffix.lower() in PICTURES:
        for begin, duration, frame in _read_picture(path):
            if begin + duration > start + _TICK:
                yield begin, frame
        return
    av = import_av()
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        origin = stream.start_time or 0
        if start > 0:
            container.seek(origin + int(start / stream.time_base), stream=stream)
        held: tuple[float, Tensor] | None = None
        try:
            for frame in container.decode(stream):
                begin = float(((frame.pts or 0) - origin) * stream.time_base)
                picture = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                if held is not None and begin > start + _TICK:
                    yield held
                held = (begin, picture)
        except av.error.FFmpegError as error:
            raise ValueError(f"{path} does not decode: {error}") from error
        if held is not None:
            yield held


def _read_picture(path: Path) -> Iterator[tuple[float, float, Tensor]]:
    """Begin and duration in seconds, and uint8 (H, W, 3), of each frame."""
    pillow = import_pillow()
    begin = 0.0
    try:
        with pillow.open(path) as image:
            for i in range(getattr(image, "n_frames", 1)):
                image.seek(i)
                image.load()
                duration = float(image.info.get("duration") or 100) / 1000
                data = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
                yield begin, duration, data.view(image.height, image.width, 3)
                begin += duration
    except OSError as error:
        raise ValueError(f"{path} does not decode: {error}") from error


def _opened(path: Path) -> Any:
    av = import_av()
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{path} does not open as a film: {error}") from error
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path} has no picture track")
    return container
