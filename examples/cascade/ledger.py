"""What an evaluation has measured so far, one line a measurement, so that a stopped one goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from vdm_blocks.video.pixels import to_bytes

Row = dict[str, Any]


class Ledger:
    """Rows under keys, appended to a file of JSON lines; several processes may share it.

    A key says everything that the row depends on, weights included, so a row is never taken for another.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.rows: dict[str, Row] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # an empty line, or the last one of a run that was killed
                continue
            self.rows[row.pop("key")] = row

    def add(self, key: str, row: Row) -> None:
        """Keeps a row, and writes it in one go, on a line of its own even after one that was torn."""
        self.rows[key] = row
        line = "\n" + json.dumps({"key": key, **row}) + "\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that have no row yet."""
        return [key for key in keys if key not in self.rows]

    def present(self, keys: Iterable[str]) -> list[Row]:
        """The rows of those of `keys` that have one."""
        return [self.rows[key] for key in keys if key in self.rows]


def drawn_as(video: Tensor) -> str:
    """For keys: another whenever a video (3, T, H, W) is drawn or rendered otherwise, in the bytes of a pixel."""
    return hashlib.blake2b(to_bytes(video).numpy().tobytes(), digest_size=6).hexdigest()


class Progress:
    """A line every so often, with the time left."""

    def __init__(self, title: str, total: int, *, every: float = 15, quiet: bool = False) -> None:
        self.title, self.total, self.every, self.quiet = title, total, every, quiet
        self.done = 0
        self.began = self.shown = time.monotonic()

    def __call__(self, count: int = 1) -> None:
        """`count` more are done."""
        self.done += count
        now = time.monotonic()
        if self.quiet or (now - self.shown < self.every and self.done < self.total):
            return
        self.shown = now
        left = (now - self.began) / self.done * (self.total - self.done)
        print(f"{self.title} {self.done}/{self.total}  {left / 60:.1f} min left", flush=True)
