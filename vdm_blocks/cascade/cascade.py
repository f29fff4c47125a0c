"""A cascade is a fold over its stages: each takes the video of the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from vdm_blocks.cascade.stage import Stage
from vdm_blocks.diffusion.values import check_value
from vdm_blocks.sampling.loop import StepInfo
from vdm_blocks.types import Conditioning

__all__ = ["Cascade"]


@dataclass(frozen=True)
class Cascade:
    """Stages in the order in which they run (arXiv 2210.02303, figure 4).

    Attributes:
        stages: the first makes a video from text, each further one makes its predecessor's finer.

    Raises:
        ValueError: no stages, two of one name, a first stage that wants a video, or grids that are not multiples.
    """

    stages: Sequence[Stage]

    def __post_init__(self) -> None:
        check_value("stages", self.stages, Sequence, "a list of stages")
        if not self.stages:
            raise ValueError("a cascade needs one stage at least; it was given none")
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"two stages are called {twice[0]}; their noise would be the same, so rename one"
            )
        if self.stages[0].augmentation is not None:
            raise ValueError(
                f"the first stage, {names[0]}, wants the video of a stage before it; start with a base"
            )
        for before, after in pairwise(self.stages):
            if after.augmentation is None:
                raise ValueError(f"stage {after.name} takes no video, so it cannot follow {before.name}")
            after.grid.over(before.grid)

    def sample(
        self, cond: Conditioning, *, seeds: Sequence[int], device: torch.device | str | None = None
    ) -> Tensor:
        """The last stage's video, (B, C, T, H, W) in [-1, 1]; sample i depends on `seeds[i]` alone."""
        *_, (_, video) = self.stream(cond, seeds=seeds, device=device)
        return video

    def stream(
        self,
        cond: Conditioning,
        *,
        seeds: Sequence[int],
        after: tuple[str, Tensor] | None = None,
        device: torch.device | str | None = None,
        on_step: Callable[[Stage, StepInfo], bool | None] | None = None,
    ) -> Iterator[tuple[Stage, Tensor]]:
        """Yields (stage, its video) as each ends.

        Args:
            cond: the text, one row for each seed.
            seeds: one for each sample.
            after: the name of a stage and its video, to go on from there; it may be any video on that stage's grid,
                since the stages after it are general upsamplers.
            device: where to compute.
            on_step: told of each step of each stage.

        Raises:
            ValueError: a stage that is not in the cascade, or a video that is not on its grid.
        """
        first, video = 0, None
        if after is not None:
            name, video = after
            names = [stage.name for stage in self.stages]
            if name not in names:
                raise ValueError(
                    f"there is no stage {name!r} to go on from; this cascade has {', '.join(names)}"
                )
            first = names.index(name) + 1
            if video.shape[2:] != self.stages[first - 1].grid.shape:
                raise ValueError(
                    f"the video {tuple(video.shape)} is not on the grid of {name}, "
                    f"{self.stages[first - 1].grid}; resize it first"
                )
        for stage in self.stages[first:]:
            step = None if on_step is None else (lambda info, stage=stage: on_step(stage, info))
            video = stage.run(cond, video, seeds=seeds, device=device, on_step=step)
            yield stage, video
