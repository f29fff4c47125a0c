"""From readings to the rows' figures: means, and standard errors over prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mean_error import mean_and_error, over_groups
from table_read import Reading
from torch import Tensor

from vdm_blocks.metrics import FeatureBank, bootstrap_interval, frechet_distance, kernel_distance, r_precision

At = tuple[int, int]
"""Number of the prompt, and seed."""
Readings = Mapping[At, Reading]
Figure = dict[str, float | None]
COST = ("evaluations", "cpu", "seconds")
PLAIN = ("score", "steadiness", "change", "flicker", "edge", *COST)
ATTRIBUTES = ("object", "color", "motion")


def figures(readings: Readings, pool: Tensor, reference: Tensor, *, extractor: str) -> dict[str, Figure]:
    """All figures of one row: `mean`, `error`, and `n`, how many videos have one.

    Args:
        readings: of one row.
        pool: (P, D) embeddings of the captions of prompts 0 to P - 1, to be found among.
        reference: (M, D) embeddings of renders.
        extractor: names what embedded them.
    """
    found = {name: figure(own) for name, own in values(readings, pool).items()}
    return found | distances(readings, reference, extractor)


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


def distances(readings: Readings, reference: Tensor, extractor: str) -> dict[str, Figure]:
    """Kernel and Frechet distance of the embeddings to the reference's, where there are enough videos.

    The kernel distance's error is over the seeds' sets, of two videos or more each; the Frechet distance's is a
    quarter of the 95% interval over videos drawn again.
    """
    found: dict[str, Figure] = {}
    whole, together = _bank(reference, extractor), _bank(_embeddings(readings), extractor)
    if together.count >= 2:
        sets = [
            _bank(_embeddings({at: r for at, r in readings.items() if at[1] == seed}), extractor)
            for seed in sorted({seed for _, seed in readings})
        ]
        several = min(own.count for own in sets) >= 2
        error = mean_and_error([kernel_distance(own, whole) for own in sets])[1] if several else None
        found["kernel"] = {"mean": kernel_distance(together, whole), "error": error, "n": together.count}
    if min(together.count, whole.count) > together.width:
        low, high = bootstrap_interval(together, whole.stats())
        mean = frechet_distance(together.stats(), whole.stats())
        found["frechet"] = {"mean": mean, "error": (high - low) / 4, "n": together.count}
    return found


def figure(own: Mapping[At, float]) -> Figure:
    """Mean of the prompts' means, and its standard error over the prompts; a single prompt has none."""
    mean, error = over_groups((number, value) for (number, _), value in own.items())
    return {"mean": mean, "error": error, "n": len(own)}


def compare(full: Readings, few: Readings, pool: Tensor) -> dict[str, dict[str, Any]]:
    """Of each figure of quality, how `few` differs from `full` on the prompts and seeds that both have.

    `difference` and its `error` are of the pairs; `within` says whether the difference is no more than one standard
    error of `full`, and is None where a single prompt has none.
    """
    both = sorted(full.keys() & few.keys())
    one, other = (values({at: own[at] for at in both}, pool) for own in (full, few))
    out: dict[str, dict[str, Any]] = {}
    for name in (name for name in one if name in other and name not in COST):
        pairs = over_groups((at[0], other[name][at] - value) for at, value in one[name].items())
        bound = figure(one[name])["error"]
        within = None if bound is None else abs(pairs[0]) <= bound
        out[name] = {"difference": pairs[0], "error": pairs[1], "within": within}
    return out


def _embeddings(readings: Readings) -> Tensor:
    return torch.tensor([r["embedding"] for _, r in sorted(readings.items())])


def _bank(features: Tensor, extractor: str) -> FeatureBank:
    """Embeddings of unit length, stretched to unit mean square."""
    width = features.shape[1]
    bank = FeatureBank(width, extractor=extractor)
    bank.update(torch.nn.functional.normalize(features.double(), dim=1) * width**0.5)
    return bank
