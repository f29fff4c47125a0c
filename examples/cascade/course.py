"""The course of a small training: resumed where it was, its scores noted in log.csv, saved at intervals."""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from team import ALONE, Team
from torch import Tensor

from vdm_blocks.training.state import TrainingState

__all__ = ["Course", "common_arguments", "descend"]

Row = tuple[float, ...]
"""A step's number and its scores."""


def descend(state: TrainingState, loss: Tensor, team: Team = ALONE) -> float:
    """One step down `loss`, its gradient no longer than 1, and the average and the count of steps after it.

    Returns the loss, which with a `team` is the mean of all its processes' losses, as the gradient is of theirs.
    """
    loss.backward()
    mean = team.average(state.network, loss)
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.ema.update(state.network)
    state.step += 1
    return mean.item()


class Course:
    """A training by steps, in a folder of its own.

    Args:
        state: what is trained; if the folder holds a state, that is read into it.
        names: of the scores that a step gives.
        folder: for state.safetensors and log.csv; it is made if missing.
        run: what the run is; a state of another one is refused.
    """

    def __init__(
        self, state: TrainingState, names: Sequence[str], folder: Path, run: Mapping[str, str]
    ) -> None:
        self.state, self.names, self.run = state, tuple(names), run
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.log = folder / "state.safetensors", folder / "log.csv"
        if self.file.exists():
            state.load(self.file, run=run)
            print(f"going on from step {state.step}", flush=True)
        self.rows = self._read() if self.log.exists() else []

    def go(self, step: Callable[[], Row], args: argparse.Namespace) -> None:
        """Calls `step`, which advances the state, until `args.steps` are done; see `common_arguments`."""
        began = saved = shown = time.monotonic()
        start = self.state.step
        while self.state.step < args.steps:
            self.rows.append(step())
            now, last = time.monotonic(), self.state.step == args.steps
            if not args.quiet and (now - shown > args.every or last):
                shown, each = now, (now - began) / (self.state.step - start)
                left = each * (args.steps - self.state.step) / 60
                done = f"{self.state.step}/{args.steps}"
                print(f"{done}  {self._recent()}  {each:.2f} s/step  {left:.1f} min left", flush=True)
            if now - saved > args.save_every or last:
                saved = now
                self.state.save(self.file, run=self.run)
                self._write()

    def _recent(self, count: int = 50) -> str:
        """The mean of each score over the last steps."""
        rows = self.rows[-count:]
        means = [sum(row[i] for row in rows) / len(rows) for i in range(1, len(self.names) + 1)]
        return "  ".join(f"{name} {x:.3f}" for name, x in zip(self.names, means, strict=True))

    def _read(self) -> list[Row]:
        """The rows before the step that comes next."""
        with self.log.open(newline="") as file:
            rows = [tuple(map(float, row)) for row in list(csv.reader(file))[1:]]
        return [row for row in rows if row[0] < self.state.step]

    def _write(self) -> None:
        """Writes the log anew, whole or not at all."""
        partial = self.log.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", *self.names])
            writer.writerows([int(row[0]), *(f"{x:.4f}" for x in row[1:])] for row in self.rows)
        partial.replace(self.log)


def common_arguments(parser: argparse.ArgumentParser, folder: Path) -> None:
    """The arguments of every course; `folder` is where it writes unless told otherwise."""
    parser.add_argument("--out", default=str(folder))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--float32", action="store_true", help="no bfloat16 autocast")
    parser.add_argument("--every", type=float, default=20, help="seconds between lines of progress")
    parser.add_argument("--save-every", type=float, default=60, help="seconds between checkpoints")
    parser.add_argument("--quiet", action="store_true", help="no progress")
