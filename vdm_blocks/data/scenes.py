"""The grammar of sprite scenes: what is seen, how it moves, and which combinations are held out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from pathlib import Path
from random import Random

from vdm_blocks.data.backdrops import BACKDROPS, Backdrop, draw_backdrop
from vdm_blocks.data.colors import COLORS
from vdm_blocks.data.sprites import Concept
from vdm_blocks.data.tracks import Track

DURATION = 16 / 3
MOTIONS = (
    "stands still", "dances", "jumps", "spins", "moves left",
    "moves right", "rises", "falls", "grows", "shrinks",
)  # fmt: skip
RELATIONS = ("in front of", "behind", "next to")
LIGHTS = ("in dim light", "in bright light")
SIZES = ("big", "small")


@dataclass(frozen=True, kw_only=True)
class SpriteObject:
    """One picture in a scene.

    Args:
        name: a concept of the sprite pack.
        color: the word for its colour; None shows the picture as it was drawn.
        track: where it is, when.
        flip: mirrored left to right.
        animated: whether its own animation plays.
        phase: where its own animation starts, in turns.
    """

    name: str
    track: Track
    color: str | None = None
    flip: bool = False
    animated: bool = True
    phase: float = 0.0

    @property
    def noun(self) -> str:
        """How a caption names it: "penguin", "red umbrella"."""
        return self.name if self.color is None else f"{self.color} {self.name}"


@dataclass(frozen=True, kw_only=True)
class SpriteScene:
    """All that is seen in a sprite clip and all that its caption may say.

    Args:
        subject: the object that does `motion`.
        motion: one of MOTIONS.
        place: one of BACKDROPS; `backdrop` is a picture of it.
        other: a second object, which stays; it and the subject are related by `relation`.
        size: one of SIZES, or None for neither.
        light: one of LIGHTS, or None for neither.
        says_place: whether the caption names the place.
        wording: picks one of the ways to put it.
        duration: seconds.
    """

    subject: SpriteObject
    motion: str
    place: str
    backdrop: Backdrop
    other: SpriteObject | None = None
    relation: str | None = None
    size: str | None = None
    light: str | None = None
    says_place: bool = True
    wording: int = 0
    duration: float = DURATION

    def __post_init__(self) -> None:
        if (self.other is None) != (self.relation is None):
            raise ValueError(
                "a relation is said of two objects: give both `other` and `relation`, or neither"
            )
        known = ((self.motion, MOTIONS), (self.relation, RELATIONS), (self.size, SIZES), (self.light, LIGHTS))
        for word, words in known:
            if word is not None and word not in words:
                raise ValueError(f"no {word!r} in this grammar: there are {', '.join(words)}")

    @property
    def objects(self) -> tuple[SpriteObject, ...]:
        """Back to front."""
        if self.other is None:
            return (self.subject,)
        return (self.subject, self.other) if self.relation == "behind" else (self.other, self.subject)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Combinations that training never shows, although it shows each of their parts.

    Args:
        motions: (name, motion) pairs of sprite scenes.
        colors: (colour, name) pairs of sprite scenes.
        places: (name, place) pairs of sprite scenes.
        shape_colors: (colour, shape) pairs of ray-cast scenes.
        shape_motions: (shape, motion) pairs of ray-cast scenes.
    """

    motions: frozenset[tuple[str, str]] = frozenset()
    colors: frozenset[tuple[str, str]] = frozenset()
    places: frozenset[tuple[str, str]] = frozenset()
    shape_colors: frozenset[tuple[str, str]] = frozenset()
    shape_motions: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def load(cls, path: str | Path) -> HeldOut:
        """Read a JSON object whose keys are our fields and whose values are lists of pairs.

        Raises:
            ValueError: a file that is missing or no JSON, a key that is not known, or what is no list of pairs.
        """
        try:
            content = dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as a held-out list: {error}") from error
        names = ("motions", "colors", "places", "shape_colors", "shape_motions")
        unknown = sorted(set(content) - {*names, "note"})
        if unknown:
            raise ValueError(
                f"{path}: {', '.join(unknown)} is not known; a held-out list has {', '.join(names)}"
            )
        try:
            return cls(
                **{name: frozenset((str(a), str(b)) for a, b in content.get(name, ())) for name in names}
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} holds something else than lists of pairs of words: {error}") from error

    def holds(self, scene: SpriteScene) -> bool:
        """Whether the scene shows any combination of the list."""
        return (
            (scene.subject.name, scene.motion) in self.motions
            or any((o.color, o.name) in self.colors for o in scene.objects)
            or any((o.name, scene.place) in self.places for o in scene.objects)
        )


def generator(*key: object) -> Random:
    """A source of randomness that depends on the key alone, alike on every machine."""
    return Random("/".join(map(str, key)))  # noqa: S311


