"""The studies of training, as data: each arm is one small network and one way to train it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from stages import ATTENTION, BASE, PLANS, Phase, Plan, Training, level

from vdm_blocks.cascade import Grid
from vdm_blocks.diffusion import EPS, Prediction, V
from vdm_blocks.diffusion.weightings import EPS_MSE, V_MSE, Weighting
from vdm_blocks.models import UNetSpec

SMALL = Grid(frames=8, height=12, width=20, fps=1.5)
CROP = (48, 80)


class Target(Enum):
    """What the network of a super-resolution stage learns to say."""

    EPS = "eps"
    V = "v"
    RESIDUAL = "v beyond the linear estimate"


@dataclass(frozen=True, kw_only=True)
class BaseArm:
    """A small base model.

    Attributes:
        name, title: to call it by.
        channels: of its two levels.
        embedding: of its context vector; the text is projected to half of it.
        images: share of single pictures among the samples.
        tokens: whether it attends to the caption's tokens, or hears their mean alone.
    """

    name: str
    title: str
    channels: tuple[int, int] = (48, 96)
    embedding: int = 128
    images: float = 0.35
    tokens: bool = True
    steps: int = 600
    batch: int = 4

    @property
    def plan(self) -> Plan:
        """Half the base's frames, rows and columns, in patches of 2x2."""
        first, last = self.channels
        unet = UNetSpec(
            levels=(
                level(first, temporal=ATTENTION, text=self.tokens),
                level(last, temporal=ATTENTION, attend=True, text=self.tokens),
            ),
            fold=2,
            embedding=self.embedding,
            text_inner=self.embedding // 2,
            frame_positions=True,
        )
        phase = Phase(steps=self.steps, batch=self.batch, clips=1 - self.images, images=self.images)
        training = Training(frames=SMALL.frames, crop=None, phases=(phase,))
        return replace(BASE, grid=SMALL, unet=unet, training=training)

    @property
    def measured(self) -> tuple[int, ...]:
        """After how many steps."""
        return _quarters(self.steps)

    @property
    def learning(self) -> tuple[Prediction, Weighting]:
        """What the network puts out, and how its errors count."""
        return V, V_MSE


@dataclass(frozen=True, kw_only=True)
class UpperArm:
    """A small network of the stage to 192x320, on crops.

    Attributes:
        name, title: to call it by.
        target: of its loss, which is the plain mean square of that.
    """

    name: str
    title: str
    target: Target
    channels: int = 32
    steps: int = 400
    batch: int = 4

    @property
    def plan(self) -> Plan:
        """Four frames of a crop."""
        unet = UNetSpec(
            levels=(level(self.channels), level(self.channels), level(self.channels, text=True)),
            cond_channels=3,
            fold=4,
            embedding=128,
            text_inner=64,
        )
        phase = Phase(steps=self.steps, batch=self.batch, clips=0.6, ray_clips=0.4)
        return replace(PLANS[3], unet=unet, training=Training(frames=4, crop=CROP, phases=(phase,)))

    @property
    def measured(self) -> tuple[int, ...]:
        """After how many steps."""
        return (self.steps // 8, *_quarters(self.steps))

    @property
    def learning(self) -> tuple[Prediction, Weighting]:
        """What the network puts out, and how its errors count."""
        return (EPS, EPS_MSE) if self.target is Target.EPS else (V, V_MSE)


Arm = BaseArm | UpperArm


@dataclass(frozen=True, kw_only=True)
class Study:
    """Arms that are trained on the same samples with the same noise, and read side by side."""

    name: str
    title: str
    arms: tuple[Arm, ...]


MIDDLE = BaseArm(name="middle", title="middle")
STUDIES: tuple[Study, ...] = (
    Study(
        name="prediction",
        title="ε against v, on the stage to 192x320",
        arms=tuple(UpperArm(name=t.name.lower(), title=t.value, target=t) for t in Target),
    ),
    Study(
        name="sizes",
        title="Three sizes of base",
        arms=(
            BaseArm(name="small", title="small", channels=(16, 32), embedding=64),
            MIDDLE,
            BaseArm(name="large", title="large", channels=(128, 256), embedding=256),
        ),
    ),
    Study(
        name="pictures",
        title="Joint training on pictures",
        arms=(
            replace(MIDDLE, title="35% pictures"),
            BaseArm(name="clips-alone", title="clips alone", images=0.0),
        ),
    ),
    Study(
        name="text",
        title="Text tokens against the pooled vector",
        arms=(
            replace(MIDDLE, title="attends to the tokens"),
            BaseArm(name="pooled", title="hears their mean alone", tokens=False),
        ),
    ),
)


def recipe(arm: Arm) -> str:
    """All that this file decides of an arm; its title is no part of it."""
    return repr(replace(arm, title=""))


def arms() -> list[Arm]:
    """Each once."""
    return list({recipe(arm): arm for study in STUDIES for arm in study.arms}.values())


def _quarters(steps: int) -> tuple[int, ...]:
    return (steps // 4, steps // 2, steps)
