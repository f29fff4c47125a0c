"""What sources of data hand out, one at a time and in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vdm_blocks.data.raster import Raster


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One clip, or one pack of T independent pictures in the shape of a clip.

    Args:
        video: (3, T, H, W) in [-1, 1].
        captions: one of the whole clip, or T of a pack, one a picture.
        fps: frames a second; of a pack, 0.
        images: whether the frames are independent pictures.
        scenes: what a synthetic sample was drawn from: one scene, or T.
        raster: which pixels of which moments a synthetic sample shows.
        low: (3, T', H', W'), the same seen by the stage before; None unless asked for.
    """

    video: Tensor
    captions: tuple[str, ...]
    fps: float
    images: bool = False
    scenes: tuple[object, ...] = ()
    raster: Raster | None = None
    low: Tensor | None = None

    def __post_init__(self) -> None:
        if self.video.ndim != 4:
            raise ValueError(f"a sample's video is (3, T, H, W); got {tuple(self.video.shape)}")
        expected = self.video.shape[1] if self.images else 1
        if len(self.captions) != expected:
            raise ValueError(
                f"a {'pack' if self.images else 'clip'} of shape {tuple(self.video.shape)} takes {expected} captions; "
                f"got {len(self.captions)}"
            )


class Source(Protocol):
    """Whatever makes sample number `index` of the stream `seed` on the pixels and moments of a raster."""

    @property
    def duration(self) -> float:
        """Seconds that a clip lasts."""
        ...

    def sample(self, seed: int, index: int, raster: Raster) -> Sample:
        """Sample number `index`: the same for the same arguments, on any machine and worker."""
        ...


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples stacked.

    Args:
        video: (B, 3, T, H, W) in [-1, 1].
        captions: B tuples: of one caption for a clip, of T for a pack.
        images: (B,) bool, which are packs.
        fps: (B,) float, 0 for packs.
        low: (B, 3, T', H', W'), or None.
    """

    video: Tensor
    captions: tuple[tuple[str, ...], ...]
    images: Tensor
    fps: Tensor
    low: Tensor | None = None

    def pin_memory(self) -> Batch:
        """For a DataLoader with `pin_memory=True`."""
        return Batch(
            video=self.video.pin_memory(),
            captions=self.captions,
            images=self.images,
            fps=self.fps,
            low=None if self.low is None else self.low.pin_memory(),
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one shape; the `collate_fn` of a DataLoader.

    Raises:
        ValueError: when shapes differ, or only some have `low`.
    """
    lows = [sample.low for sample in samples if sample.low is not None]
    shapes = sorted({tuple(sample.video.shape) for sample in samples})
    low_shapes = sorted({tuple(low.shape) for low in lows})
    if len(shapes) != 1 or len(low_shapes) > 1 or len(lows) not in (0, len(samples)):
        raise ValueError(
            f"samples of one batch share a shape, and all or none have `low`, which share one too; "
            f"got {len(samples)} videos of {shapes} and {len(lows)} of {low_shapes}"
        )
    return Batch(
        video=torch.stack([sample.video for sample in samples]),
        captions=tuple(sample.captions for sample in samples),
        images=torch.tensor([sample.images for sample in samples]),
        fps=torch.tensor([sample.fps for sample in samples]),
        low=torch.stack(lows) if lows else None,
    )
