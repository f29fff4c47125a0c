"""Features of a set of videos: all of them, or their mean and covariance alone; streaming and mergeable."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["FeatureBank", "GaussianStats"]


class GaussianStats:
    """Number, mean and covariance of the features of a set, gathered batch by batch in float64.

    Two sets of n_a and n_b features join as
        mean = mean_a + d n_b / (n_a + n_b),  S = S_a + S_b + d d^T n_a n_b / (n_a + n_b),  d = mean_b - mean_a
    where S is the sum of squared deviations (Chan, Golub and LeVeque 1979, eq. 2.1), so that the result does not
    depend on batches or on how many processes shared the work, to rounding.

    Args:
        width: D, of a feature.
        extractor: names what made the features; sets of different names are never joined or compared.

    >>> stats = GaussianStats(2, extractor="pixels")
    >>> stats.update(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
    >>> stats.mean.tolist(), stats.covariance.tolist()
    ([1.0, 1.0], [[2.0, 0.0], [0.0, 0.0]])
    """

    def __init__(self, width: int, *, extractor: str) -> None:
        if width < 1:
            raise ValueError(f"a feature has at least one number; got width={width}")
        self.width = width
        self.extractor = extractor
        self.count = 0
        self._mean = torch.zeros(width, dtype=torch.float64)
        self._square = torch.zeros(width, width, dtype=torch.float64)

    @property
    def mean(self) -> Tensor:
        """(D,) float64."""
        return self._mean.clone()

    @property
    def covariance(self) -> Tensor:
        """(D, D) float64, with count - 1 below the line.

        Raises:
            ValueError: fewer than two features.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs two features at least; there are {self.count}")
        return self._square / (self.count - 1)

    def update(self, features: Tensor) -> None:
        """Adds features (N, D).

        Raises:
            ValueError: another shape, or numbers that are not finite.
        """
        check_features(features, self.width)
        x = features.detach().cpu().double()
        mean = x.mean(0) if len(x) else self._mean
        self._join(len(x), mean, (x - mean).T @ (x - mean))

    def merge_from(self, other: GaussianStats) -> None:
        """Adds all that `other` has gathered.

        Raises:
            ValueError: features of another kind.
        """
        check_same(self, other)
        self._join(other.count, other._mean, other._square)

    def save(self, path: str | Path, *, dataset: str) -> None:
        """Writes a safetensors file that says what it is of.

        Args:
            path: where.
            dataset: what was measured: `Fingerprint.text` of the videos.

        Raises:
            ValueError: no data set named, or a file that cannot be written.
        """
        tensors = {"mean": self._mean, "square": self._square}
        _write(Path(path), tensors, "GaussianStats", self.extractor, dataset, self.count)

    @classmethod
    def load(cls, path: str | Path, *, extractor: str, dataset: str) -> GaussianStats:
        """Reads what `save` wrote, of this extractor and these videos and of no others.

        Raises:
            ValueError: no such file, or it is of another kind, another extractor or another data set.
        """
        count, tensors = _read(Path(path), "GaussianStats", extractor, dataset)
        stats = cls(len(tensors["mean"]), extractor=extractor)
        stats.count, stats._mean, stats._square = count, tensors["mean"], tensors["square"]
        return stats

    def _join(self, count: int, mean: Tensor, square: Tensor) -> None:
        total = self.count + count
        if count == 0:
            return
        d = mean - self._mean
        self._square = self._square + square + torch.outer(d, d) * (self.count * count / total)
        self._mean = self._mean + d * (count / total)
        self.count = total


class FeatureBank:
    """The features of a set themselves, for what needs pairs of them.

    Args:
        width: D, of a feature.
        extractor: names what made the features; sets of different names are never joined or compared.
    """

    def __init__(self, width: int, *, extractor: str) -> None:
        if width < 1:
            raise ValueError(f"a feature has at least one number; got width={width}")
        self.width = width
        self.extractor = extractor
        self._parts: list[Tensor] = []

    @property
    def count(self) -> int:
        """How many features there are."""
        return sum(len(part) for part in self._parts)

    @property
    def features(self) -> Tensor:
        """(N, D) float64."""
        return torch.cat([torch.empty(0, self.width, dtype=torch.float64), *self._parts])

    def update(self, features: Tensor) -> None:
        """Adds features (N, D).

        Raises:
            ValueError: another shape, or numbers that are not finite.
        """
        check_features(features, self.width)
        self._parts.append(features.detach().cpu().double().clone())

    def merge_from(self, other: FeatureBank) -> None:
        """Adds all of `other`'s.

        Raises:
            ValueError: features of another kind.
        """
        check_same(self, other)
        self._parts += list(other._parts)

    def stats(self) -> GaussianStats:
        """Their number, mean and covariance."""
        stats = GaussianStats(self.width, extractor=self.extractor)
        stats.update(self.features)
        return stats

    def save(self, path: str | Path, *, dataset: str) -> None:
        """Writes a safetensors file that says what it is of; see `GaussianStats.save`."""
        _write(Path(path), {"features": self.features}, "FeatureBank", self.extractor, dataset, self.count)

    @classmethod
    def load(cls, path: str | Path, *, extractor: str, dataset: str) -> FeatureBank:
        """Reads what `save` wrote, of this extractor and these videos and of no others.

        Raises:
            ValueError: no such file, or it is of another kind, another extractor or another data set.
        """
        _, tensors = _read(Path(path), "FeatureBank", extractor, dataset)
        bank = cls(tensors["features"].shape[1], extractor=extractor)
        bank.update(tensors["features"])
        return bank


def check_features(features: Tensor, width: int) -> None:
    """Refuses what is not (N, width) of finite numbers."""
    if features.ndim != 2 or features.shape[1] != width:
        raise ValueError(f"features are (N, {width}); got {tuple(features.shape)}")
    if not bool(torch.isfinite(features).all()):
        raise ValueError("features hold infinity or NaN; look at the videos that they came from")


def check_same(a: GaussianStats | FeatureBank, b: GaussianStats | FeatureBank) -> None:
    """Refuses two sets whose features do not compare."""
    if (a.extractor, a.width) != (b.extractor, b.width):
        raise ValueError(
            f"features of {a.extractor!r}, {a.width} wide, do not compare with those of {b.extractor!r}, "
            f"{b.width} wide; extract both sets in the same way"
        )


def _write(
    path: Path, tensors: dict[str, Tensor], kind: str, extractor: str, dataset: str, count: int
) -> None:
    if not dataset:
        raise ValueError("say what was measured: dataset=fingerprint.text of the videos")
    about = {"kind": kind, "extractor": extractor, "dataset": dataset, "count": json.dumps(count)}
    try:
        save_file(tensors, path, metadata=about)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot write {path}: {error}; give a folder that is there") from error


def _read(path: Path, kind: str, extractor: str, dataset: str) -> tuple[int, dict[str, Tensor]]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist; measure the reference and save it there")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read ({error}); measure the reference again") from error
    for name, wanted in (("kind", kind), ("extractor", extractor), ("dataset", dataset)):
        if about.get(name) != wanted:
            raise ValueError(
                f"{path} has {name} {about.get(name)!r} and {wanted!r} was asked for: it is of something else; "
                "measure the reference again and save it elsewhere"
            )
    return json.loads(about["count"]), tensors
