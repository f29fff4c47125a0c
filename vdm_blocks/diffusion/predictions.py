"""What a network may predict, each as a map to and from the hub (x0, eps), where z_t = alpha x0 + sigma eps.

Nothing here assumes alpha^2 + sigma^2 = 1, so flow paths and variance-exploding ones work too. Every conversion
passes through the hub: from P to Q it is `Q.target(*P.split(z_t, output, alpha, sigma), alpha, sigma)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.diffusion.schedules import NoiseSchedule
from vdm_blocks.diffusion.values import check_numbers, check_value

__all__ = [
    "EDM",
    "EPS",
    "FLOW",
    "SCORE",
    "X0",
    "EDMPrediction",
    "EpsPrediction",
    "FlowPrediction",
    "LinearPrediction",
    "Prediction",
    "ScorePrediction",
    "V",
    "VPrediction",
    "X0Prediction",
    "check_prediction",
    "eps_of",
]

Pair = tuple[Tensor, Tensor]


@runtime_checkable
class Prediction(Protocol):
    """A network's output in terms of x0 and eps; levels have shape (), (B,) or (B, T)."""

    def split(
        self, z_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor, *, into_output: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The (x0, eps) that `output` stands for at `z_t`; `into_output` may write one of them over it."""

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the network should have put out."""

    def x0_gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """|d x0 / d output| at a fixed z_t, in the shape of the level: what an error is multiplied by."""

    def scale_input(self, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """z_t as the network wants to see it."""


class LinearPrediction:
    """A prediction with x0 = a z + b output and eps = c z + d output, and z_t as it is for input."""

    def hub(self, alpha: Tensor, sigma: Tensor) -> tuple[Pair, Pair]:
        """((a, b), (c, d)) in the shape of the level."""
        raise NotImplementedError

    def split(
        self, z_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor, *, into_output: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(a z + b output, c z + d output), the second written over `output` where that is asked for."""
        (a, b), (c, d) = self.hub(alpha, sigma)
        x0 = _add_scaled(_scaled(z_t, a), b, output, in_place=not torch.is_grad_enabled())
        if into_output:
            return x0, _add_scaled(output.mul_(expand_level(d, output)), c, z_t, in_place=True)
        return x0, _add_scaled(_scaled(z_t, c), d, output, in_place=not torch.is_grad_enabled())

    def x0_gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """|b|."""
        return self.hub(alpha, sigma)[0][1].abs()

    def scale_input(self, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """z_t itself."""
        return z_t


def eps_of(z_t: Tensor, x0: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The noise that belongs to x0 at z_t, (z_t - alpha x0) / sigma, with no second video in between.

    >>> float(eps_of(torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor(0.5), torch.tensor(2.0)))
    0.75
    """
    return _add_scaled(_scaled(z_t, 1 / sigma), -alpha / sigma, x0, in_place=not torch.is_grad_enabled())


def _scaled(x: Tensor, level: Tensor) -> Tensor:
    return x * expand_level(level, x)


def _add_scaled(total: Tensor, level: Tensor, x: Tensor, *, in_place: bool) -> Tensor:
    """total + level x in one pass, without a second video in between."""
    if level.ndim == 0 and level.device.type == "cpu" and not level.requires_grad:
        weight = float(level)
        return total.add_(x, alpha=weight) if in_place else torch.add(total, x, alpha=weight)
    weights = expand_level(level, total)
    return total.addcmul_(x, weights) if in_place else torch.addcmul(total, x, weights)


@dataclass(frozen=True, kw_only=True)
class X0Prediction(LinearPrediction):
    """The clean video. eps = (z - alpha x0) / sigma."""

    def hub(self, alpha: Tensor, sigma: Tensor) -> tuple[Pair, Pair]:
        """x0 = output, eps = (z - alpha output) / sigma."""
        return (torch.zeros_like(alpha), torch.ones_like(alpha)), (1 / sigma, -alpha / sigma)

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """x0."""
        return x0


@dataclass(frozen=True, kw_only=True)
class EpsPrediction(LinearPrediction):
    """The noise (arXiv 2006.11239, eq. 12). x0 = (z - sigma eps) / alpha, so it says nothing where alpha is 0."""

    def hub(self, alpha: Tensor, sigma: Tensor) -> tuple[Pair, Pair]:
        """x0 = (z - sigma output) / alpha, eps = output."""
        return (1 / alpha, -sigma / alpha), (torch.zeros_like(alpha), torch.ones_like(alpha))

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """eps."""
        return eps


@dataclass(frozen=True, kw_only=True)
class VPrediction(LinearPrediction):
    """v = alpha eps - sigma x0 (arXiv 2202.00512, section 4), the choice of every Imagen Video model."""

    def hub(self, alpha: Tensor, sigma: Tensor) -> tuple[Pair, Pair]:
        """x0 = (alpha z - sigma v) / (alpha^2 + sigma^2), eps = (sigma z + alpha v) / (alpha^2 + sigma^2)."""
        n2 = alpha**2 + sigma**2
        return (alpha / n2, -sigma / n2), (sigma / n2, alpha / n2)

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """alpha eps - sigma x0."""
        return _scaled(eps, alpha) - _scaled(x0, sigma)


@dataclass(frozen=True, kw_only=True)
class FlowPrediction(LinearPrediction):
    """u = eps - x0, the velocity dz/dt of the path alpha = 1 - t, sigma = t (arXiv 2210.02747, eq. 23)."""

    def hub(self, alpha: Tensor, sigma: Tensor) -> tuple[Pair, Pair]:
        """x0 = (z - sigma u) / (alpha + sigma), eps = (z + alpha u) / (alpha + sigma)."""
        n = alpha + sigma
        return (1 / n, -sigma / n), (1 / n, alpha / n)

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """eps - x0."""
        return eps - x0


@dataclass(frozen=True, kw_only=True)
class ScorePrediction(LinearPrediction):
    """The score, -eps / sigma (arXiv 2011.13456, eq. 7). Says nothing of x0 where alpha is 0."""

    def hub(self, alpha: Tensor, sigma: Tensor) -> tuple[Pair, Pair]:
        """x0 = (z + sigma^2 output) / alpha, eps = -sigma output."""
        return (1 / alpha, sigma**2 / alpha), (torch.zeros_like(sigma), -sigma)

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """-eps / sigma."""
        return _scaled(eps, -1 / sigma)


@dataclass(frozen=True, kw_only=True)
class EDMPrediction(LinearPrediction):
    """F of EDM's preconditioning, x0 = c_skip x + c_out F(c_in x), with x = z / alpha (arXiv 2206.00364, table 1).

    With d = sigma_data and n^2 = sigma^2 + alpha^2 d^2 this reads, for any alpha,
        x0 = alpha d^2 z / n^2 + sigma d F / n,  eps = sigma z / n^2 - alpha d F / n,  c_in x = z / n.

    Raises:
        ValueError: `sigma_data`, the data's standard deviation, is not positive.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 < self.sigma_data < float("inf"):
            raise ValueError(
                f"EDMPrediction got sigma_data={self.sigma_data}; it is the standard deviation of the data and "
                "must be positive, for example 0.5"
            )

    def _norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.hypot(sigma, alpha * self.sigma_data)

    def hub(self, alpha: Tensor, sigma: Tensor) -> tuple[Pair, Pair]:
        """((alpha d^2 / n^2, sigma d / n), (sigma / n^2, -alpha d / n))."""
        n, d = self._norm(alpha, sigma), self.sigma_data
        return (alpha * d**2 / n**2, sigma * d / n), (sigma / n**2, -alpha * d / n)

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """(sigma x0 - alpha d^2 eps) / (d n)."""
        n, d = self._norm(alpha, sigma), self.sigma_data
        return _scaled(x0, sigma / (d * n)) - _scaled(eps, alpha * d / n)

    def scale_input(self, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """z / n: of unit variance at every level."""
        return _scaled(z_t, 1 / self._norm(alpha, sigma))


X0 = X0Prediction()
EPS = EpsPrediction()
V = VPrediction()
FLOW = FlowPrediction()
SCORE = ScorePrediction()
EDM = EDMPrediction()


def check_prediction(prediction: Prediction, schedule: NoiseSchedule) -> None:
    """Refuse a prediction from which x0 cannot be had at the noisy end of `schedule`.

    Raises:
        ValueError: what is no prediction or no schedule at all, or a class of them; or an error in the output would
            reach x0 more than a million times as large at t = 1.

    >>> from vdm_blocks.diffusion.schedules import CosineSchedule
    >>> check_prediction(EPS, CosineSchedule(logsnr_min=-40.0))
    Traceback (most recent call last):
    ...
    ValueError: EpsPrediction() cannot give x0 at t=1, where alpha is 2.06e-09: ...
    """
    check_value("prediction", prediction, Prediction, "V, X0, EPS, FLOW, SCORE or EDM, values not names")
    check_value("schedule", schedule, NoiseSchedule, "a value, for example CosineSchedule()")
    with torch.no_grad():
        alpha, sigma = schedule.alpha_sigma(torch.ones((), dtype=torch.float64, device="cpu"))
        gain = float(prediction.x0_gain(alpha, sigma))
    if not gain < 1e6:
        raise ValueError(
            f"{prediction} cannot give x0 at t=1, where alpha is {float(alpha):.3g}: an error in the output "
            f"reaches x0 {gain:.3g} times as large; predict V, X0 or FLOW, or use a schedule that ends at a "
            "higher log-SNR, such as -20"
        )
