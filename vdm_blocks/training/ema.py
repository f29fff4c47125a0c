"""Averages of the weights over the course of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vdm_blocks.diffusion.values import check_numbers

__all__ = ["EMA", "ConstantDecay", "Decay", "WarmedDecay"]


class Decay(Protocol):
    """How much of the average is kept at an update."""

    def __call__(self, step: int) -> float:
        """The decay at update `step`, counted from 1."""


@dataclass(frozen=True, kw_only=True)
class ConstantDecay:
    """The plain exponential average; about 1 / (1 - decay) updates long."""

    decay: float = 0.9999

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 <= self.decay < 1:
            raise ValueError(
                f"ConstantDecay got decay={self.decay}; it must be at least 0 and below 1, e.g. 0.9999"
            )

    def __call__(self, step: int) -> float:  # noqa: ARG002
        """`decay`."""
        return self.decay


@dataclass(frozen=True, kw_only=True)
class WarmedDecay:
    """min(decay, (1 + step) / (10 + step)): short at first, so that the random start is soon forgotten."""

    decay: float = 0.9999

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 <= self.decay < 1:
            raise ValueError(
                f"WarmedDecay got decay={self.decay}; it must be at least 0 and below 1, e.g. 0.9999"
            )

    def __call__(self, step: int) -> float:
        """min(decay, (1 + step) / (10 + step))."""
        return min(self.decay, (1 + step) / (10 + step))


class EMA:
    """average <- d average + (1 - d) weights, for every parameter; buffers are copied.

    The averages stay on the parameters' devices, in float32 at least: in bfloat16 a decay of 0.999 never
    moves.

    Args:
        module: what is averaged, of any make; it is read, never kept.
        decay: how much is kept at an update, as a number or a function of the update.

    Raises:
        ValueError: on use, a module whose names or shapes are not those it began with.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> ema = EMA(net, ConstantDecay(decay=0.5))
    >>> before = net.weight.detach().clone()
    >>> _ = net.weight.data.add_(1.0)
    >>> ema.update(net)
    >>> with ema.applied(net):
    ...     round((net.weight - before).item(), 4)
    0.5
    >>> round((net.weight - before).item(), 4)
    1.0
    """

    def __init__(self, module: nn.Module, decay: Decay | float = 0.9999) -> None:
        self.decay = ConstantDecay(decay=decay) if isinstance(decay, float | int) else decay
        self.step = 0
        self._average = {name: _wide(p) for name, p in module.named_parameters()}
        self._buffers = {name: b.detach().clone() for name, b in module.named_buffers()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights of `module` after one training step."""
        self._check(module)
        self.step += 1
        weight = 1 - self.decay(self.step)
        for name, p in module.named_parameters():
            self._average[name].lerp_(p.detach().to(self._average[name]), weight)
        for name, b in module.named_buffers():
            self._buffers[name].copy_(b)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the weights of `module` with the averages. To go back afterwards use `applied`."""
        self._check(module)
        for name, p in module.named_parameters():
            p.copy_(self._average[name])
        for name, b in module.named_buffers():
            b.copy_(self._buffers[name])

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The averages in `module` for the length of a `with`; the trained weights come back, errors or not."""
        self._check(module)
        trained = [(x, x.detach().clone()) for x in (*module.parameters(), *module.buffers())]
        try:
            self.copy_to(module)
            yield
        finally:
            with torch.no_grad():
                for x, value in trained:
                    x.copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors only: `average.<name>`, `buffer.<name>` and `step`; they share memory with the EMA."""
        state = {f"average.{name}": x for name, x in self._average.items()}
        state.update({f"buffer.{name}": x for name, x in self._buffers.items()})
        state["step"] = torch.tensor(self.step)
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state_dict`.

        Raises:
            ValueError: names or shapes of another module.
        """
        mine = self.state_dict()
        _compare(mine, state, "the state")
        for name, x in mine.items():
            x.copy_(state[name])
        self.step = int(state["step"])

    def _check(self, module: nn.Module) -> None:
        _compare(self._average, dict(module.named_parameters()), "the module")
        _compare(self._buffers, dict(module.named_buffers()), "the module")


def _wide(p: Tensor) -> Tensor:
    return p.detach().clone().to(torch.promote_types(p.dtype, torch.float32))


def _compare(mine: Mapping[str, Tensor], given: Mapping[str, Tensor], what: str) -> None:
    wrong = sorted(mine.keys() ^ given.keys())
    wrong += [name for name in mine.keys() & given.keys() if mine[name].shape != given[name].shape]
    if wrong:
        raise ValueError(
            f"{what} is not the one that this EMA averages: {len(wrong)} tensors differ in name or shape, "
            f"{', '.join(wrong[:4])} among them; make a new EMA of it"
        )
