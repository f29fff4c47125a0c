"""What a caption says of a sprite scene."""

from __future__ import annotations

from vdm_blocks.data.colors import a, join
from vdm_blocks.data.scenes import SpriteScene

_PROGRESSIVE = {
    "stands still": "standing still", "dances": "dancing", "jumps": "jumping", "spins": "spinning",
    "moves left": "moving left", "moves right": "moving right", "rises": "rising", "falls": "falling",
    "grows": "growing", "shrinks": "shrinking",
}  # fmt: skip


def caption(scene: SpriteScene) -> str:
    """What a clip of the scene shows, in one of four wordings that `scene.wording` picks."""
    subject = _subject(scene)
    place = scene.place if scene.says_place else ""
    relation = _relation(scene)
    kind = scene.wording % 4
    if kind == 3 and place:
        return join(f"{place},", subject, scene.motion, relation, scene.light)
    if kind == 2:
        return join(subject, "is", _PROGRESSIVE[scene.motion], relation, place, scene.light)
    if kind == 1 and scene.light:
        return join(subject, scene.motion, relation, scene.light, place)
    return join(subject, scene.motion, relation, place, scene.light)


def still_caption(scene: SpriteScene) -> str:
    """What one frame of the scene shows: the same without motion."""
    place = scene.place if scene.says_place else ""
    words = join(_subject(scene), _relation(scene), place, scene.light)
    return f"a picture of {words}" if scene.wording % 3 == 2 else words


def _subject(scene: SpriteScene) -> str:
    noun = scene.subject.noun
    return a(noun if scene.size is None else f"{scene.size} {noun}")


def _relation(scene: SpriteScene) -> str:
    return f"{scene.relation} {a(scene.other.noun)}" if scene.other is not None else ""
