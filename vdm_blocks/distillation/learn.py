"""The training loop of every distiller here: keyed by the update, so that it goes on to the bit."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vdm_blocks.diffusion.noise import KeyedNoise
from vdm_blocks.distillation.match import Distiller
from vdm_blocks.training.ema import EMA
from vdm_blocks.training.state import TrainingState
from vdm_blocks.types import Conditioning

__all__ = ["Batches", "Lesson", "Optimizer", "learn"]

Batches = Callable[[int], tuple[Tensor, Conditioning]]
Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


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
        optimizer: made of the parameters that require a gradient.
        save_every: updates between two writings of the state.
        on_update: told of how many updates are done, and the loss of the last one.

    Returns:
        The loss of the last update; nan if all were done already.

    Raises:
        ValueError: a student without parameters that require a gradient, or a state of another run.
    """
    parameters = [p for p in student.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("the student has no parameters that require a gradient; call requires_grad_() on it")
    path = Path(path)
    state = TrainingState(student, EMA(student, lesson.average), optimizer(parameters))
    run = {"lesson": str(lesson), "key": key, "first": str(first)}
    last = float("nan")
    if path.exists():
        state.load(path, run=run)
    while state.step < lesson.updates:
        update = state.step
        for group in state.optimizer.param_groups:
            group["lr"] = lesson.rate * (1 - update / lesson.updates)
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
