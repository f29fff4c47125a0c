"""The grammar of ray-cast scenes: solids on a floor, how they move, and from where they are seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, pi, sin
from random import Random

import torch
from torch import Tensor

from vdm_blocks.data.colors import COLORS
from vdm_blocks.data.scenes import DURATION, RELATIONS, HeldOut, generator
from vdm_blocks.data.shapes import SHAPES

RGB = tuple[float, float, float]
SOLID_MOTIONS = ("stays still", "moves left", "moves right", "comes closer", "moves away", "bounces", "turns")
PATTERNS = ("plain", "striped", "checked")
CAMERA_MOVES = ("moves around", "moves closer")
_SIDEWAYS = ("moves left", "moves right")
_DEPTHWAYS = ("comes closer", "moves away")
_PROPORTIONS = {
    "sphere": (1.0, 1.0, 1.0),
    "box": (0.8, 0.8, 0.8),
    "cylinder": (0.7, 0.7, 0.95),
    "cone": (0.95, 0.95, 1.05),
}
_FLOORS: tuple[tuple[RGB, RGB], ...] = (
    ((0.86, 0.84, 0.80), (0.66, 0.64, 0.62)),
    ((0.72, 0.80, 0.70), (0.52, 0.64, 0.52)),
    ((0.76, 0.80, 0.88), (0.56, 0.61, 0.72)),
    ((0.88, 0.78, 0.66), (0.72, 0.58, 0.46)),
)
_SKIES: tuple[tuple[RGB, RGB], ...] = (
    ((0.45, 0.66, 0.92), (0.86, 0.92, 0.97)),
    ((0.93, 0.66, 0.52), (0.98, 0.88, 0.74)),
    ((0.62, 0.64, 0.70), (0.86, 0.87, 0.89)),
)


@dataclass(frozen=True, kw_only=True)
class Solid:
    """One solid. With p = t / duration - 1/2 its centre is at

        (x + dx p, y + dy p, height above the floor + hop |sin(2 pi rate t + phase)|)

    and it has turned by yaw + 2 pi turns p about the vertical.

    Args:
        shape: one of SHAPES.
        color: one of COLORS.
        pattern: one of PATTERNS.
        size: half its extent, roughly.
        x, y: where it stands in the middle of the clip: to the right, and away from the camera.
        dx, dy: how far it goes during the clip.
        hop, rate, phase: how high and often it jumps.
        yaw, turns: where it faces, in radians, and how often it turns around.
    """

    shape: str
    color: str
    pattern: str = "plain"
    size: float = 0.8
    x: float = 0.0
    y: float = 0.0
    dx: float = 0.0
    dy: float = 0.0
    hop: float = 0.0
    rate: float = 0.5
    phase: float = 0.0
    yaw: float = 0.0
    turns: float = 0.0

    def __post_init__(self) -> None:
        for word, words in ((self.shape, SHAPES), (self.color, COLORS), (self.pattern, PATTERNS)):
            if word not in words:
                raise ValueError(f"no {word!r} among solids: there are {', '.join(words)}")
        if not self.size > 0:
            raise ValueError(f"a solid needs a size above zero, got {self.size}")

    @property
    def noun(self) -> str:
        """How a caption names it: "red sphere", "striped blue box"."""
        return " ".join(([] if self.pattern == "plain" else [self.pattern]) + [self.color, self.shape])

    @property
    def extent(self) -> RGB:
        """Half its size along its own three axes."""
        x, y, z = _PROPORTIONS[self.shape]
        return self.size * x, self.size * y, self.size * z

    def centre(self, t: Tensor, *, duration: float) -> Tensor:
        """(T, 3) at times t (T,)."""
        p = t / duration - 0.5
        jump = self.hop * torch.sin(2 * pi * self.rate * t + self.phase).abs()
        return torch.stack([self.x + self.dx * p, self.y + self.dy * p, self.extent[2] + jump], dim=1)

    def heading(self, t: Tensor, *, duration: float) -> Tensor:
        """(T,) radians about the vertical at times t (T,)."""
        return self.yaw + 2 * pi * self.turns * (t / duration - 0.5)


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Looks from `distance` at a point `height` above the middle of the floor, `azimuth` to the right, `elevation` up.

    With p = t / duration - 1/2 the azimuth is azimuth + orbit p and the distance distance 2^(-approach p).
    `slope` is the tangent of half the vertical field of view. Angles are radians.
    """

    distance: float = 6.0
    azimuth: float = 0.0
    elevation: float = 0.3
    height: float = 0.8
    slope: float = 0.3
    orbit: float = 0.0
    approach: float = 0.0

    def at(self, t: Tensor, *, duration: float) -> tuple[Tensor, Tensor]:
        """Eye (T, 3) and the rows right, up, forward of a rotation (T, 3, 3), at times t (T,)."""
        p = t / duration - 0.5
        azimuth = self.azimuth + self.orbit * p
        distance = self.distance * torch.exp2(-self.approach * p)
        elevation = torch.full_like(azimuth, self.elevation)
        sin_a, cos_a, sin_e, cos_e = azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos()
        zero = torch.zeros_like(azimuth)
        forward = torch.stack([-sin_a * cos_e, cos_a * cos_e, -sin_e], dim=1)
        right = torch.stack([cos_a, sin_a, zero], dim=1)
        up = torch.stack([-sin_a * sin_e, cos_a * sin_e, cos_e], dim=1)
        target = torch.tensor([0.0, 0.0, self.height], dtype=t.dtype)
        return target - distance.unsqueeze(1) * forward, torch.stack([right, up, forward], dim=1)


