"""From readings to the rows' figures: means, and standard errors over prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mean_error import over_groups
from table_sets import At, Figure, Readings, Renders
from torch import Tensor

from vdm_blocks.metrics import r_precision

COST = ("evaluations", "cpu", "seconds")
PLAIN = ("score", "steadiness", "change", "flicker", "edge", *COST)
ATTRIBUTES = ("object", "color", "motion")


def figures(readings: Readings, pool: Tensor, renders: Renders) -> dict[str, Figure]:
    """All figures of one row: `mean`, `error`, and `n`, how many videos have one.

    Args:
        readings: of one row.
        pool: (P, D) embeddings of the captions of prompts 0 to P - 1, to be found among.
        renders: what the embeddings are compared with.
    """
    found = {name: figure(own) for name, own in values(readings, pool).items()}
    return found | renders.distances(readings)


def values(readings: Readings, pool: Tensor) -> dict[str, dict[At, float]]:
    """What each video has of its own."""
    found = {name: {at: float(r[name]) for at, r in readings.items() if name in r} for name in PLAIN}
    for name in ATTRIBUTES:
        found[name] = {
            at: float(r["attributes"][name]) for at, r in readings.items() if name in r["attributes"]
        }
    found["precision"] = precision(readings, pool)
    return {name: own for name, own in found.items() if own}


def precision(readings: Readings, pool: Tensor) -> dict[At, float]:
    """For each video of a prompt in the pool, 1 if its own caption is the nearest of all, else 0.

    The video is one embedding, the mean of its frames'; the paper asks every frame.
    """
    found: dict[At, float] = {}
    for seed in {seed for _, seed in readings}:
        own = {number: r for (number, s), r in readings.items() if s == seed and number < len(pool)}
        videos = pool.clone()
        for number, reading in own.items():
            videos[number] = torch.tensor(reading["embedding"])
        hits = r_precision(pool, videos, pool=len(pool))
        found |= {(number, seed): float(hits[number]) for number in own}
    return found


def figure(own: Mapping[At, float]) -> Figure:
    """Mean of the prompts' means, and its standard error over the prompts; a single prompt has none."""
    mean, error = over_groups((number, value) for (number, _), value in own.items())
    return {"mean": mean, "error": error, "n": len(own)}


def compare(full: Readings, few: Readings, pool: Tensor, renders: Renders) -> dict[str, dict[str, Any]]:
    """Of each figure of quality, how `few` differs from `full` on the prompts and seeds that both have.

    `difference` and its `error` are of the pairs; `within` says whether the difference is no more than one standard
    error of `full`, and is None where a single prompt has none.
    """
    both = sorted(full.keys() & few.keys())
    full, few = ({at: own[at] for at in both} for own in (full, few))
    one, other = values(full, pool), values(few, pool)
    apart = {
        name: over_groups((at[0], other[name][at] - value) for at, value in one[name].items())
        for name in one
        if name in other and name not in COST
    }
    bounds = {name: figure(own) for name, own in one.items()} | renders.distances(full)
    out: dict[str, dict[str, Any]] = {}
    for name, (difference, error) in (apart | renders.differences(full, few)).items():
        bound = bounds[name]["error"]
        within = None if bound is None else abs(difference) <= bound
        out[name] = {"difference": difference, "error": error, "within": within}
    return out
