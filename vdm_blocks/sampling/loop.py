"""The one sampling loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from vdm_blocks.diffusion.noise import NoiseSource
from vdm_blocks.diffusion.values import check_value
from vdm_blocks.diffusion.video_noise import IndependentNoise, VideoNoise
from vdm_blocks.sampling.draw import StepDraw
from vdm_blocks.sampling.grids import check_times
from vdm_blocks.sampling.rule import StepRule
from vdm_blocks.types import Conditioning, Denoiser, check_denoiser

__all__ = ["StepInfo", "sample"]

State = TypeVar("State")


@dataclass(frozen=True)
class StepInfo:
    """What `on_step` is told after each step.

    Attributes:
        index: which step this was, from 0.
        count: how many the grid has.
        t: the time that it left, 0-d.
        s: the time that it reached, 0-d.
        z: z_s; the loop goes on from this very tensor, so copy before changing it.
        x0: the estimate of the clean video, made at `t`.
        state: the rule's state; with `z`, all that it takes to go on from here another day.
    """

    index: int
    count: int
    t: Tensor
    s: Tensor
    z: Tensor
    x0: Tensor
    state: Any


def sample(
    denoiser: Denoiser,
    step: StepRule[State],
    times: Tensor,
    noise: Tensor,
    cond: Conditioning,
    *,
    generator: NoiseSource = None,
    law: VideoNoise = IndependentNoise(),  # noqa: B008 - frozen
    on_step: Callable[[StepInfo], bool | None] | None = None,
    start: int = 0,
    state: State | None = None,
) -> Tensor:
    """Denoise `noise` along `times` and return the video, or the z reached if `on_step` stopped early.

    The rule is handed consecutive entries of `times` as 0-d float64 CPU tensors, so nothing is derived twice
    and the device is never waited for. Gradients are off and `noise` is not changed.

    To go on after step k of an earlier run, give the same `times`, `noise=info.z`, `state=info.state` and
    `start=k + 1`; with `KeyedNoise` the result is that of the unbroken run, to the bit.

    Args:
        denoiser: any denoiser, guided and thresholded or not.
        step: the step rule.
        times: (N + 1,) falling from 1, noise, to 0, clean; see `uniform_times` and its neighbours.
        noise: z at `times[start]`, (B, C, T, H, W); at time 1 that is standard normal noise times sigma_1.
        cond: what the denoiser is told.
        generator: where a stochastic rule's noise comes from: `KeyedNoise` makes each sample's independent of
            the batch around it. None is torch's own generator.
        law: what the frames of that noise have in common; take the one that the network was trained on, for
            `noise` too.
        on_step: called after each step; True stops there.
        start: the step to begin with.
        state: the rule's state at `start`; None begins afresh.

    Raises:
        ValueError: a bare network for a denoiser, a class or a name for a rule; a grid that does not fall, leaves
            [0, 1], has fewer than two entries or is refused by `step`; `start` off the grid; integer noise.
    """
    check_denoiser(denoiser)
    check_value("step", step, StepRule, "a step rule, a value, for example DDIM()")
    check_value("law", law, VideoNoise, "a law, a value, for example IndependentNoise()")
    times = check_times(times)
    count = len(times) - 1
    if not 0 <= start < count:
        raise ValueError(f"start={start} is not a step of a grid with {count}; give 0 to {count - 1}")
    if not noise.is_floating_point():
        raise ValueError(f"noise is {noise.dtype}; it must be floating point")
    with torch.no_grad():
        z = noise
        state = step.start(times) if state is None else state
        for index in range(start, count):
            t, s = times[index], times[index + 1]
            result = step(denoiser, z, t, s, cond, state, StepDraw(generator, index, law))
            z, x0, state = result.z, result.x0, result.state
            del result
            if on_step is not None and on_step(StepInfo(index, count, t, s, z, x0, state)) is True:
                break
            del x0
    return z