def draw_scene(
    concepts: Sequence[Concept],
    seed: int,
    index: int,
    *,
    held_out: HeldOut | None = None,
    only_held_out: bool = False,
) -> SpriteScene:
    """Scene number `index` of the stream `seed`.

    Args:
        concepts: what can be seen, e.g. `SpritePack.concepts`.
        seed: which stream.
        index: which scene of it.
        held_out: combinations never to draw.
        only_held_out: draw nothing but them.

    Raises:
        ValueError: when no scene is allowed, as with `only_held_out` and an empty list.
    """
    held_out = held_out or HeldOut()
    for attempt in range(10_000):
        scene = _draw(concepts, generator("sprites", seed, index, attempt))
        if held_out.holds(scene) == only_held_out:
            return scene
    raise ValueError(
        f"10000 scenes drawn and none is {'held out' if only_held_out else 'allowed'}: check {held_out}"
    )


def _draw(concepts: Sequence[Concept], rng: Random) -> SpriteScene:
    actors = [c for c in concepts if c.role == "actor"]
    props = [c for c in concepts if c.role == "prop"]
    draw = rng.random()
    alone = draw < 0.35 or not props
    pair = 0.35 <= draw < 0.80 and bool(actors) and bool(props)
    concept = rng.choice(actors if actors and (alone or pair) else props)
    motion = rng.choice(MOTIONS)
    size = rng.choice(SIZES) if rng.random() < 0.25 and motion not in ("grows", "shrinks") else None
    sideways = motion in ("moves left", "moves right")
    relation = rng.choice(RELATIONS[:2] if sideways else (*RELATIONS[:2], *RELATIONS)) if pair else None
    place = rng.choice(BACKDROPS)
    track = _draw_track(motion, size, relation, rng)
    other = None
    if pair:
        other = _object(rng.choice(props), "stands still", _draw_stand(track, relation, rng), rng)
    light = rng.choice(LIGHTS) if rng.random() < 0.15 and place != "at night" else None
    return SpriteScene(
        subject=_object(concept, motion, track, rng),
        motion=motion,
        place=place,
        backdrop=draw_backdrop(place, rng),
        other=other,
        relation=relation,
        size=size,
        light=light,
        says_place=rng.random() < 0.8,
        wording=rng.randrange(1000),
    )


def _object(concept: Concept, motion: str, track: Track, rng: Random) -> SpriteObject:
    flip = rng.random() < 0.5
    if concept.facing != "front" and motion in ("moves left", "moves right"):
        flip = concept.facing != motion.removeprefix("moves ")
    color = rng.choice(tuple(COLORS)) if concept.role == "prop" else None
    animated = motion != "stands still"
    return SpriteObject(
        name=concept.name, color=color, track=track, flip=flip, animated=animated, phase=rng.random()
    )


def _draw_track(motion: str, size: str | None, relation: str | None, rng: Random) -> Track:
    low, high = {"big": (0.86, 0.96), "small": (0.42, 0.50), None: (0.62, 0.80)}[size]
    if motion in ("grows", "shrinks"):
        low, high = 0.56, 0.66
    scale = rng.uniform(low, high) * (0.9 if relation else 1.0)
    x = rng.uniform(0.36, 0.64) if relation else rng.uniform(0.3, 0.7)
    y = rng.uniform(0.5, 0.62)
    phase = rng.uniform(0, 2 * pi)
    if motion == "dances":
        return Track(
            x=x, y=y, size=scale, rock=rng.uniform(0.28, 0.4), sway=0.03, hop=rng.uniform(0.06, 0.09),
            rate=rng.uniform(0.5, 0.6), phase=phase,
        )  # fmt: skip
    if motion == "jumps":
        return Track(
            x=x, y=0.66, size=scale, hop=rng.uniform(0.28, 0.36), rate=rng.uniform(0.25, 0.35), phase=phase
        )
    if motion == "spins":
        return Track(x=x, y=y, size=scale, turns=rng.choice((-2.0, -1.5, 1.5, 2.0)))
    if motion in ("moves left", "moves right"):
        sign = 1 if motion == "moves right" else -1
        return Track(x=rng.uniform(0.46, 0.54), y=y, size=scale, dx=sign * rng.uniform(0.5, 0.72))
    if motion in ("rises", "falls"):
        sign = 1 if motion == "falls" else -1
        return Track(x=x, y=0.5, size=scale, dy=sign * rng.uniform(0.42, 0.62))
    if motion in ("grows", "shrinks"):
        sign = 1 if motion == "grows" else -1
        return Track(x=x, y=y, size=scale, zoom=sign * rng.uniform(0.9, 1.1))
    return Track(x=x, y=y, size=scale)


def _draw_stand(subject: Track, relation: str | None, rng: Random) -> Track:
    """Where the second object stands, so that the relation is seen: overlapping in depth, or clear of it."""
    if relation == "next to":
        gap = rng.uniform(0.34, 0.38) * (1 if subject.x < 0.5 else -1)
        return Track(x=subject.x + gap, y=rng.uniform(0.55, 0.65), size=rng.uniform(0.4, 0.52))
    side = rng.choice((-1, 1))
    size = rng.uniform(0.56, 0.74) if relation == "in front of" else rng.uniform(0.38, 0.48)
    gap = rng.uniform(0.12, 0.2)
    y = rng.uniform(0.48, 0.58) if relation == "in front of" else rng.uniform(0.62, 0.7)
    return Track(x=min(max(subject.x + side * gap, 0.18), 0.82), y=y, size=size)
