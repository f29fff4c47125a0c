"""The noise of one step."""

from __future__ import annotations

from torch import Tensor

from vdm_blocks.diffusion.noise import NoiseSource
from vdm_blocks.diffusion.video_noise import IndependentNoise, VideoNoise

__all__ = ["StepDraw"]


class StepDraw:
    """Standard normal noise for one step of the loop, a fresh one at every call.

    The k-th draw of step i has the key "step i draw k", so with `KeyedNoise` a run resumed at step i draws
    what the unbroken run drew. Keys of other forms are free for the caller, for the initial noise above all.

    >>> import torch
    >>> from vdm_blocks.diffusion.noise import KeyedNoise
    >>> z = torch.zeros(1, 3, 2, 4, 4)
    >>> draw, again = (StepDraw(KeyedNoise(seeds=(7,), stage="base"), 0) for _ in range(2))
    >>> torch.equal(draw(z), again(z)), torch.equal(draw(z), again(z)), torch.equal(draw(z), draw(z))
    (True, True, False)
    """

    def __init__(self, source: NoiseSource, index: int, law: VideoNoise = IndependentNoise()) -> None:  # noqa: B008
        self.source = source
        self.index = index
        self.law = law
        self.draws = 0

    def __call__(self, like: Tensor) -> Tensor:
        """Noise of `like`'s shape, dtype and device."""
        key = f"step {self.index} draw {self.draws}"
        self.draws += 1
        return self.law.draw(self.source, like.shape, step=key, device=like.device, dtype=like.dtype)
