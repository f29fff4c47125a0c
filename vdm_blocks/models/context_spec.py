"""How a network reads what it is told beside the video, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vdm_blocks.diffusion.values import check_numbers

__all__ = ["AttentionPoolSpec", "FourierSpec", "InverseCosineSpec", "MeanPoolSpec", "SinusoidSpec"]


@dataclass(frozen=True, kw_only=True)
class MeanPoolSpec:
    """The caption as one vector: the mean of its tokens (`MeanPool`)."""


@dataclass(frozen=True, kw_only=True)
class AttentionPoolSpec:
    """The caption as one vector: what a learned question finds in its tokens (`AttentionPool`).

    Attributes:
        heads: a divisor of the network's `text_width`.
    """

    heads: int = 4

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.heads < 1:
            raise ValueError(f"heads must be at least 1; got {self.heads}")


@dataclass(frozen=True, kw_only=True)
class InverseCosineSpec:
    """Log-SNR by its time under the cosine schedule (`LogSNREmbedding`): evenly spread, and flat beyond +-20.

    Attributes:
        features: sinusoids; even.
    """

    features: int = 64

    def __post_init__(self) -> None:
        check_numbers(self)
        _check_sinusoids(self.features)


@dataclass(frozen=True, kw_only=True)
class SinusoidSpec:
    """Sinusoids of the log-SNR itself (`ScalarEmbedding`), equally fine wherever it lies.

    Attributes:
        features: sinusoids; even.
        scale: factor on the log-SNR; the shortest period is 2 pi / scale.
    """

    features: int = 64
    scale: float = 10.0

    def __post_init__(self) -> None:
        check_numbers(self)
        _check_sinusoids(self.features)
        _check_positive("scale", self.scale)


@dataclass(frozen=True, kw_only=True)
class FourierSpec:
    """Waves of the log-SNR of random frequency (`FourierLogSNREmbedding`).

    Attributes:
        features: waves.
        bandwidth: standard deviation of their frequencies, in turns per unit of log-SNR. EDM2 reads ln(sigma) / 4 =
            -logsnr / 8 at a bandwidth of 1 (arXiv 2312.02696, appendix B.3).
    """

    features: int = 64
    bandwidth: float = 0.125

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.features < 1:
            raise ValueError(f"features must be at least 1; got {self.features}")
        _check_positive("bandwidth", self.bandwidth)


def check_pool(pool: MeanPoolSpec | AttentionPoolSpec, text_width: int) -> None:
    """Refuses a pool that does not fit the text.

    Raises:
        ValueError: attention to no text, or heads that do not divide its width.
    """
    if isinstance(pool, AttentionPoolSpec) and (text_width == 0 or text_width % pool.heads):
        raise ValueError(
            f"pooling by attention with {pool.heads} heads needs text states whose width they divide; text_width is "
            f"{text_width}"
        )


def _check_sinusoids(features: int) -> None:
    if features < 4 or features % 2:
        raise ValueError(f"features must be even and at least 4; got {features}")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite; got {value}")
