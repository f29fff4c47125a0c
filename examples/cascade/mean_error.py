"""A mean, and how well it is known."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean of n values and its standard error, s / √n with n - 1 in s; one value has none."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return statistics.fmean(values), error


def over_groups(values: Iterable[tuple[object, float]]) -> tuple[float, float | None]:
    """Of (group, value): the mean of the groups' means, and its standard error over the groups.

    Videos of one prompt are no independent witnesses of how a model does on prompts; the prompts are.
    """
    groups: dict[object, list[float]] = {}
    for group, value in values:
        groups.setdefault(group, []).append(value)
    return mean_and_error([statistics.fmean(own) for own in groups.values()])
