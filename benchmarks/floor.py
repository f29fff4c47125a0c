"""What the forward of our networks is made of, and how much of it could be saved: `python -m benchmarks.floor`.

Every operation that the network calls is recorded with what it was given, then called alone, in interleaved rounds
with the network itself and with the ceiling of `benchmarks.networks`. The sum of the convolutions and products alone is
the floor: no other way of calling them, and nothing done about what lies between them, makes the network faster than
that. `--sizes tiny --grids 2x4x8` is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.networks import call, ceiling, unet
from benchmarks.peers import Grid
from benchmarks.sizes import by_size
from benchmarks.timing import Entry, interleave, markdown, operations, setting

# The kinds that are counted as operations, then the others.
KINDS = {
    "convolution": "3x3 and 2x2 convolutions",
    "pointwise": "1x1 convolutions",
    "bmm": "products of attention",
    "mm": "other products",
    "addmm": "other products",
    "_scaled_dot_product_flash_attention_for_cpu": "fused attention",
    "native_layer_norm": "norms",
    "_softmax": "softmax",
    "silu": "SiLU",
    "clone": "copies",
    "cat": "copies",
    "upsample_nearest2d": "copies",
}
ELSE = "sums, modulations and the rest"


@dataclass(kw_only=True)
class Call(Entry):
    """An operation with what it was given, how often it was, and what it computes."""

    kind: str
    count: int
    work: int

    def seconds(self) -> float:
        """Of all such calls in one forward."""
        return self.count * self.least()


class Recorder(TorchDispatchMode):
    """Remembers each distinct call that computes anything."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: dict[str, tuple[str, Callable[[], object]]] = {}
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls, and takes note."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if all(result.alias_info is None for result in func._schema.returns):
            key = f"{func}{[layout(arg) for arg in args]}"
            self.calls.setdefault(key, (kind_of(func, args), partial(func, *args, **kwargs)))
            self.counts[key] = self.counts.get(key, 0) + 1
        return out


def layout(arg: object) -> object:
    """What a call's time may depend on."""
    if isinstance(arg, Tensor):
        return (tuple(arg.shape), arg.stride())
    return [layout(one) for one in arg] if isinstance(arg, (list, tuple)) else arg


def kind_of(func: Any, args: tuple[Any, ...]) -> str:
    """The row of the table."""
    name = str(func._schema.name).removeprefix("aten::")
    if name == "convolution" and args[1].shape[2:].numel() == 1:
        name = "pointwise"
    return KINDS.get(name, ELSE)


def main() -> None:
    by_size(__doc__ or "", "floor", measure, section, rounds=12)


@torch.no_grad()
def measure(size: str, grid: Grid, rounds: int) -> list[list[str]]:
    """A row for each kind of operation, for the counted ones together, for all, and for the network."""
    network, z_t = unet(size), torch.randn(1, 3, *grid)
    whole = Entry(name="the network", run=lambda: call(network, z_t))
    whole.run()
    with Recorder() as recorder:
        whole.run()
    calls = [
        Call(name=key, run=run, kind=kind, count=recorder.counts[key], work=operations(run))
        for key, (kind, run) in recorder.calls.items()
    ]
    bare, work = ceiling(grid)
    interleave([bare, whole, *calls], rounds)
    most = work / bare.least()
    everything = sum(one.work * one.count for one in calls)

    def row(name: str, chosen: Sequence[Call]) -> list[str]:
        ours, seconds = sum(c.work * c.count for c in chosen), sum(c.seconds() for c in chosen)
        share = f"{ours / seconds / most:.0%}" if ours else ""
        return [name, str(sum(c.count for c in chosen)), f"{ours / 1e9:.1f}", f"{1e3 * seconds:.1f}", share]

    kinds = [kind for kind in (*dict.fromkeys(KINDS.values()), ELSE) if any(c.kind == kind for c in calls)]
    rows = [row(kind, [c for c in calls if c.kind == kind]) for kind in kinds]
    rows.append(row("**what counts as operations, alone**", [c for c in calls if c.work]))
    rows.append(row("**all, each alone**", calls))
    took = whole.least()
    share = f"{everything / took / most:.0%}"
    rows.append(["**the network**", "", f"{everything / 1e9:.1f}", f"{1e3 * took:.1f}", share])
    return [[f"{size}, {'x'.join(map(str, grid))}", *one] for one in rows]


def section(rows: list[list[str]], rounds: int) -> str:
    """The page's part."""
    head = ["parameters, grid", "operation", "calls", "GFLOP", "CPU ms", "of ceiling"]
    return f"""## What the forward is made of

```console
$ python -m benchmarks.floor --write docs/benchmarks.md
```

{setting()}, {rounds} rounds. Every operation of
our networks of the first table, called alone with the tensors that the network gives it, times how often it does. *What
counts as operations, alone* is the floor: were all that lies between convolutions and products free, the network would
reach that share of the ceiling and no more, and per operation it would be that much faster than a library that
reaches another share.

{markdown([head, *rows])}
"""


if __name__ == "__main__":
    main()
