"""From readings to the rows' figures: means, and standard errors over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from table_read import Reading
from torch import Tensor

from vdm_blocks.metrics import (
    FeatureBank,
    GaussianStats,
    bootstrap_interval,
    frechet_distance,
    kernel_distance,
    r_precision,
)

Figure = dict[str, float]
PLAIN = ("score", "steadiness", "change", "flicker", "edge", "evaluations", "cpu", "seconds")
ATTRIBUTES = ("object", "color", "motion")


def figures(
    readings: Mapping[tuple[int, int], Reading], pool: Tensor, reference: Tensor, *, extractor: str
) -> dict[str, Figure]:
    """All figures of one row.

    Args:
        readings: by number of the prompt and seed.
        pool: (P, D) embeddings of the captions of prompts 0 to P - 1, to be found among.
        reference: (M, D) embeddings of renders.
        extractor: names what embedded them.
    """
    seeds = sorted({seed for _, seed in readings})
    by_seed = [{n: r for (n, s), r in sorted(readings.items()) if s == seed} for seed in seeds]
    found = {}
    for name in PLAIN:
        values = [[r[name] for r in own.values() if name in r] for own in by_seed]
        if all(values):
            found[name] = figure(values)
    for name in ATTRIBUTES:
        values = [
            [float(r["attributes"][name]) for r in own.values() if name in r["attributes"]] for own in by_seed
        ]
        if all(values):
            found[name] = figure(values)
    values = [precision(own, pool) for own in by_seed]
    if all(values):
        found["precision"] = figure(values)
    banks = [_bank(torch.tensor([r["embedding"] for r in own.values()]), extractor) for own in by_seed]
    whole = _bank(reference, extractor)
    if min(bank.count for bank in banks) >= 2:
        found["kernel"] = figure([[kernel_distance(bank, whole)] for bank in banks])
    together = _bank(torch.cat([bank.features for bank in banks]), extractor)
    if together.count > together.width and whole.count > whole.width:
        stats = _stats(whole)
        low, high = bootstrap_interval(together, stats, rounds=50)
        found["frechet"] = {"mean": frechet_distance(_stats(together), stats), "error": (high - low) / 3.92}
    return found


def precision(own: Mapping[int, Reading], pool: Tensor) -> list[float]:
    """For each video of a prompt in the pool, 1 if its own caption is the nearest of all, else 0."""
    numbers = [number for number in own if number < len(pool)]
    videos = pool.clone()
    for number in numbers:
        videos[number] = torch.tensor(own[number]["embedding"])
    hits = r_precision(pool, videos, pool=len(pool))
    return [float(hits[number]) for number in numbers]


def figure(values: Sequence[Sequence[float]]) -> Figure:
    """Mean of the seeds' means and its standard error; of one seed alone, that over its prompts."""
    means = [statistics.fmean(own) for own in values]
    spread = means if len(means) > 1 else list(values[0])
    error = statistics.stdev(spread) / len(spread) ** 0.5 if len(spread) > 1 else float("nan")
    return {"mean": statistics.fmean(means), "error": error}


def compare(full: Mapping[str, Figure], few: Mapping[str, Figure]) -> dict[str, dict[str, Any]]:
    """Of each figure of quality, whether `few` is within one standard error of `full`, and the difference."""
    out = {}
    for name in full:
        if name in few and name not in ("evaluations", "cpu", "seconds"):
            difference = few[name]["mean"] - full[name]["mean"]
            out[name] = {"within": abs(difference) <= full[name]["error"], "difference": difference}
    return out


def _bank(features: Tensor, extractor: str) -> FeatureBank:
    """Embeddings of unit length, stretched to unit mean square."""
    width = features.shape[1]
    bank = FeatureBank(width, extractor=extractor)
    bank.update(torch.nn.functional.normalize(features.double(), dim=1) * width**0.5)
    return bank


def _stats(bank: FeatureBank) -> GaussianStats:
    stats = GaussianStats(bank.width, extractor=bank.extractor)
    stats.update(bank.features)
    return stats
