"""What training remembers, and what remembering less costs: `python -m benchmarks.recompute`.

The networks of `benchmarks.networks` as they are, with `recompute_activations`, and with every level checkpointed, in
interleaved rounds of one process: CPU time of a forward with backward, and the most bytes of tensors held at a time.
`--sizes tiny --grids 2x4x8` is quick.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.networks import call, unet
from benchmarks.peers import Grid
from benchmarks.sizes import by_size
from benchmarks.timing import Entry, interleave, markdown, peak_bytes, setting
from vdm_blocks.models import VideoUNet
from vdm_blocks.nn import recompute_activations


def main() -> None:
    by_size(__doc__ or "", "recompute", measure, section, rounds=5)


def plain(network: VideoUNet) -> None:
    """All that the backward pass needs is remembered."""
    recompute_activations(network, on=False)
    network.checkpoint_levels()


def recomputing(network: VideoUNet) -> None:
    """Norms, modulations and activations are computed again."""
    recompute_activations(network)
    network.checkpoint_levels()


def checkpointed(network: VideoUNet) -> None:
    """Every unit of every level is computed again."""
    recompute_activations(network, on=False)
    network.checkpoint_levels(*range(len(network.levels)))


WAYS: dict[str, Callable[[VideoUNet], None]] = {
    "everything remembered": plain,
    "recompute_activations": recomputing,
    "checkpoint_levels, all": checkpointed,
}


def measure(size: str, grid: Grid, rounds: int) -> list[list[str]]:
    """A row for each way."""
    network, z_t = unet(size), torch.randn(1, 3, *grid)

    def train(way: Callable[[VideoUNet], None]) -> None:
        way(network)
        network.zero_grad(set_to_none=True)
        call(network, z_t).square().mean().backward()

    entries = [Entry(name=name, run=partial(train, way)) for name, way in WAYS.items()]
    peaks = []
    for entry in entries:
        network.zero_grad(set_to_none=True)  # or the freeing of older gradients would count against new ones
        peaks.append(peak_bytes(entry.run))
    interleave(entries, rounds)
    return [
        [
            f"{size}, {'x'.join(map(str, grid))}",
            entry.name,
            f"{peak / 2**20:.0f}",
            f"{entry.least():.3f}",
            f"{statistics.median(a / b for a, b in zip(entry.cpu, entries[0].cpu, strict=True)):.2f}",
        ]
        for entry, peak in zip(entries, peaks, strict=True)
    ]


def section(rows: list[list[str]], rounds: int) -> str:
    """The page's part."""
    head = ["parameters, grid", "way", "peak MiB", "CPU s", "times the first"]
    return f"""## Training in less memory

```console
$ python -m benchmarks.recompute --write docs/benchmarks.md
```

{setting()}, {rounds} rounds. Our networks of the table above, forward with
backward; *peak* is the most bytes of tensors held at a time beyond the weights, the weights' gradients among them.

{markdown([head, *rows])}
"""


if __name__ == "__main__":
    main()
