"""Where rays meet solids, in the solid's own frame, where each one is of unit size.

A ray is o + s d; o and d are (3, F, R), component first. All solids are convex and lie in [-1, 1]^3, z up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

FAR = float("inf")
_CLOSE = 1e-3


class Hit(NamedTuple):
    """Distance s along the ray, (F, R), infinite where it misses; and a function that gives the normals there."""

    distance: Tensor
    normal: Callable[[Tensor], Tensor]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=0)


def _roots(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Of a s^2 + 2 b s + c = 0, in order where a > 0; NaN where there are none."""
    root = (b * b - a * c).sqrt()
    return (-b - root) / a, (-b + root) / a


def _entry(near: Tensor, far: Tensor) -> Tensor:
    """`near` where the ray is inside between near and far and that lies ahead; comparisons with NaN are false."""
    return torch.where((near < far) & (near > _CLOSE), near, FAR)


def hit_sphere(o: Tensor, d: Tensor) -> Hit:
    """x^2 + y^2 + z^2 = 1."""
    near, far = _roots(_dot(d, d), _dot(o, d), _dot(o, o) - 1)
    return Hit(_entry(near, far), lambda p: p)


def hit_box(o: Tensor, d: Tensor) -> Hit:
    """max(|x|, |y|, |z|) = 1, by slabs."""
    one, two = (-1 - o) / d, (1 - o) / d
    near, far = torch.minimum(one, two).amax(dim=0), torch.maximum(one, two).amin(dim=0)

    def normal(p: Tensor) -> Tensor:
        size = p.abs()
        return p.sign() * (size == size.amax(dim=0))

    return Hit(_entry(near, far), normal)


def hit_cylinder(o: Tensor, d: Tensor) -> Hit:
    """x^2 + y^2 = 1 between z = -1 and z = 1, with both lids."""
    round_near, round_far = _roots(_dot(d[:2], d[:2]), _dot(o[:2], d[:2]), _dot(o[:2], o[:2]) - 1)
    one, two = (-1 - o[2]) / d[2], (1 - o[2]) / d[2]
    near = torch.maximum(round_near, torch.minimum(one, two))
    far = torch.minimum(round_far, torch.maximum(one, two))

    def normal(p: Tensor) -> Tensor:
        lid = p[2].abs() > p[:2].square().sum(dim=0).sqrt()
        zero = torch.zeros_like(p[2])
        return torch.stack([p[0].where(~lid, zero), p[1].where(~lid, zero), p[2].sign().where(lid, zero)])

    return Hit(_entry(near, far), normal)


def hit_cone(o: Tensor, d: Tensor) -> Hit:
    """x^2 + y^2 = ((1 - z) / 2)^2 between z = -1 and its apex z = 1, with the base."""
    w, e = (1 - o[2]) / 2, -d[2] / 2
    a = _dot(d[:2], d[:2]) - e * e
    sides = _roots(
        torch.where(a.abs() < 1e-7, 1e-7, a), _dot(o[:2], d[:2]) - w * e, _dot(o[:2], o[:2]) - w * w
    )
    base = (-1 - o[2]) / d[2]
    at_base = o[:2] + base * d[:2]
    best = torch.where((_dot(at_base, at_base) < 1) & (base > _CLOSE), base, FAR)
    for side in sides:
        z = o[2] + side * d[2]
        best = torch.where((z > -1) & (z < 1) & (side > _CLOSE) & (side < best), side, best)

    def normal(p: Tensor) -> Tensor:
        low = p[2] < -1 + 1e-4
        zero, slope = torch.zeros_like(p[2]), (1 - p[2]) / 4
        return torch.stack([p[0].where(~low, zero), p[1].where(~low, zero), slope.where(~low, zero - 1)])

    return Hit(best, normal)


SHAPES: Mapping[str, Callable[[Tensor, Tensor], Hit]] = MappingProxyType(
    {"sphere": hit_sphere, "box": hit_box, "cylinder": hit_cylinder, "cone": hit_cone}
)
"""The solids a ray-cast scene can hold, by the word that a caption says."""
