"""How far a chain is, on one line of a terminal."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from vdm_blocks.sampling.loop import StepInfo

__all__ = ["ProgressLine"]


@dataclass(kw_only=True)
class ProgressLine:
    """Writes "base 12/48, 31 s left" over itself after each step: `sample(..., on_step=ProgressLine(name="base"))`.

    It reads nothing of the video, so it waits for no device. One for each chain; the first step, which may compile
    something, is not counted when the rest is estimated.

    Attributes:
        name: what is sampled.
        stream: where to; the terminal's errors unless given.
    """

    name: str = "step"
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _began: tuple[int, float] | None = field(default=None, init=False, repr=False)

    def __call__(self, info: StepInfo) -> None:
        """One line, and its end after the last step."""
        done, now = info.index + 1, time.monotonic()
        if self._began is None:
            self._began = (done, now)
        first, began = self._began
        left = f", {(now - began) / (done - first) * (info.count - done):.0f} s left" if done > first else ""
        last = done == info.count
        self.stream.write(
            f"\r{self.name} {done}/{info.count}{'' if last else left}\033[K{chr(10) if last else ''}"
        )
        self.stream.flush()
