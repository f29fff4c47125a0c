"""An endless, resumable mixture of sources, as a stage of a cascade sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, count

from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.utils.data import DataLoader, Dataset, Sampler

from vdm_blocks.data.raster import Raster
from vdm_blocks.data.sample import Sample, Source, collate
from vdm_blocks.data.scenes import generator
from vdm_blocks.diffusion.values import check_numbers


@dataclass(frozen=True, kw_only=True)
class View:
    """What a stage of a cascade is trained on: a crop of its grid, and how the stage before saw that crop.

    Args:
        frames: frames of a training clip, T.
        height: rows of the stage's full picture.
        width: columns of the stage's full picture.
        fps: frames a second.
        crop: (rows, columns) of a random crop of the full picture; None trains on all of it.
        shrink: `low` averages squares of `shrink` x `shrink` pixels; a crop starts at their corners.
        skip: `low` keeps frames 0, skip, 2 skip, ...

    With shrink = skip = 1 no `low` is made. Of a pack of pictures `low` keeps every one, so that with a `skip`
    above one packs and clips go in batches apart: give each a stream of its own.

    Raises:
        ValueError: a size below one, a rate that is not positive, or a size that does not divide.
    """

    frames: int
    height: int
    width: int
    fps: float
    crop: tuple[int, int] | None = None
    shrink: int = 1
    skip: int = 1

    def __post_init__(self) -> None:
        check_numbers(self)
        rows, columns = self.crop or (self.height, self.width)
        if min(self.frames, rows, columns, self.shrink, self.skip) < 1 or not self.fps > 0:
            raise ValueError(
                f"a view has at least one frame, row and column, shrink and skip of 1 or more, and fps > 0; got {self}"
            )
        if self.frames % self.skip or rows % self.shrink or columns % self.shrink:
            raise ValueError(
                f"{self.frames} frames of {rows} x {columns} cannot be seen every {self.skip} frames at "
                f"1/{self.shrink} of the size: choose frames and crop that divide"
            )
        if rows > self.height or columns > self.width:
            raise ValueError(
                f"a crop of {rows} x {columns} is larger than the picture, {self.height} x {self.width}"
            )

    def raster(self, seed: int, index: int, *, duration: float) -> Raster:
        """A random moment and a random crop for sample `index`."""
        rng = generator("view", seed, index)
        spare = max(duration - self.frames / self.fps, 0.0)
        raster = Raster(
            frames=self.frames,
            height=self.height,
            width=self.width,
            fps=self.fps,
            start=rng.uniform(0, spare),
        )
        if self.crop is None:
            return raster
        rows, columns = self.crop
        top = rng.randint(0, (self.height - rows) // self.shrink) * self.shrink
        left = rng.randint(0, (self.width - columns) // self.shrink) * self.shrink
        return replace(raster, crop=(top, left, rows, columns))

    def low(self, sample: Sample) -> Tensor:
        """A clip as the stage before sees it: (C, T / skip, H / shrink, W / shrink); of a pack, all T pictures."""
        return avg_pool2d(sample.video if sample.images else sample.video[:, :: self.skip], self.shrink)


class Stream(Dataset[Sample]):
    """An endless mixture: item `index` is the same sample on every machine, worker and run.

    Args:
        sources: pairs of a source and its share.
        view: what to see of them.
        seed: which stream.
        alike: so many samples on end come from one source; with the size of a batch, a batch is of clips or of
            packs of pictures, and its captions need not be held frame by frame.

    Raises:
        ValueError: shares that cannot be drawn by, or `alike` below 1.
    """

    def __init__(
        self, sources: Sequence[tuple[Source, float]], view: View, *, seed: int, alike: int = 1
    ) -> None:
        shares = [share for _, share in sources]
        if not shares or min(shares) < 0 or not sum(shares) > 0:
            raise ValueError(
                f"a stream needs sources with shares of zero or more, not all zero; got shares {shares}"
            )
        if alike < 1:
            raise ValueError(f"alike is how many samples on end share a source, at least 1; got {alike}")
        self.sources = tuple(source for source, _ in sources)
        self.bounds = tuple(accumulate(share / sum(shares) for share in shares))
        self.view = view
        self.seed = seed
        self.alike = alike

    def __getitem__(self, index: int) -> Sample:
        draw = generator("source", self.seed, index // self.alike).random()
        source = next(
            (s for s, bound in zip(self.sources, self.bounds, strict=True) if draw < bound), self.sources[-1]
        )
        raster = self.view.raster(self.seed, index, duration=source.duration)
        sample = source.sample(self.seed, index, raster)
        if self.view.shrink == 1 and self.view.skip == 1:
            return sample
        return replace(sample, low=self.view.low(sample))

    def loader(
        self,
        batch_size: int,
        *,
        start: int = 0,
        part: slice | None = None,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> DataLoader[Sample]:
        """Batches of samples start, start + 1, ..., without end, whatever the number of workers.

        To resume after n batches, start at `start + n * batch_size`. With `part` only those samples of each batch are
        made, for one of several processes that share it: `slice(0, 4)` and `slice(4, 8)` of a batch of 8.

        Raises:
            ValueError: a part that holds none of the batch's samples.
        """
        taken = range(batch_size) if part is None else range(batch_size)[part]
        if not taken:
            raise ValueError(
                f"{part} of a batch of {batch_size} holds no sample; give a part of 0 to {batch_size}"
            )
        return DataLoader(
            self,
            batch_size=len(taken),
            sampler=IndicesFrom(start, batch_size, taken),
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin_memory,
        )


class IndicesFrom(Sampler[int]):
    """start, start + 1, start + 2, ... without end; of every `batch` of them, those numbered by `taken`."""

    def __init__(self, start: int = 0, batch: int = 1, taken: range = range(1)) -> None:
        self.start, self.batch, self.taken = start, batch, taken

    def __iter__(self) -> Iterator[int]:
        for first in count(self.start, self.batch):
            for offset in self.taken:
                yield first + offset
