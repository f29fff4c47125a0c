"""Attribute by attribute: is what the text asks for what the video shows?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vdm_blocks.metrics.objects import Sightings

__all__ = ["AttributeScore", "AttributeTally", "depth_order", "motion_direction", "nearest_color"]

LEAST = 10


class AttributeScore(NamedTuple):
    """Of one attribute: the share that is right and its 95 % interval.

    `baseline` is what always saying the commonest answer would get, of that many `videos`.
    """

    accuracy: float
    low: float
    high: float
    baseline: float
    videos: int


class AttributeTally:
    """Right and wrong answers, attribute by attribute, gathered batch by batch and mergeable.

    An attribute that a scene does not have (the colour of nothing) is left out of its truth, and not counted.

    >>> tally = AttributeTally()
    >>> tally.update([{"color": "red"}] * 10, [{"color": "red"}] * 8 + [{"color": "blue"}] * 2)
    >>> tally.scores()["color"].accuracy, tally.scores()["color"].baseline
    (0.8, 0.8)
    """

    def __init__(self) -> None:
        self._right: Counter[str] = Counter()
        self._truth: dict[str, Counter[str]] = {}

    def update(self, read: Sequence[Mapping[str, str]], truth: Sequence[Mapping[str, str]]) -> None:
        """Adds what was read off videos, and what is true.

        Raises:
            ValueError: other numbers of each, or an attribute that was not read.
        """
        if len(read) != len(truth):
            raise ValueError(f"{len(read)} readings and {len(truth)} truths; give one of each a video")
        for number, (found, true) in enumerate(zip(read, truth, strict=True)):
            missing = sorted(set(true) - set(found))
            if missing:
                raise ValueError(f"video {number} was not read for {', '.join(missing)}")
        for found, true in zip(read, truth, strict=True):
            for name, answer in true.items():
                self._truth.setdefault(name, Counter())[answer] += 1
                self._right[name] += found[name] == answer

    def merge_from(self, other: AttributeTally) -> None:
        """Adds all of `other`'s."""
        self._right += other._right
        for name, answers in other._truth.items():
            self._truth.setdefault(name, Counter()).update(answers)

    def scores(self) -> dict[str, AttributeScore]:
        """Every attribute's score; the interval is Wilson's (1927).

        Raises:
            ValueError: an attribute of fewer than ten videos.
        """
        found = {}
        for name, answers in self._truth.items():
            count = answers.total()
            if count < LEAST:
                raise ValueError(f"{name!r} was asked of {count} videos; a share needs {LEAST} or more")
            share, z = self._right[name] / count, 1.959964
            middle = (share + z * z / (2 * count)) / (1 + z * z / count)
            reach = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
            common = answers.most_common(1)[0][1] / count
            found[name] = AttributeScore(
                share, max(0.0, middle - reach), min(1.0, middle + reach), common, count
            )
        return found


def nearest_color(color: Tensor, palette: Mapping[str, Sequence[float]]) -> list[str]:
    """The palette's name for each colour (N, 3) in [-1, 1]: nearest in chroma direction and in saturation.

    >>> nearest_color(torch.tensor([[0.2, -0.7, -0.6]]), {"red": (0.86, 0.10, 0.13), "white": (0.95, 0.95, 0.97)})
    ['red']
    """
    table = torch.tensor([tuple(value) for value in palette.values()], dtype=torch.float64)
    shown = (color.double() + 1) / 2

    def hue(x: Tensor) -> Tensor:
        chroma = x - x.mean(1, keepdim=True)
        return chroma / x.amax(1, keepdim=True).clamp(min=1e-6)

    away = torch.cdist(hue(shown), hue(table.to(shown.device)))
    names = list(palette)
    return [names[i] for i in away.argmin(1).tolist()]


def motion_direction(seen: Sightings, *, height: int, least: float = 0.1, growth: float = 0.25) -> list[str]:
    """How each thing moves through the picture: left, right, up, down; closer, away; or still.

    The larger of the shift between the means of the first and the last third of its sightings, over `least` of the
    picture's height, and of the |log| of the growth of its width, over `growth`, decides; below both it is still, and
    what is hardly ever seen is "unseen".

    Args:
        seen: of B things.
        height: rows of the picture.
        least: the smallest shift that counts.
        growth: the smallest |log| ratio of widths that counts.
    """
    found = []
    for area, centre in zip(seen.area, seen.centre, strict=True):
        keep = area.isfinite()
        count = int(keep.sum())
        if count < 3:
            found.append("unseen")
            continue
        third = max(1, count // 3)
        places, widths = centre[keep], area[keep].sqrt().log()
        down, right = ((places[-third:].mean(0) - places[:third].mean(0)) / height / least).tolist()
        nearer = float(widths[-third:].mean() - widths[:third].mean()) / growth
        amounts = {
            "left": -right, "right": right, "up": -down, "down": down, "closer": nearer, "away": -nearer, "still": 1.0,
        }  # fmt: skip
        found.append(max(amounts, key=lambda name: amounts[name]))
    return found


def depth_order(
    video: Tensor, first: Tensor, second: Tensor, first_color: Sequence[float], second_color: Sequence[float]
) -> Tensor:
    """The share of the pixels in which two things overlap that show the first one: near 1 when it is in front.

    Args:
        video: (B, 3, T, H, W) in [-1, 1].
        first, second: bool (B, T, H, W), the pixels that each would cover if it stood alone.
        first_color, second_color: red, green, blue in [0, 1].

    Returns:
        (B,) float64; NaN where they never overlap.
    """
    shown = (video.double() + 1) / 2

    def away(color: Sequence[float]) -> Tensor:
        wanted = torch.tensor(tuple(color), dtype=torch.float64, device=video.device).view(1, 3, 1, 1, 1)
        unit = _unlit(wanted)
        return (_unlit(shown) - unit).square().sum(1)

    both = first & second
    won = (away(first_color) < away(second_color)) & both
    return won.sum((1, 2, 3)).double() / both.sum((1, 2, 3))


def _unlit(x: Tensor) -> Tensor:
    """Colour without the strength of the light."""
    return x / x.square().sum(1, keepdim=True).sqrt().clamp(min=1e-6)
