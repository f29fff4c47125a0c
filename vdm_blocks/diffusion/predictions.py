"""What a network may predict, each as a map to and from the hub (x0, eps), where z_t = alpha x0 + sigma eps.

None of the maps assumes alpha^2 + sigma^2 = 1, so flow paths and variance-exploding ones work too. Every
conversion passes through the hub: from P to Q is `Q.target(*P.split(z_t, output, alpha, sigma), alpha,
sigma)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.diffusion.schedules import NoiseSchedule

__all__ = [
    "EDM",
    "EPS",
    "FLOW",
    "SCORE",
    "X0",
    "EDMPrediction",
    "EpsPrediction",
    "FlowPrediction",
    "Prediction",
    "ScorePrediction",
    "V",
    "VPrediction",
    "X0Prediction",
    "check_prediction",
]


class Prediction(Protocol):
    """A network's output in terms of x0 and eps; levels have shape (), (B,) or (B, T)."""

    def split(self, z_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The (x0, eps) that `output` stands for at `z_t`."""

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the network should have put out."""

    def x0_gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """|d x0 / d output| at a fixed z_t, in the shape of the level: what an error is multiplied by."""

    def scale_input(self, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """z_t as the network wants to see it."""


class _PlainInput:
    def scale_input(self, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """z_t itself."""
        return z_t


@dataclass(frozen=True, kw_only=True)
class X0Prediction(_PlainInput):
    """The clean video. eps = (z - alpha x0) / sigma."""

    def split(self, z_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """x0 = output, eps = (z - alpha x0) / sigma."""
        a, s = expand_level(alpha, z_t), expand_level(sigma, z_t)
        return output, (z_t - a * output) / s

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """x0."""
        return x0

    def x0_gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """1."""
        return torch.ones_like(alpha)


@dataclass(frozen=True, kw_only=True)
class EpsPrediction(_PlainInput):
    """The noise (arXiv 2006.11239, eq. 12). x0 = (z - sigma eps) / alpha, so it says nothing where alpha is
    0.
    """

    def split(self, z_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """x0 = (z - sigma eps) / alpha, eps = output."""
        a, s = expand_level(alpha, z_t), expand_level(sigma, z_t)
        return (z_t - s * output) / a, output

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """Eps."""
        return eps

    def x0_gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Sigma / alpha."""
        return sigma / alpha


@dataclass(frozen=True, kw_only=True)
class VPrediction(_PlainInput):
    """v = alpha eps - sigma x0 (arXiv 2202.00512, section 4), the choice of every Imagen Video model.

    x0 = (alpha z - sigma v) / (alpha^2 + sigma^2), eps = (sigma z + alpha v) / (alpha^2 + sigma^2).
    """

    def split(self, z_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha z - sigma v, sigma z + alpha v) / (alpha^2 + sigma^2)."""
        n2 = alpha**2 + sigma**2
        a, s = expand_level(alpha / n2, z_t), expand_level(sigma / n2, z_t)
        return a * z_t - s * output, s * z_t + a * output

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Alpha eps - sigma x0."""
        return expand_level(alpha, x0) * eps - expand_level(sigma, x0) * x0

    def x0_gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Sigma / (alpha^2 + sigma^2)."""
        return sigma / (alpha**2 + sigma**2)


@dataclass(frozen=True, kw_only=True)
class FlowPrediction(_PlainInput):
    """u = eps - x0, the velocity dz/dt of the straight path alpha = 1 - t, sigma = t (arXiv 2210.02747, eq.
    23).

    x0 = (z - sigma u) / (alpha + sigma), eps = (z + alpha u) / (alpha + sigma).
    """

    def split(self, z_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(z - sigma u, z + alpha u) / (alpha + sigma)."""
        n = alpha + sigma
        one, a, s = expand_level(1 / n, z_t), expand_level(alpha / n, z_t), expand_level(sigma / n, z_t)
        z = one * z_t
        return z - s * output, z + a * output

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """Eps - x0."""
        return eps - x0

    def x0_gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Sigma / (alpha + sigma)."""
        return sigma / (alpha + sigma)


@dataclass(frozen=True, kw_only=True)
class ScorePrediction(_PlainInput):
    """The score, -eps / sigma (arXiv 2011.13456, eq. 7). Says nothing of x0 where alpha is 0."""

    def split(self, z_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Eps = -sigma score, x0 = (z - sigma eps) / alpha."""
        a, s = expand_level(alpha, z_t), expand_level(sigma, z_t)
        eps = -s * output
        return (z_t - s * eps) / a, eps

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """-eps / sigma."""
        return -eps / expand_level(sigma, eps)

    def x0_gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """sigma^2 / alpha."""
        return sigma**2 / alpha


@dataclass(frozen=True, kw_only=True)
class EDMPrediction:
    """F of EDM's preconditioning, x0 = c_skip x + c_out F(c_in x), with x = z / alpha (arXiv 2206.00364,
    table 1).

    With d = sigma_data and n^2 = sigma^2 + alpha^2 d^2 this reads, for any alpha,
        x0 = alpha d^2 z / n^2 + sigma d F / n,  eps = sigma z / n^2 - alpha d F / n,  c_in x = z / n.

    Raises:
        ValueError: `sigma_data`, the data's standard deviation, is not positive.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.sigma_data < float("inf"):
            raise ValueError(
                f"EDMPrediction got sigma_data={self.sigma_data}; it is the standard deviation of the data "
                "and must be positive, for example 0.5"
            )

    def _norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.hypot(sigma, alpha * self.sigma_data)

    def split(self, z_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """x0 = alpha d^2 z / n^2 + sigma d F / n, eps = sigma z / n^2 - alpha d F / n."""
        n, d = self._norm(alpha, sigma), self.sigma_data
        x0 = expand_level(alpha * d**2 / n**2, z_t) * z_t + expand_level(sigma * d / n, z_t) * output
        return x0, expand_level(sigma / n**2, z_t) * z_t - expand_level(alpha * d / n, z_t) * output

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """(sigma x0 - alpha d^2 eps) / (d n)."""
        n, d = self._norm(alpha, sigma), self.sigma_data
        return expand_level(sigma / (d * n), x0) * x0 - expand_level(alpha * d / n, x0) * eps

    def x0_gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """c_out = sigma d / n."""
        return sigma * self.sigma_data / self._norm(alpha, sigma)

    def scale_input(self, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Z / n: unit variance at every level."""
        return expand_level(1 / self._norm(alpha, sigma), z_t) * z_t


X0 = X0Prediction()
EPS = EpsPrediction()
V = VPrediction()
FLOW = FlowPrediction()
SCORE = ScorePrediction()
EDM = EDMPrediction()


def check_prediction(prediction: Prediction, schedule: NoiseSchedule) -> None:
    """Refuse a prediction from which x0 cannot be had at the noisy end of `schedule`.

    Raises:
        ValueError: an error in the output reaches x0 more than a million times as large at t = 1.

    >>> from vdm_blocks.diffusion.schedules import CosineSchedule
    >>> check_prediction(EPS, CosineSchedule(logsnr_min=-40.0))
    Traceback (most recent call last):
    ...
    ValueError: EpsPrediction() cannot give x0 at t=1, where alpha is 2.06e-09: ...
    """
    with torch.no_grad():
        alpha, sigma = schedule.alpha_sigma(torch.ones((), dtype=torch.float64))
        gain = prediction.x0_gain(alpha, sigma)
        if not bool(gain < 1e6):
            raise ValueError(
                f"{prediction} cannot give x0 at t=1, where alpha is {float(alpha):.3g}: an error in the "
                f"output reaches x0 {float(gain):.3g} times as large; predict V, X0 or FLOW, or use a "
                "schedule that ends at a higher log-SNR, such as -20"
            )
