"""Two forms of one thing: checked to agree, then timed side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.timing import Entry, interleave, markdown, times_as_fast

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A block, its other form, what each is given, and the formulation that ours takes."""

    name: str
    ours: Function
    naive: Function
    x: Tensor
    naive_x: Tensor
    chosen: str


def comparison(pairs: Iterable[Pair], *, rounds: int, theirs: str = "naive") -> str:
    """A table with a line for each pair; both forms are first checked to agree.

    Raises:
        AssertionError: two that do not.
    """
    ways = ("forward", "with backward")
    head = ["block", *(f"{who}, {way}" for way in ways for who in ("ours", theirs, "ratio")), "ours"]
    rows = [head]
    for pair in pairs:
        torch.testing.assert_close(pair.ours(pair.x), pair.naive(pair.naive_x), rtol=1e-3, atol=1e-4)
        row = [pair.name]
        for backward in (False, True):
            entries = [
                Entry(name=name, run=once(function, x, backward=backward))
                for name, function, x in (("ours", pair.ours, pair.x), (theirs, pair.naive, pair.naive_x))
            ]
            for entry in entries:
                entry.run()
            interleave(entries, rounds)
            row += [f"{1e3 * entry.least():.2f}" for entry in entries] + [f"{times_as_fast(*entries):.2f}x"]
        rows.append([*row, pair.chosen])
    return markdown(rows)


def once(function: Function, x: Tensor, *, backward: bool) -> Callable[[], None]:
    """One evaluation of `function`, alone or with its gradient."""

    def run() -> None:
        if not backward:
            with torch.no_grad():
                function(x)
            return
        leaf = x.detach().requires_grad_()
        out = function(leaf)
        out.backward(torch.ones_like(out))

    return run
