"""Readings of pixels against what the rendered scenes were made of, and the tally against hand computation."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from vdm_blocks.data import Raster, SolidScene, render_solids, solid_truth
from vdm_blocks.data.colors import COLORS
from vdm_blocks.data.solids import Camera, Solid
from vdm_blocks.metrics import (
    AttributeTally,
    color_mask,
    depth_order,
    motion_direction,
    nearest_color,
    pieces,
    sight,
)

RASTER = Raster(frames=5, height=24, width=40, fps=1.0)
GREY = ((0.62, 0.64, 0.70), (0.86, 0.87, 0.89))
HUES = ("red", "orange", "yellow", "green", "blue", "purple")


@cache
def scene(color: str = "red", *, dx: float = 0.0, dy: float = 0.0, y: float = 1.4) -> SolidScene:
    """A ball behind (y > 0) or before a box of another colour."""
    box = "blue" if color != "blue" else "yellow"
    return SolidScene(
        subject=Solid(shape="sphere", color=color, size=0.6, y=y, dx=dx, dy=dy, x=-0.7),
        motion="stays still",
        other=Solid(shape="box", color=box, size=0.7),
        relation="behind" if y > 0 else "in front of",
        camera=Camera(elevation=0.2),
        sky=GREY,
    )


def shown(one: SolidScene) -> tuple[Tensor, Tensor]:
    return render_solids(one, RASTER)[None], (solid_truth(one, RASTER).ids == 1)[None]


@pytest.mark.parametrize("color", HUES)
def test_colours_are_read_off_renders(color: str) -> None:
    video, mask = shown(scene(color))
    found = sight(video, mask).color[0].mean(0, keepdim=True)
    assert nearest_color(found, {name: COLORS[name] for name in HUES}) == [color]
    assert float((color_mask(video, COLORS[color]) & mask).sum() / mask.sum()) > 0.7


@pytest.mark.parametrize(
    ("path", "way"),
    [
        ({"dx": 2.5}, "right"),
        ({"dx": -2.5}, "left"),
        ({"dy": -3.5, "y": 1.0}, "closer"),
        ({"dy": 4.0, "y": 1.5}, "away"),
        ({}, "still"),
    ],
)
def test_directions_are_read_off_renders(path: dict[str, float], way: str) -> None:
    one = scene("red", **path)
    video, mask = shown(replace(one, other=None, relation=None))
    assert motion_direction(sight(video, mask), height=24) == [way]
    unseen = torch.zeros_like(mask)
    assert motion_direction(sight(video, unseen), height=24) == ["unseen"]


@pytest.mark.parametrize(("y", "in_front"), [(1.4, False), (-1.4, True)])
def test_depth_order_is_read_off_renders(y: float, in_front: bool) -> None:
    one = scene("red", y=y)
    alone = [
        (solid_truth(replace(one, subject=solid, other=None, relation=None), RASTER).ids == 1)[None]
        for solid in one.solids
    ]
    share = float(depth_order(shown(one)[0], alone[0], alone[1], COLORS["red"], COLORS["blue"]))
    assert (share > 0.9) if in_front else (share < 0.1)
    apart = torch.zeros_like(alone[0])
    assert depth_order(shown(one)[0], alone[0], apart, COLORS["red"], COLORS["blue"]).isnan().all()


def test_things_are_counted_on_renders() -> None:
    video, _ = shown(replace(scene("red"), other=Solid(shape="box", color="red", size=0.5, x=1.2)))
    assert pieces(color_mask(video, COLORS["red"], least=0.25)).tolist() == [[2] * 5]


def test_the_tally_counts_and_merges() -> None:
    truth = [{"color": c, "way": w} for c, w in zip("rrrrrrbbgg", "lrlrlrlrlr", strict=True)]
    read = [{"color": "r", "way": w} for w in "llllllllll"]
    whole, one, two = AttributeTally(), AttributeTally(), AttributeTally()
    whole.update(read, truth)
    one.update(read[:3], truth[:3])
    two.update(read[3:][::-1], truth[3:][::-1])
    one.merge_from(two)
    assert one.scores() == whole.scores()
    color, way = whole.scores()["color"], whole.scores()["way"]
    assert (color.accuracy, color.baseline, color.videos) == (0.6, 0.6, 10)
    assert (way.accuracy, way.baseline) == (0.5, 0.5)
    # Wilson's interval of 5 in 10, by hand: 1 / 2 ± 1.96 sqrt(1 / 40 + 1.96^2 / 400) / (1 + 1.96^2 / 10)
    reach = 1.959964 * (1 / 40 + 1.959964**2 / 400) ** 0.5 / (1 + 1.959964**2 / 10)
    assert (way.low, way.high) == pytest.approx((0.5 - reach, 0.5 + reach))


def test_truth_read_back_is_all_right() -> None:
    truth = [{"color": "r"}] * 6 + [{"color": "b", "count": "2"}] * 10
    tally = AttributeTally()
    tally.update([{"count": "2", **one} for one in truth], truth)
    assert [score.accuracy for score in tally.scores().values()] == [1.0, 1.0]
    assert tally.scores()["count"].videos == 10


def test_too_few_or_unread_videos_are_refused() -> None:
    tally = AttributeTally()
    tally.update([{"color": "r"}] * 9, [{"color": "r"}] * 9)
    with pytest.raises(ValueError, match="asked of 9 videos; a share needs 10"):
        tally.scores()
    with pytest.raises(ValueError, match="not read for way"):
        tally.update([{"color": "r"}], [{"color": "r", "way": "l"}])
    with pytest.raises(ValueError, match="1 readings and 2 truths"):
        tally.update([{}], [{}, {}])
