"""Down the ladder: one halving after the other, resumable anywhere, until the quality shows it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from vdm_blocks.checkpoint import save_tensors
from vdm_blocks.distillation.jumps import Jumps, as_jumps
from vdm_blocks.distillation.ladder import Ladder, Rung, RungResult
from vdm_blocks.distillation.learn import Batches, Optimizer, learn
from vdm_blocks.distillation.match import Distiller
from vdm_blocks.distillation.progressive import ProgressiveDistiller
from vdm_blocks.types import Denoiser

__all__ = ["DistillInfo", "Judge", "Method", "distill"]


class Judge(Protocol):
    """How good a denoiser is."""

    def __call__(self, denoiser: Denoiser, steps: int, /) -> Sequence[float]:
        """Numbers of which lower is better, one for each seed, at `steps` steps; the seeds are always the same."""


class Method(Protocol):
    """What makes a distiller for one rung; `ProgressiveDistiller` itself is one."""

    def __call__(self, teacher: Denoiser, student: Denoiser, steps: Jumps, /) -> Distiller:
        """The loss by which `student` learns the jumps."""


@dataclass(frozen=True, kw_only=True)
class DistillInfo:
    """What `on_update` is told.

    Attributes:
        rung: the one that is being trained.
        update: how many of its updates are done.
        loss: of the last one.
    """

    rung: Rung
    update: int
    loss: float


def distill(
    teacher: Denoiser,
    student: nn.Module,
    rungs: Sequence[Rung],
    batches: Batches,
    judge: Judge,
    *,
    folder: str | os.PathLike[str],
    teacher_steps: int,
    jumps: Callable[[int], Jumps] = as_jumps,
    method: Method = ProgressiveDistiller,
    optimizer: Optimizer = torch.optim.Adam,
    width: float = 2.0,
    seed: int = 0,
    save_every: int = 500,
    on_update: Callable[[DistillInfo], None] | None = None,
) -> Ladder:
    """Distils `student` down the rungs; each becomes the teacher of the next (arXiv 2202.00512, algorithm 2).

    Everything random is drawn by (seed, rung, update), and the state is written as it goes: called again with the
    same arguments after any interruption it goes on, and its weights are those of the unbroken run, to the bit. What
    is there already is neither trained nor judged again; more rungs may be added at the end. In `folder`:
    rung-0008.safetensors (the weights at 8 steps, by the student's own names), ladder.json (the table), quality.png
    (the plot, where matplotlib is installed), and rung-0008.state.safetensors while the rung is in training.

    Args:
        teacher: any denoiser, guided or not.
        student: a Module that is a `Denoiser`, with the teacher's weights; it ends with those of the last rung.
        rungs: each of half the steps of the one before; see `halvings`.
        batches: the data of an update, counted through all rungs: clean videos and what the student is told. The
            same number must give the same batch.
        judge: tells the teacher at `teacher_steps`, and each rung.
        folder: for the files; it is made if missing.
        teacher_steps: of the teacher, twice the first rung's.
        jumps: what a student of N steps learns; `stochastic_jumps` for `DistilledStochastic`, the default for `DDIM`.
        method: `functools.partial(ProgressiveDistiller, scales=(1, 16))` for a student that is told the scale.
        optimizer: made anew for each rung.
        width: how many standard deviations a rung's mean may be worse than the teacher's; inf never stops.
        seed: of the noise.
        save_every: updates between two writings of the state.
        on_update: called after each update.

    Returns:
        The table; `stopped` says why it ends early, if it does: the rung that failed is its last one.

    Raises:
        ValueError: no rungs, rungs that do not halve, a student without parameters, or a folder of another run.
    """
    _check(student, rungs, teacher_steps)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "ladder.json"
    ladder = Ladder.read(table) if table.exists() else None
    if ladder is None:
        ladder = Ladder(teacher_steps=teacher_steps, teacher=tuple(map(float, judge(teacher, teacher_steps))))
        ladder.write(table)
    old = [r.rung for r in ladder.rungs]
    if ladder.teacher_steps != teacher_steps or old != list(rungs)[: len(old)]:
        raise ValueError(
            f"{folder} holds another run: rungs of {[r.steps for r in old]} steps below {ladder.teacher_steps}, "
            "trained as ladder.json says; choose another folder, or the same rungs with new ones after them"
        )
    done = ladder.rungs
    ladder = Ladder(teacher_steps=teacher_steps, teacher=ladder.teacher)
    learned: Jumps | None = None
    first = 0
    for index, rung in enumerate(rungs):
        wanted = jumps(rung.steps)
        wanted = wanted if learned is None else wanted.by_way_of(learned)
        if index < len(done):
            result = done[index]
            _load(student, folder / result.weights)
        else:
            distiller = method(teacher, cast("Denoiser", student), wanted)
            state = folder / f"rung-{rung.steps:04d}.state.safetensors"
            loss = learn(
                student,
                _always(distiller),
                rung,
                batches,
                path=state,
                key=f"distillation/{seed}/{rung.steps}",
                first=first,
                optimizer=optimizer,
                save_every=save_every,
                on_update=_told(on_update, rung),
            )
            result = _finish(student, rung, loss, judge, folder)
        ladder = ladder.judged(result, width)
        if index >= len(done):
            ladder.write(table)
            _plot(ladder, folder / "quality.png", width)
            (folder / f"rung-{rung.steps:04d}.state.safetensors").unlink(missing_ok=True)
        if ladder.stopped is not None:
            break
        first += rung.updates
        learned = wanted
        frozen = copy.deepcopy(student).eval().requires_grad_(False)
        teacher = cast("Denoiser", frozen)
    return ladder


def _check(student: nn.Module, rungs: Sequence[Rung], teacher_steps: int) -> None:
    counts = [teacher_steps, *(rung.steps for rung in rungs)]
    if len(counts) < 2 or any(a != 2 * b for a, b in pairwise(counts)):
        raise ValueError(
            f"the steps of teacher and rungs are {counts}; each rung has half the steps of the one before, as "
            "halvings(64, 2, updates=...) gives them"
        )
    if not any(p.requires_grad for p in student.parameters()):
        raise ValueError("the student has no parameters that require a gradient; call requires_grad_() on it")


def _always(distiller: Distiller) -> Callable[[int], Distiller]:
    return lambda _update: distiller


def _told(on_update: Callable[[DistillInfo], None] | None, rung: Rung) -> Callable[[int, float], None]:
    def tell(update: int, loss: float) -> None:
        if on_update is not None:
            on_update(DistillInfo(rung=rung, update=update, loss=loss))

    return tell


def _finish(student: nn.Module, rung: Rung, loss: float, judge: Judge, folder: Path) -> RungResult:
    """Writes the weights of a rung and has it judged."""
    name = f"rung-{rung.steps:04d}.safetensors"
    save_tensors(folder / name, student.state_dict(), {"steps": str(rung.steps)})
    training = student.training
    quality = tuple(map(float, judge(cast("Denoiser", student.eval()), rung.steps)))
    student.train(training)
    return RungResult(rung=rung, loss=loss, quality=quality, weights=name)


def _load(student: nn.Module, path: Path) -> None:
    try:
        student.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not hold this student's weights ({error}); choose another folder"
        ) from error


def _plot(ladder: Ladder, path: Path, width: float) -> None:
    try:
        ladder.plot(path, width=width)
    except ImportError:
        return
