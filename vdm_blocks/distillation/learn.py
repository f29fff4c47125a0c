"""The training loop of every distiller here: keyed by the update, so that it goes on to the bit."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vdm_blocks.diffusion.noise import KeyedNoise
from vdm_blocks.distillation.match import Distiller
from vdm_blocks.training.ema import EMA
from vdm_blocks.training.state import TrainingState
from vdm_blocks.types import Conditioning

__all__ = ["Batches", "Lesson", "Optimizer", "learn"]

Batches = Callable[[int], tuple[Tensor, Conditioning]]
Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]
Optimizer = Callable[[Parameters], torch.optim.Optimizer]


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """How long and how fast something is learned.

    Attributes:
        updates: of the optimizer.
        rate: learning rate at the start; it falls in a straight line to 0.
        average: decay of the running average that the weights are in the end; 0 is none.
        clip: the largest norm of the gradient.
    """

    updates: int
    rate: float = 1e-4
    average: float = 0.0
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.updates < 1:
            raise ValueError(f"{type(self).__name__} got updates={self.updates}; it must be at least 1")
        if not (0 < self.rate < math.inf and 0 <= self.average < 1 and self.clip > 0):
            raise ValueError(
                f"{type(self).__name__} got rate={self.rate}, average={self.average}, clip={self.clip}; the rate and "
                "the clip are positive, the average is at least 0 and below 1"
            )


def learn(
    student: nn.Module,
    distiller: Callable[[int], Distiller],
    lesson: Lesson,
    batches: Batches,
    *,
    path: str | os.PathLike[str],
    key: str,
    first: int = 0,
    optimizer: Optimizer = torch.optim.Adam,
    factors: Sequence[tuple[nn.Module, float]] = (),
    save_every: int = 500,
    on_update: Callable[[int, float], None] | None = None,
) -> float:
    """Trains `student` by any distiller; it ends with the average of its weights.

    The noise of an update is that of (key, update), and the state is written every `save_every` updates: called again
    after any interruption it goes on, and its weights are those of the unbroken run, to the bit. The state is left
    at `path`, for the caller to remove once the weights are safe.

    Args:
        student: what is trained, all roles that learn in one Module where there are several.
        distiller: the loss of update 0, 1, ...; methods whose roles take turns differ from one to the next.
        lesson: how long and how fast.
        batches: the data of an update, clean videos and what the student is told; the same number must give the same.
        path: of the state.
        key: names this lesson and its seed; a state of another one is refused.
        first: the number of the first batch.
        optimizer: made of the parameters that require a gradient; where there are factors, of groups of them.
        factors: on the rate of a part of the student. What is new in it, such as a `ScaleAdapter`'s `added`, starts
            at zero and has farther to go than the weights that it came with.
        save_every: updates between two writings of the state.
        on_update: told of how many updates are done, and the loss of the last one.

    Returns:
        The loss of the last update; nan if all were done already.

    Raises:
        ValueError: a student without parameters that require a gradient, a factor for what is no part of it or that
            is not positive, or a state of another run.
    """
    parameters = [p for p in student.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("the student has no parameters that require a gradient; call requires_grad_() on it")
    path = Path(path)
    made = optimizer(_groups(parameters, factors) if factors else parameters)
    state = TrainingState(student, EMA(student, lesson.average), made)
    run = {"lesson": str(lesson), "key": key, "first": str(first)}
    if factors:
        run["factors"] = str([factor for _, factor in factors])
    last = float("nan")
    if path.exists():
        state.load(path, run=run)
    while state.step < lesson.updates:
        update = state.step
        for group in state.optimizer.param_groups:
            group["lr"] = group.get("factor", 1.0) * lesson.rate * (1 - update / lesson.updates)
        x0, cond = batches(first + update)
        noise = KeyedNoise(seeds=tuple(range(x0.shape[0])), stage=f"{key}/{update}")
        loss = distiller(update)(x0, cond, generator=noise).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, lesson.clip)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.ema.update(student)
        state.step = update + 1
        last = float(loss.detach())
        if on_update is not None:
            on_update(state.step, last)
        if state.step % save_every == 0 and state.step < lesson.updates:
            state.save(path, run=run)
    state.ema.copy_to(student)
    return last


def _groups(
    parameters: Sequence[nn.Parameter], factors: Sequence[tuple[nn.Module, float]]
) -> list[dict[str, Any]]:
    """The parameters in groups, the rest of them first, each with the factor on its rate."""
    rest = {id(p): p for p in parameters}
    groups = []
    for module, factor in factors:
        own = [rest.pop(id(p)) for p in module.parameters() if id(p) in rest]
        if not own or not 0 < factor < math.inf:
            raise ValueError(
                f"the factor {factor} on the rate of a {type(module).__name__} of {len(own)} parameters that learn: "
                "factors are positive, and each is for a part of the student that no other factor is for"
            )
        groups.append({"params": own, "factor": factor})
    return [{"params": list(rest.values()), "factor": 1.0}, *groups] if rest else groups
