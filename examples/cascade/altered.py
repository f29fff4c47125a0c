"""Captions that are wrong in one word: the hardest company that a caption can be found among."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from vdm_blocks.data.backdrops import BACKDROPS
from vdm_blocks.data.captions import caption
from vdm_blocks.data.colors import COLORS
from vdm_blocks.data.scenes import MOTIONS, RELATIONS, SpriteScene
from vdm_blocks.data.shapes import SHAPES
from vdm_blocks.data.solid_captions import solid_caption
from vdm_blocks.data.solids import SOLID_MOTIONS, SolidScene
from vdm_blocks.data.sprites import Concept

ALTERABLE = ("object", "color", "motion", "second", "place", "relation")


def words(scene: object) -> str:
    """A scene's caption.

    Raises:
        ValueError: neither a sprite scene nor a ray-cast one.
    """
    if isinstance(scene, SpriteScene):
        return caption(scene)
    if isinstance(scene, SolidScene):
        return solid_caption(scene)
    raise ValueError(f"a scene is a SpriteScene or a SolidScene; got {type(scene).__name__}")


def altered(scene: object, concepts: Sequence[Concept], rng: Random) -> dict[str, str]:
    """For every attribute that the scene's caption names, a caption that is wrong in that one alone."""
    if isinstance(scene, SpriteScene):
        changes = _sprites(scene, concepts, rng)
    elif isinstance(scene, SolidScene):
        changes = _solids(scene, rng)
    else:
        raise ValueError(f"a scene is a SpriteScene or a SolidScene; got {type(scene).__name__}")
    return {name: words(change()) for name, change in changes.items()}


def _sprites(scene: SpriteScene, concepts: Sequence[Concept], rng: Random) -> dict[str, Callable[[], object]]:
    subject, other = scene.subject, scene.other
    role = next(c.role for c in concepts if c.name == subject.name)
    alike = [c.name for c in concepts if c.role == role and (other is None or c.name != other.name)]
    changes: dict[str, Callable[[], object]] = {
        "object": lambda: replace(scene, subject=replace(subject, name=_other(alike, subject.name, rng))),
        "motion": lambda: replace(scene, motion=_other(MOTIONS, scene.motion, rng)),
    }
    if scene.size is not None:  # "big" and "grows" are never said together
        changes["motion"] = lambda: replace(scene, motion=_other(MOTIONS[:-2], scene.motion, rng))
    if subject.color is not None:
        changes["color"] = lambda: replace(
            scene, subject=replace(subject, color=_other(tuple(COLORS), str(subject.color), rng))
        )
    if other is not None:
        props = [c.name for c in concepts if c.role == "prop" and c.name != subject.name]
        changes["second"] = lambda: replace(scene, other=replace(other, name=_other(props, other.name, rng)))
        changes["relation"] = lambda: replace(scene, relation=_other(RELATIONS, str(scene.relation), rng))
        if other.color is not None and subject.color is None:
            changes["color"] = lambda: replace(
                scene, other=replace(other, color=_other(tuple(COLORS), str(other.color), rng))
            )
    if scene.says_place:
        changes["place"] = lambda: replace(scene, place=_other(BACKDROPS, scene.place, rng))
    return changes


def _solids(scene: SolidScene, rng: Random) -> dict[str, Callable[[], object]]:
    subject, other = scene.subject, scene.other
    taken = () if other is None else (other.color,)
    colors = [color for color in COLORS if color not in taken]
    changes: dict[str, Callable[[], object]] = {
        "object": lambda: replace(
            scene, subject=replace(subject, shape=_other(tuple(SHAPES), subject.shape, rng))
        ),
        "color": lambda: replace(scene, subject=replace(subject, color=_other(colors, subject.color, rng))),
        "motion": lambda: replace(scene, motion=_other(SOLID_MOTIONS, scene.motion, rng)),
    }
    if other is not None:
        changes["second"] = lambda: replace(
            scene, other=replace(other, shape=_other(tuple(SHAPES), other.shape, rng))
        )
        changes["relation"] = lambda: replace(scene, relation=_other(RELATIONS, str(scene.relation), rng))
    return changes


def _other(words: Sequence[str], own: str, rng: Random) -> str:
    return rng.choice([word for word in words if word != own])
