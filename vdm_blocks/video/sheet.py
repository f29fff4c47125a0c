"""Clips as one picture: a row a clip, a column a frame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from vdm_blocks.video.extras import import_pillow
from vdm_blocks.video.pixels import to_bytes
from vdm_blocks.video.resize import resize_video


def contact_sheet(
    path: str | Path,
    videos: Sequence[Tensor],
    labels: Sequence[str] = (),
    *,
    frames: int = 8,
    cell_height: int | None = None,
) -> None:
    """Save clips as one PNG: a row a clip, its label above, `frames` of its frames evenly from first to last.

    Args:
        path: of the PNG.
        videos: (3, T, H, W) each, in [-1, 1]; sizes may differ.
        labels: one for each clip, or none.
        frames: columns; a shorter clip shows each of its frames once.
        cell_height: rows of pixels of a frame; None keeps the first clip's. Enlarging repeats pixels.

    Raises:
        ValueError: without clips, or when labels and clips differ in number.
    """
    if not videos or len(labels) not in (0, len(videos)) or frames < 1:
        raise ValueError(
            f"a sheet needs clips, as many labels or none, and frames >= 1; "
            f"got {len(videos)} clips, {len(labels)} labels, {frames} frames"
        )
    pillow = import_pillow()
    from PIL import ImageDraw

    high = cell_height or videos[0].shape[-2]
    line = 14 if labels else 0
    rows = []
    for video in videos:
        count = min(frames, video.shape[1])
        picked = [round(i * (video.shape[1] - 1) / max(count - 1, 1)) for i in range(count)]
        wide = round(video.shape[-1] * high / video.shape[-2])
        grows = high > video.shape[-2]
        shown = resize_video(
            video[:, picked], height=high, width=wide, filter="nearest" if grows else "bilinear"
        )
        data = to_bytes(shown).permute(1, 0, 2, 3).reshape(high, -1, 3).contiguous()
        rows.append(pillow.fromarray(data.numpy()))
    sheet = pillow.new("RGB", (max(row.width for row in rows), len(rows) * (high + line)), (16, 16, 20))
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        if labels:
            draw.text((3, i * (high + line) + 1), labels[i], fill=(235, 235, 235))
        sheet.paste(row, (0, i * (high + line) + line))
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part.png")
    try:
        sheet.save(partial, format="PNG")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
