"""UniPC: a predictor and a corrector of one more order for the same evaluations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vdm_blocks.diffusion.values import check_numbers
from vdm_blocks.sampling.rule import Draw, Scales, StepResult, add_scaled_, affine, is_clean, scales
from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["Evaluation", "UniPC", "UniPCState"]


@dataclass(frozen=True)
class Evaluation:
    """An estimate of the clean video, and where it was made.

    Attributes:
        x0: the estimate.
        half_logsnr: log(alpha / sigma) there, 0-d.
    """

    x0: Tensor
    half_logsnr: Tensor


@dataclass(frozen=True)
class UniPCState:
    """The step before: what it started from, and the evaluations that it used.

    Attributes:
        z: the corrected z that it started from.
        t: the time of z.
        evaluations: the latest last; as many as the order that it had.
    """

    z: Tensor
    t: Tensor
    evaluations: tuple[Evaluation, ...]


@dataclass(frozen=True, kw_only=True)
class UniPC:
    """UniPC in its x0 form with B(h) = exp(-h) - 1: order + 1 from one evaluation a step, after a first-order start.

    (arXiv 2302.04867.) Each evaluation first corrects the z at which it was made, then
    predicts the next; h is half the rise in log-SNR. It keeps `order` estimates and one z.

    Args:
        order: that of the predictor, 1 to 3. The corrector adds one; at 3 the start, which is of lower order, limits
            the whole to 3.

    Raises:
        ValueError: another order.
    """

    order: int = 2

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.order not in (1, 2, 3):
            raise ValueError(f"UniPC got order={self.order}; give 1, 2 or 3")

    def start(self, times: Tensor) -> None:
        """Any grid fits; nothing is remembered yet."""

    def __call__(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Tensor,
        s: Tensor,
        cond: Conditioning,
        state: UniPCState | None,
        draw: Draw,  # noqa: ARG002
    ) -> StepResult[UniPCState | None]:
        """Correct z_t, then predict z_s."""
        x0 = denoiser(z_t, t, cond).x0
        if is_clean(s):
            return StepResult(x0, x0, state)
        if float(s) == float(t):
            return StepResult(z_t.clone(), x0, state)
        c = scales(denoiser.schedule, t, s)
        here = Evaluation(x0, torch.log(c.alpha_t) - torch.log(c.sigma_t))
        known: tuple[Evaluation, ...] = ()
        if state is not None:
            before = scales(denoiser.schedule, state.t, t)
            z_t = _update(state.z, before, state.evaluations, here)
            known = tuple(e for e in state.evaluations if bool(torch.isfinite(e.half_logsnr)))
        known = (*known, here)[-self.order :]
        z_s = _update(z_t, c, known, None)
        return StepResult(z_s, x0, UniPCState(z_t, t, known))


def _update(z: Tensor, c: Scales, known: tuple[Evaluation, ...], reached: Evaluation | None) -> Tensor:
    """The predictor from `known`, or the corrector that also has the evaluation at the point reached.

    z_s = (sigma_s / sigma_t) z + alpha_s B (m_0 + sum_k rho_k (m_k - m_0) / r_k), B = 1 - exp(-h), where m_k
    is x0 at r_k h from the start of the step.
    """
    *earlier, last = known
    h = c.half_step
    r = [(e.half_logsnr - last.half_logsnr) / h for e in earlier]
    points = [e.x0 for e in earlier]
    if reached is not None:
        r.append(torch.ones_like(h))
        points.append(reached.x0)
    gain = -c.alpha_s * torch.expm1(-h)
    shares = [rho / r_k for rho, r_k in zip(_weights(h, r), r, strict=True)]
    z_s = affine(z, c.sigma_s / c.sigma_t, last.x0, gain * (1 - sum(shares, start=torch.zeros_like(h))))
    for point, share in zip(points, shares, strict=True):
        add_scaled_(z_s, point, gain * share)
    return z_s


def _weights(h: Tensor, r: list[Tensor]) -> list[Tensor]:
    """rho from sum_k rho_k r_k^(n-1) = n! h phi_(n+1)(-h) / B, n = 1 .. K; a single one is 1/2.

    phi_1(-h) = B / h, phi_(n+1)(-h) = (1 / n! - phi_n(-h)) / h: the integrals of exp(tau - h) tau^n over the
    step.
    """
    if len(r) <= 1:
        return [torch.full_like(h, 0.5) for _ in r]
    right, phi, factorial = [], -torch.expm1(-h) / h, 1
    gain = phi
    for n in range(1, len(r) + 1):
        factorial *= n
        phi = (1 / factorial - phi) / h
        right.append(factorial * phi / gain)
    nodes = torch.stack(r)
    powers = torch.stack([nodes**n for n in range(len(r))])
    return list(torch.linalg.solve(powers, torch.stack(right)).unbind())