@dataclass(frozen=True, kw_only=True)
class SolidScene:
    """All that is seen in a ray-cast clip and all that its caption may say.

    Args:
        subject: the solid that does `motion`.
        motion: one of SOLID_MOTIONS.
        other: a second solid, which stays; `relation`, as seen from the camera, says how the subject lies to it.
        camera: from where it is seen.
        camera_move: one of CAMERA_MOVES, or None.
        sun: direction towards the light, of length one.
        floor: its two colours; the same twice is a plain floor.
        sky: colours overhead and at the horizon.
        wording: picks one of the ways to put it.
        duration: seconds.
    """

    subject: Solid
    motion: str
    other: Solid | None = None
    relation: str | None = None
    camera: Camera = Camera()
    camera_move: str | None = None
    sun: RGB = (-0.48, -0.6, 0.64)
    floor: tuple[RGB, RGB] = _FLOORS[0]
    sky: tuple[RGB, RGB] = _SKIES[0]
    wording: int = 0
    duration: float = DURATION

    def __post_init__(self) -> None:
        if (self.other is None) != (self.relation is None):
            raise ValueError("a relation is said of two solids: give both `other` and `relation`, or neither")
        known = ((self.motion, SOLID_MOTIONS), (self.relation, RELATIONS), (self.camera_move, CAMERA_MOVES))
        for word, words in known:
            if word is not None and word not in words:
                raise ValueError(f"no {word!r} in this grammar: there are {', '.join(words)}")

    @property
    def solids(self) -> tuple[Solid, ...]:
        """The subject, then the other."""
        return (self.subject,) if self.other is None else (self.subject, self.other)


def solids_held_out(scene: SolidScene, held_out: HeldOut) -> bool:
    """Whether the scene shows any combination of the list."""
    return (scene.subject.shape, scene.motion) in held_out.shape_motions or any(
        (solid.color, solid.shape) in held_out.shape_colors for solid in scene.solids
    )


def draw_solids(
    seed: int, index: int, *, held_out: HeldOut | None = None, only_held_out: bool = False
) -> SolidScene:
    """Scene number `index` of the stream `seed`; `held_out` and `only_held_out` as in `draw_scene`.

    Raises:
        ValueError: when no scene is allowed.
    """
    held_out = held_out or HeldOut()
    for attempt in range(10_000):
        scene = _draw(generator("solids", seed, index, attempt))
        if solids_held_out(scene, held_out) == only_held_out:
            return scene
    raise ValueError(
        f"10000 scenes drawn and none is {'held out' if only_held_out else 'allowed'}: check {held_out}"
    )


