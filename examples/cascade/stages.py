"""The seven stages of the cascade, as data: what each one is, how it is trained and how it is sampled.

The grids, their order and what mixes time and space are Imagen Video's (arXiv 2210.02303, figure 4); every width,
depth and number of steps is ours, chosen so that two CPU cores can train and run it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vdm_blocks.cascade.grid import Grid
from vdm_blocks.diffusion import (
    CosineSchedule,
    IndependentNoise,
    MixedNoise,
    NoiseSchedule,
    ShiftedSchedule,
    VideoNoise,
)
from vdm_blocks.models import (
    LevelSpec,
    SpatialAttentionSpec,
    TemporalAttentionSpec,
    TemporalConvSpec,
    TextAttentionSpec,
    TransformerSpec,
    UNetSpec,
)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training on one mixture of data.

    `steps` optimizer steps on batches of `batch` clips (or packs of as many pictures), of which each is drawn from
    the four sources by these shares, or all of them together from one.
    """

    steps: int
    batch: int
    clips: float = 0.0
    images: float = 0.0
    ray_clips: float = 0.0
    ray_images: float = 0.0
    together: bool = False


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a stage learns: on `frames` frames of a `crop` (rows, columns) of its grid, or all of it."""

    frames: int
    crop: tuple[int, int] | None
    phases: tuple[Phase, ...]
    rate: float = 1e-3
    average: float = 0.998

    @property
    def steps(self) -> int:
        """Of all phases together."""
        return sum(phase.steps for phase in self.phases)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One stage: its grid, its network, its training and how it takes the stage before.

    Attributes:
        unet: the network, which may as well be a transformer.
        schedule: the log-SNR at each time; times are drawn uniformly in training and stepped uniformly in sampling.
        noise: what the noise of a clip's frames has in common, in training and in sampling.
        snr: the signal-to-noise ratio at which it takes the stage before.
        detail: how much the upsampled video of the stage before lacks, as a standard deviation at each pixel.
    """

    name: str
    grid: Grid
    unet: UNetSpec | TransformerSpec
    training: Training
    schedule: NoiseSchedule = CosineSchedule()  # noqa: RUF009 - frozen
    noise: VideoNoise = IndependentNoise()  # noqa: RUF009 - frozen
    snr: float = math.exp(5)
    detail: float = 0.06


def level(
    channels: int,
    blocks: int = 1,
    *,
    temporal: TemporalConvSpec | TemporalAttentionSpec | None = None,
    attend: bool = False,
    text: bool = False,
) -> LevelSpec:
    """A level with heads of about 32 channels."""
    heads = max(1, channels // 32)
    return LevelSpec(
        channels=channels,
        blocks=blocks,
        temporal=TemporalConvSpec() if temporal is None else temporal,
        attention=SpatialAttentionSpec(heads=heads) if attend else None,
        text=TextAttentionSpec(heads=heads) if text else None,
    )


ATTENTION = TemporalAttentionSpec(heads=4)

BASE = Plan(
    name="1-base",
    schedule=ShiftedSchedule(base=CosineSchedule(), resolution=192),
    noise=MixedNoise(a=1.0),
    grid=Grid(frames=16, height=24, width=40, fps=3),
    unet=UNetSpec(
        levels=(
            level(80, temporal=ATTENTION),
            level(128, 3, temporal=ATTENTION, attend=True, text=True),
            level(144, 2, temporal=ATTENTION, attend=True, text=True),
        ),
        fold=2,
        frame_positions=True,
    ),
    training=Training(
        frames=16,
        crop=None,
        phases=(
            Phase(steps=2500, batch=8, images=0.85, ray_images=0.15, together=True),
            Phase(
                steps=2400, batch=10, clips=0.6, images=0.2, ray_clips=0.15, ray_images=0.05, together=True
            ),
        ),
    ),
)


def upsampler(
    name: str,
    grid: Grid,
    levels: tuple[LevelSpec, ...],
    *,
    fold: int,
    temporal: bool,
    frames: int,
    crop: tuple[int, int] | None,
    steps: int,
    batch: int,
) -> Plan:
    """A super-resolution stage: in time, whose condition has a mask of the known frames, or in space."""
    return Plan(
        name=name,
        grid=grid,
        unet=UNetSpec(
            levels=levels, cond_channels=4 if temporal else 3, fold=fold, embedding=128, text_inner=64
        ),
        training=Training(
            frames=frames,
            crop=crop,
            phases=(Phase(steps=steps, batch=batch, clips=0.45, images=0.1, ray_clips=0.35, ray_images=0.1),),
        ),
    )


PLANS: tuple[Plan, ...] = (
    BASE,
    upsampler(
        "2-tsr",
        Grid(frames=32, height=24, width=40, fps=6),
        (level(64), level(64, text=True, attend=True)),
        fold=2, temporal=True, frames=32, crop=None, steps=1500, batch=2,
    ),
    upsampler(
        "3-ssr",
        Grid(frames=32, height=48, width=80, fps=6),
        (level(64), level(64), level(96, attend=True, text=True)),
        fold=2, temporal=False, frames=8, crop=None, steps=1300, batch=3,
    ),
    upsampler(
        "4-ssr",
        Grid(frames=32, height=192, width=320, fps=6),
        (level(64), level(64), level(64, attend=True, text=True)),
        fold=4, temporal=False, frames=4, crop=None, steps=700, batch=2,
    ),
    upsampler(
        "5-tsr",
        Grid(frames=64, height=192, width=320, fps=12),
        (level(48), level(48, text=True)),
        fold=2, temporal=True, frames=8, crop=(64, 96), steps=800, batch=2,
    ),
    upsampler(
        "6-tsr",
        Grid(frames=128, height=192, width=320, fps=24),
        (level(48), level(48, text=True)),
        fold=2, temporal=True, frames=8, crop=(64, 96), steps=400, batch=2,
    ),
    upsampler(
        "7-ssr",
        Grid(frames=128, height=768, width=1280, fps=24),
        (level(48), level(64, text=True)),
        fold=4, temporal=False, frames=6, crop=(128, 128), steps=700, batch=3,
    ),
)  # fmt: skip
"""In the order in which they run."""
