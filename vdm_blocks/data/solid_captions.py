"""What a caption says of a ray-cast scene."""

from __future__ import annotations

from vdm_blocks.data.colors import a, join
from vdm_blocks.data.solids import SolidScene

_PROGRESSIVE = {
    "stays still": "staying still", "moves left": "moving left", "moves right": "moving right",
    "comes closer": "coming closer", "moves away": "moving away", "bounces": "bouncing", "turns": "turning",
}  # fmt: skip


def solid_caption(scene: SolidScene) -> str:
    """What a clip of the scene shows, in one of two wordings, sometimes with the floor."""
    verb = scene.motion if scene.wording % 3 else f"is {_PROGRESSIVE[scene.motion]}"
    camera = f"as the camera {scene.camera_move}" if scene.camera_move else ""
    return join(a(scene.subject.noun), verb, _relation(scene), _floor(scene), camera)


def solid_still_caption(scene: SolidScene) -> str:
    """What one frame of the scene shows."""
    words = join(a(scene.subject.noun), _relation(scene), _floor(scene))
    return f"a picture of {words}" if scene.wording % 3 == 2 else words


def _relation(scene: SolidScene) -> str:
    return f"{scene.relation} {a(scene.other.noun)}" if scene.other is not None else ""


def _floor(scene: SolidScene) -> str:
    if scene.wording % 5 < 2:
        return ""
    return "on a plain floor" if scene.floor[0] == scene.floor[1] else "on a checkered floor"