def _draw(rng: Random) -> SolidScene:
    motion = rng.choice(SOLID_MOTIONS)
    relations = RELATIONS[:2] if motion in _SIDEWAYS else RELATIONS[2:] if motion in _DEPTHWAYS else RELATIONS
    relation = rng.choice(relations) if rng.random() < 0.6 else None
    camera_move = None
    if motion in ("stays still", "bounces", "turns") and rng.random() < 0.5:
        camera_move = rng.choice(CAMERA_MOVES)
    camera = Camera(
        azimuth=rng.uniform(-0.15, 0.15),
        elevation=rng.uniform(0.2, 0.36),
        orbit=rng.choice((-1, 1)) * rng.uniform(0.7, 1.0) if camera_move == "moves around" else 0.0,
        approach=rng.uniform(0.6, 0.8) if camera_move == "moves closer" else 0.0,
    )
    floor = rng.choice(_FLOORS)
    azimuth, elevation = rng.uniform(0.5, 1.1) * rng.choice((-1, 1)) + pi, rng.uniform(0.65, 0.95)
    sun = (sin(azimuth) * cos(elevation), cos(azimuth) * cos(elevation), sin(elevation))
    subject, other = _place(motion, relation, rng)
    return SolidScene(
        subject=subject,
        motion=motion,
        other=other,
        relation=relation,
        camera=camera,
        camera_move=camera_move,
        sun=sun,
        floor=floor if rng.random() < 0.6 else (floor[0], floor[0]),
        sky=rng.choice(_SKIES),
        wording=rng.randrange(1000),
    )


def _place(motion: str, relation: str | None, rng: Random) -> tuple[Solid, Solid | None]:
    other = None
    size, x, y = rng.uniform(0.75, 1.0), rng.uniform(-0.6, 0.6), 0.0
    if relation is not None:
        side = rng.choice((-1, 1))
        if relation == "behind":
            size, y, spot = rng.uniform(0.6, 0.75), 1.1, (x - 0.9 * side, -0.6)
        elif relation == "in front of":
            size, y, spot = rng.uniform(0.55, 0.7), -0.9, (x - 0.8 * side, 0.9)
        else:
            size, x, spot = rng.uniform(0.7, 0.85), 1.0 * side, (-1.0 * side, 0.0)
        other = Solid(
            shape=rng.choice(tuple(SHAPES)),
            color=rng.choice(tuple(COLORS)),
            pattern=rng.choice(PATTERNS) if rng.random() < 0.3 else "plain",
            size=rng.uniform(0.75, 0.95),
            x=rng.uniform(-0.3, 0.3) if motion in _SIDEWAYS else spot[0],
            y=spot[1],
            yaw=rng.uniform(0, pi),
        )
    subject = Solid(
        shape=rng.choice(tuple(SHAPES)),
        color=rng.choice([color for color in COLORS if other is None or color != other.color]),
        pattern=rng.choice(PATTERNS[1:] if motion == "turns" or rng.random() < 0.4 else PATTERNS[:1]),
        size=size,
        x=x,
        y=y,
        yaw=rng.uniform(0, pi),
    )
    return _set_off(subject, motion, rng), other


def _set_off(solid: Solid, motion: str, rng: Random) -> Solid:
    if motion in _SIDEWAYS:
        return replace(solid, x=0.0, dx=rng.uniform(3.0, 3.8) * (-1 if motion == "moves left" else 1))
    if motion == "comes closer":
        return replace(solid, y=solid.y + 0.9, dy=-rng.uniform(2.4, 3.0))
    if motion == "moves away":
        return replace(solid, y=solid.y + 1.2, dy=rng.uniform(3.4, 4.4))
    if motion == "bounces":
        return replace(
            solid, hop=rng.uniform(0.5, 0.75), rate=rng.uniform(0.25, 0.35), phase=rng.uniform(0, pi)
        )
    if motion == "turns":
        return replace(solid, turns=rng.choice((-1.25, -1.0, 1.0, 1.25)))
    return solid
