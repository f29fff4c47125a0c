"""A ladder of students, each of half the steps of the one before, and what each is worth."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

from vdm_blocks.distillation.learn import Lesson

__all__ = ["Ladder", "Rung", "RungResult", "halvings"]


@dataclass(frozen=True, kw_only=True)
class Rung(Lesson):
    """One halving, as it is to be trained (arXiv 2202.00512, appendix D, where each takes 50,000 updates).

    Attributes:
        steps: of the student.
    """

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Rung got steps={self.steps}; it must be at least 1")
        super().__post_init__()


def halvings(
    start: int, end: int, updates: int, *, rate: float = 1e-4, average: float = 0.0
) -> tuple[Rung, ...]:
    """The rungs below a teacher of `start` steps, down to `end`.

    Raises:
        ValueError: a start that halving does not bring to the end.

    >>> [rung.steps for rung in halvings(64, 2, updates=100)]
    [32, 16, 8, 4, 2]
    """
    steps = []
    while start > end and start % 2 == 0:
        start //= 2
        steps.append(start)
    if start != end or not steps:
        raise ValueError(
            f"halving does not lead to {end} steps (it reached {start}); let the start be a power of two times the end"
        )
    return tuple(Rung(steps=n, updates=updates, rate=rate, average=average) for n in steps)


@dataclass(frozen=True, kw_only=True)
class RungResult:
    """What came of a rung.

    Attributes:
        rung: how it was trained.
        loss: of the last update.
        quality: what the judge said, one number for each seed; lower is better.
        weights: name of its file, in the driver's folder.
    """

    rung: Rung
    loss: float
    quality: tuple[float, ...]
    weights: str


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The teacher and the students so far.

    Attributes:
        teacher_steps: how many steps the teacher was judged at.
        teacher: what the judge said of it, one number for each seed.
        rungs: the results, in order.
        stopped: why it ends before the last rung that was wanted; None if it does not.
    """

    teacher_steps: int
    teacher: tuple[float, ...]
    rungs: tuple[RungResult, ...] = ()
    stopped: str | None = None

    def __post_init__(self) -> None:
        if len(self.teacher) < 2:
            raise ValueError(
                f"the judge gave {len(self.teacher)} numbers for the teacher; its spread takes two at least, one a seed"
            )

    def limit(self, width: float) -> float:
        """The worst mean that lies within the teacher's spread: its mean plus `width` standard deviations."""
        return math.inf if width == math.inf else fmean(self.teacher) + width * stdev(self.teacher)

    def judged(self, result: RungResult, width: float) -> Ladder:
        """One rung longer; with the reason, if that rung falls outside the teacher's spread."""
        mean, limit = fmean(result.quality), self.limit(width)
        reason = None
        if not mean <= limit:
            reason = (
                f"at {result.rung.steps} steps the quality is {mean:.4g}, outside the teacher's "
                f"{fmean(self.teacher):.4g} + {width:g} x {stdev(self.teacher):.2g} = {limit:.4g}; train this rung for "
                f"longer than {result.rung.updates} updates, or stay at twice the steps"
            )
        return replace(self, rungs=(*self.rungs, result), stopped=reason)

    def table(self) -> str:
        """Steps, loss and quality with its standard deviation, one line a rung.

        >>> print(Ladder(teacher_steps=64, teacher=(1.0, 1.2)).table())
        steps        loss     quality      spread
           64           -         1.1      0.1414
        """
        lines = [f"{'steps':>5} {'loss':>11} {'quality':>11} {'spread':>11}"]
        rows: list[tuple[int, str, Sequence[float]]] = [(self.teacher_steps, "-", self.teacher)]
        rows += [(r.rung.steps, f"{r.loss:.4g}", r.quality) for r in self.rungs]
        for steps, loss, quality in rows:
            spread = stdev(quality) if len(quality) > 1 else 0.0
            lines.append(f"{steps:>5} {loss:>11} {fmean(quality):>11.4g} {spread:>11.4g}")
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str], *, width: float = 2.0) -> None:
        """Draws quality against steps, with the teacher's spread behind it; needs matplotlib."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 3.5), layout="constrained")
        axes = figure.subplots()
        steps = [r.rung.steps for r in self.rungs]
        means = [fmean(r.quality) for r in self.rungs]
        spread = [stdev(r.quality) if len(r.quality) > 1 else 0.0 for r in self.rungs]
        if math.isfinite(width):
            axes.axhspan(2 * fmean(self.teacher) - self.limit(width), self.limit(width), color="0.9")
        axes.errorbar(
            [self.teacher_steps], [fmean(self.teacher)], [stdev(self.teacher)], fmt="s", label="teacher"
        )
        if steps:
            axes.errorbar(steps, means, spread, fmt="o-", capsize=3, label="students")
        axes.set_xscale("log", base=2)
        axes.set(xlabel="steps", ylabel="quality (lower is better)")
        axes.legend(loc="upper right")
        figure.savefig(Path(path), dpi=100)

    def write(self, path: Path) -> None:
        """Writes it as JSON, whole or not at all."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        partial.replace(path)

    @staticmethod
    def read(path: Path) -> Ladder:
        """What `write` wrote.

        Raises:
            ValueError: a file that is not a ladder.
        """
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            rungs = [
                RungResult(
                    rung=Rung(**r["rung"]), loss=r["loss"], quality=tuple(r["quality"]), weights=r["weights"]
                )
                for r in plain["rungs"]
            ]
            return Ladder(
                teacher_steps=plain["teacher_steps"], teacher=tuple(plain["teacher"]), rungs=tuple(rungs)
            )
        except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not a ladder's table ({error}); choose another folder, or delete it to start anew"
            ) from error
