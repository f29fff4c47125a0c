"""Permanence on rendered scenes, with and without a swap planted behind the cover."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from vdm_blocks.data import Raster, SolidScene, SolidTruth, render_solids, solid_truth
from vdm_blocks.data.colors import COLORS
from vdm_blocks.data.solids import Camera, Solid
from vdm_blocks.metrics import color_mask, permanence, pieces, sight, track_error

RASTER = Raster(frames=16, height=36, width=60, fps=3.0)
GREY = ((0.62, 0.64, 0.70), (0.86, 0.87, 0.89))


class Clip(NamedTuple):
    video: Tensor
    truth: SolidTruth


@cache
def clip(**changes: object) -> Clip:
    """A sphere that passes behind a box; after the middle it is what `changes` make of it."""
    ball = Solid(shape="sphere", color="red", size=0.5, y=1.6, dx=6.0)
    scene = SolidScene(
        subject=ball,
        motion="moves right",
        other=Solid(shape="box", color="blue", size=0.9, y=-0.2),
        relation="behind",
        camera=Camera(elevation=0.15),
        sky=GREY,
    )
    other = replace(scene, subject=replace(ball, **changes))  # type: ignore[arg-type]
    half = RASTER.frames // 2
    video = render_solids((scene,) * half + (other,) * half, RASTER)
    return Clip(video[None], solid_truth(scene, RASTER))


def measured(one: Clip, *, color: str = "red") -> dict[str, float]:
    mask = color_mask(one.video, COLORS[color])
    found = permanence(one.video, mask, one.truth.visible[None, :, 0])
    return {**{name: float(value) for name, value in found._asdict().items()}, "kept": float(found.kept())}


def test_the_same_thing_comes_out() -> None:
    found = measured(clip())
    assert found["returned"] == 1
    assert found["kept"] == 1
    assert max(found["color"], found["size"], found["shape"], found["speed"]) < 0.12


@pytest.mark.parametrize(
    ("changes", "feature", "least"),
    [
        ({"size": 0.75}, "size", 0.5),
        ({"shape": "cone"}, "shape", 0.2),
        ({"dx": 2.5}, "speed", 0.4),
        ({"dy": 2.0, "dx": -6.0}, "speed", 1.0),
    ],
)
def test_a_planted_change_shows_in_its_own_number(
    changes: dict[str, object], feature: str, least: float
) -> None:
    same, found = measured(clip()), measured(clip(**changes))
    assert found[feature] > max(least, 2.5 * same[feature])
    assert found["kept"] == 0


def test_another_colour_is_a_thing_that_did_not_come_back() -> None:
    found = measured(clip(color="green"))
    assert found["returned"] == 0
    assert found["color"] != found["color"], "nothing to compare"
    assert found["kept"] == 0


def test_a_tracker_that_follows_any_thing_sees_the_colour_change() -> None:
    one = clip(color="orange")
    mask = color_mask(one.video, COLORS["red"]) | color_mask(one.video, COLORS["orange"])
    found = permanence(one.video, mask, one.truth.visible[None, :, 0])
    assert float(found.color) > 0.1
    assert float(found.returned) == 1


def test_the_place_is_that_of_the_track() -> None:
    one = clip()
    seen = sight(one.video, color_mask(one.video, COLORS["red"]))
    whole = (one.truth.visible[:, 0] > 0.97)[None]
    right = track_error(seen, one.truth.tracks[None, :, 0], whole, height=36)
    assert float(right.distance) < 0.03
    assert float(right.missed) == 0
    frozen = one.video[:, :, :1].expand_as(one.video)
    seen = sight(frozen, color_mask(frozen, COLORS["red"]))
    assert float(track_error(seen, one.truth.tracks[None, :, 0], whole, height=36).distance) > 0.3
    gone = torch.zeros_like(whole)[..., None, None].expand(1, 16, 36, 60)
    lost = track_error(sight(one.video, gone), one.truth.tracks[None, :, 0], whole, height=36)
    assert float(lost.missed) == 1
    assert bool(lost.distance.isnan())


def test_samples_are_scored_alone() -> None:
    clips = [clip(), clip(size=0.75)]
    video = torch.cat([c.video for c in clips])
    visible = torch.stack([c.truth.visible[:, 0] for c in clips])
    mask = color_mask(video, COLORS["red"])
    both, turned = permanence(video, mask, visible), permanence(video.flip(0), mask.flip(0), visible.flip(0))
    for name, values in both._asdict().items():
        alone = torch.stack([torch.tensor(measured(c)[name]) for c in clips])
        torch.testing.assert_close(values.float(), alone.float())
        torch.testing.assert_close(getattr(turned, name).flip(0), values)


def test_pieces_are_counted() -> None:
    mask = torch.zeros(2, 3, 8, 9, dtype=torch.bool)
    mask[0, 0, 1:3, 1:3] = mask[0, 0, 5:7, 5:8] = True
    mask[0, 1, 1:3, 1:3] = mask[0, 1, 3:5, 3:5] = True  # they touch at a corner
    mask[0, 2, 4, 4] = True
    mask[1, 0] = True
    assert pieces(mask).tolist() == [[2, 1, 0], [1, 0, 0]]
    assert pieces(mask, least=1).tolist() == [[2, 1, 1], [1, 0, 0]]


def test_what_does_not_fit_is_refused() -> None:
    one = clip()
    mask = color_mask(one.video, COLORS["red"])
    with pytest.raises(ValueError, match="hidden in one"):
        permanence(one.video, mask, torch.ones(1, 16))
    with pytest.raises(ValueError, match="visible is"):
        permanence(one.video, mask, torch.ones(1, 15))
    with pytest.raises(ValueError, match="is grey"):
        color_mask(one.video, (0.9, 0.9, 0.9))
    with pytest.raises(ValueError, match="is bool"):
        sight(one.video, mask.float())
    with pytest.raises(ValueError, match="ought to show"):
        track_error(
            sight(one.video, mask), one.truth.tracks[None, :, 0], torch.zeros(1, 16).bool(), height=36
        )
