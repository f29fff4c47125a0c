"""Muon (Jordan et al. 2024): momentum whose matrices are orthogonalised, with Adam for everything that is no matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Muon", "orthogonal"]


class Muon(torch.optim.Optimizer):
    """W <- W - rate 0.2 sqrt(max(m, n)) orthogonal(g + momentum M), with M <- momentum M + g, for m x n matrices.

    A convolution's weight counts as one matrix, its outputs by all the rest. The factor gives an update the size that
    Adam's has (arXiv 2502.16982, equation 4), so both share one rate. What has fewer than two axes, or fewer than 16
    rows or columns, takes Adam's step.

    Args:
        parameters: in the order of the network.
        lr: the rate.
        momentum: of the matrices.
        betas: Adam's.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient; no closure is taken."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rule = self._matrix if min(_matrix(parameter).shape) >= 16 else self._adam
                    rule(parameter, parameter.grad, self.state[parameter], group)

    def _matrix(self, w: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(w)
        m = state["momentum"].mul_(group["momentum"]).add_(g)
        update = orthogonal(_matrix(g.add(m, alpha=group["momentum"])))
        w.add_(update.view_as(w), alpha=-group["lr"] * 0.2 * max(update.shape) ** 0.5)

    def _adam(self, w: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = torch.zeros_like(w), torch.zeros_like(w)
        state["step"] += 1
        one, two = group["betas"]
        mean, square = state["mean"].lerp_(g, 1 - one), state["square"].lerp_(g * g, 1 - two)
        count = int(state["step"])
        root = square.div(1 - two**count).sqrt_().add_(1e-8)
        w.addcdiv_(mean, root, value=-group["lr"] / (1 - one**count))


def _matrix(x: Tensor) -> Tensor:
    return x.flatten(1) if x.ndim > 1 else x[None]


def orthogonal(g: Tensor, steps: int = 5) -> Tensor:
    """Close to U V^T for g = U S V^T, by Jordan's quintic Newton-Schulz iteration in bfloat16; float32."""
    x = g if g.shape[0] <= g.shape[1] else g.T
    x = (x / (x.norm() + 1e-7)).bfloat16()
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    out: Tensor = (x if g.shape[0] <= g.shape[1] else x.T).float()
    return out
