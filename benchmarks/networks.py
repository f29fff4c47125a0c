"""Our video U-Net against other libraries' and against the machine: `python -m benchmarks.networks`.

Networks of about 10 and 35 million parameters on the same clips, forward and forward with backward, in interleaved
rounds of one process (twice as many forward) next to a bare 3x3 convolution on channels-last frames, which is the
ceiling. Operations are those of convolutions and matrix products. The networks differ in architecture, so a column
compares per operation, and a second table has single blocks of the other libraries with the same weights in our layers.
benchmarks/peers.txt makes the environment; what is not installed is left out. `--keep` puts each measurement into a
folder, where a later run finds it, so that a long one may be cut, or spread over several.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.mapped import mapped
from benchmarks.pairs import comparison
from benchmarks.peers import Grid, Peer, installed
from benchmarks.timing import (
    Entry,
    interleave,
    markdown,
    operations,
    peak_bytes,
    setting,
    times_as_fast,
    write_section,
)
from vdm_blocks.models import LevelSpec, SpatialAttentionSpec, TemporalAttentionSpec, UNetSpec, VideoUNet
from vdm_blocks.nn import recompute_activations
from vdm_blocks.types import Conditioning

# In 10M and 35M the channels of imagen-pytorch's and video-diffusion-pytorch's networks of that size, but for the last.
# Theirs have two blocks at every level. Ours has one at the finest, as Imagen's Efficient U-Net has fewer where frames
# are large (arXiv 2205.11487, appendix B.1): a second holds a hundredth of the weights and takes about a seventh of the
# time.
WIDTHS = {"tiny": (16, 32), "10M": (32, 64, 128, 256), "35M": (64, 128, 256, 480)}
OURS = "VideoUNet"
EVEN = f"{OURS}, two blocks at every level"
RECOMPUTING, REMEMBERING = f"{OURS}, recompute_activations", f"{OURS}, everything remembered"
SIZES, GRIDS = "10M,35M", "16x24x40,16x64x64"
# What was aimed at: times as fast, forward and with backward; for diffusers per operation; the share of its memory.
AIMS = {
    "imagen-pytorch": (2.5, 2.2, 0.45),
    "video-diffusion-pytorch": (3.0, 2.2, 0.35),
    "diffusers": (2.5, 2.5, 0.25),
}


@dataclass(kw_only=True)
class Measured(Entry):
    """A network's rounds, and what it is made of."""

    parameters: int
    operations: int
    peak: int | None

    def rate(self) -> float:
        """Operations in a CPU second."""
        return self.operations / self.least()

    def plain(self) -> dict[str, object]:
        """What was found, as JSON can hold it."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "run"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """All networks of one size on one grid, one way: two of ours, the first of which is compared to all, then peers."""

    size: str
    grid: Grid
    backward: bool
    networks: Sequence[Measured]
    ceiling: float

    def save(self, path: Path) -> None:
        """Writes it to a file for `load`."""
        own = {"size": self.size, "grid": self.grid, "backward": self.backward, "ceiling": self.ceiling}
        path.write_text(json.dumps(own | {"networks": [one.plain() for one in self.networks]}), "utf-8")

    @staticmethod
    def load(path: Path) -> Cell:
        """The inverse of `save`, without the means to run again."""
        own = json.loads(path.read_text("utf-8"))
        networks = [Measured(run=lambda: None, **one) for one in own.pop("networks")]
        return Cell(**(own | {"networks": networks, "grid": tuple(own["grid"])}))

    def rows(self) -> Iterator[list[str]]:
        """A line of the table for each network."""
        ours = self.networks[0]
        way = "with backward" if self.backward else "forward"
        for one in self.networks:
            peak = "" if one.peak is None else f"{one.peak / 2**20:.0f}"
            times = (
                [f"{self.ratio(one):.2f}", f"{self.per_operation(one):.2f}"] if one is not ours else ["", ""]
            )
            yield [
                f"{self.size}, {'x'.join(map(str, self.grid))}, {way}",
                one.name,
                f"{one.parameters / 1e6:.1f}",
                f"{one.operations / 1e9:.1f}",
                str(self.rounds),
                f"{one.least():.3f}",
                f"{min(one.wall):.2f}",
                f"{one.rate() / self.ceiling:.0%}",
                *times,
                peak,
            ]

    @property
    def peers(self) -> list[Measured]:
        """The other libraries' networks."""
        return [one for one in self.networks if not one.name.startswith(OURS)]

    @property
    def rounds(self) -> int:
        """How often each was timed."""
        return len(self.networks[0].cpu)

    def ratio(self, theirs: Measured) -> float:
        """How many times as fast ours is."""
        return times_as_fast(self.networks[0], theirs)

    def per_operation(self, theirs: Measured) -> float:
        """The same for each operation."""
        return self.ratio(theirs) * self.networks[0].operations / theirs.operations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default=SIZES, help="of 10M, 35M and tiny")
    parser.add_argument("--grids", default=GRIDS, help="frames x height x width")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=Path, help="a page whose section is written anew")
    parser.add_argument(
        "--keep", type=Path, help="a folder for the measurements; those in it are not repeated"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    peers = installed()
    print(setting(), file=sys.stderr)
    cells: list[Cell] = []
    for grid in map(grid_of, args.grids.split(",")):
        for size in args.sizes.split(","):
            cells += measure(size, grid, peers, args.rounds, args.keep)
    text = section(cells, same_weights(peers, 2 * args.rounds, args.keep))
    print(text)
    if args.write:
        write_section(args.write, "networks", text)


def measure(
    size: str, grid: Grid, peers: Sequence[Peer], rounds: int, keep: Path | None = None
) -> Iterator[Cell]:
    """Builds the networks of `size` and times them forward, then with backward."""
    z_t = torch.randn(1, 3, *grid)
    ours, even = unet(size), unet(size, finest=2)

    def remembering(on: bool) -> Tensor:
        recompute_activations(ours, not on)
        return call(ours, z_t)

    calls: list[tuple[str, nn.Module, Callable[[], Tensor]]] = []
    for peer in peers:
        net = peer.build(size)
        calls.append((peer.label(), net, lambda peer=peer, net=net: peer.call(net, z_t)))  # type: ignore[misc]
    for backward in (False, True):
        own = (
            [(RECOMPUTING, ours, lambda: remembering(False)), (REMEMBERING, ours, lambda: remembering(True))]
            if backward
            else [(OURS, ours, lambda: call(ours, z_t)), (EVEN, even, lambda: call(even, z_t))]
        )
        kept = (
            keep and keep / f"{size}-{'x'.join(map(str, grid))}-{'training' if backward else 'forward'}.json"
        )
        if kept and kept.is_file():
            yield Cell.load(kept)
            continue
        bare, work = ceiling(grid)
        networks = [network(name, net, once, backward) for name, net, once in own + calls]
        interleave([bare, *networks], rounds if backward else 2 * rounds)
        cell = Cell(size=size, grid=grid, backward=backward, networks=networks, ceiling=work / bare.least())
        if kept:
            cell.save(kept)
        yield cell


def same_weights(peers: Sequence[Peer], rounds: int, keep: Path | None) -> str:
    """The table of mapped blocks."""
    kept = keep and keep / "blocks.md"
    if kept and kept.is_file():
        return kept.read_text("utf-8")
    text = comparison(mapped(peers, (1, 128, 16, 24, 40)), rounds=rounds, theirs="theirs")
    if kept:
        kept.write_text(text, "utf-8")
    return text


def unet(size: str, finest: int = 1) -> VideoUNet:
    """Factorized attention over time at every level, attention within frames at the two coarsest; no text.

    Two blocks a level, but for the finest.
    """
    widths = WIDTHS[size]
    levels = tuple(
        LevelSpec(
            channels=c,
            blocks=finest if index == 0 else 1 if size == "tiny" else 2,
            temporal=TemporalAttentionSpec(heads=max(c // 32, 1)),
            attention=SpatialAttentionSpec(heads=max(c // 32, 1)) if index >= len(widths) - 2 else None,
        )
        for index, c in enumerate(widths)
    )
    net = VideoUNet(UNetSpec(levels=levels, text_width=0))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    nn.init.normal_(net.head.conv.weight, std=0.02)
    return net


def call(net: VideoUNet, z_t: Tensor) -> Tensor:
    """One evaluation."""
    out: Tensor = net(z_t, torch.zeros(1), Conditioning())
    return out


def network(name: str, net: nn.Module, once: Callable[[], Tensor], backward: bool) -> Measured:
    """`once`, forward or with backward; it runs here first, for its operations, then for its memory."""

    def run() -> None:
        if not backward:
            with torch.no_grad():
                once()
            return
        net.zero_grad(set_to_none=True)
        once().square().mean().backward()

    work = operations(run)
    net.zero_grad(set_to_none=True)  # or the freeing of older gradients would count against new ones
    return Measured(
        name=name,
        run=run,
        parameters=sum(p.numel() for p in net.parameters()),
        operations=work,
        peak=peak_bytes(run) if backward else None,
    )


def ceiling(grid: Grid) -> tuple[Entry, int]:
    """A 3x3 convolution of 128 channels on all frames, channels last, and its operations."""
    frames, height, width = grid
    x = torch.randn(frames, 128, height, width).to(memory_format=torch.channels_last)
    weight = torch.randn(128, 128, 3, 3).to(memory_format=torch.channels_last)
    F.conv2d(x, weight, padding=1)
    entry = Entry(name="convolution", run=lambda: F.conv2d(x, weight, padding=1))
    return entry, 2 * 9 * 128 * x.numel()


HEAD = [
    "parameters, grid",
    "network",
    "M weights",
    "GFLOP",
    "rounds",
    "CPU s",
    "wall s",
    "of ceiling",
    "ours faster",
    "per operation",
    "peak MiB",
]


def section(cells: Sequence[Cell], same: str) -> str:
    """The page's part: all cells, what was aimed at, and the mapped blocks."""
    rates = sorted(cell.ceiling / 1e9 for cell in cells)
    rows = [HEAD, *(row for cell in cells for row in cell.rows())]
    return f"""## Networks

```console
$ python -m benchmarks.networks --keep measured --write docs/benchmarks.md
```

{setting()}. The ceiling is a bare
3x3 convolution of 128 channels on channels-last frames, measured in the same rounds: {rates[0]:.0f} to {rates[-1]:.0f}
GFLOP/s. *Ours faster* divides their CPU time by ours, *per operation* also by the ratio of the operations; *peak* is
the most bytes of tensors held at a time in training, beyond the weights. Ours has its weights channels-last
(`network.to(memory_format=torch.channels_last)`), and in training it computes norms, modulations and activations twice
(`recompute_activations`), so that time and memory are of one run; the row below it is without. It has one block at the
finest level and two at the others, as Imagen's Efficient U-Net has fewer where frames are large (arXiv 2205.11487,
appendix B.1); forward, the row below it has two at all of them, as the others' networks have.{missing(cells)}

{markdown(rows)}

### What was aimed at

{markdown([["than", "measure", "aim", "found", "holds"], *aims(cells)])}

Per operation, the aim beside diffusers asks for {asked(cells)} of the ceiling;
[what the forward is made of](#what-the-forward-is-made-of) says what is left to gain.

### The same weights and mathematics

Blocks of the other libraries beside our layers with their weights, on a video of 128 channels: both agree, so the ratio
is that of the formulations alone. Milliseconds of CPU time.

{same}"""


def missing(cells: Sequence[Cell]) -> str:
    """A sentence on what of the whole table was not measured, if anything."""
    there = {(cell.size, cell.grid, cell.backward) for cell in cells}
    rest = [
        f"{size} at {grid} {'with backward' if backward else 'forward'}"
        for grid in GRIDS.split(",")
        for size in SIZES.split(",")
        for backward in (False, True)
        if (size, grid_of(grid), backward) not in there
    ]
    return f"\nNot measured: {', '.join(rest)}." if rest else ""


def asked(cells: Sequence[Cell]) -> str:
    """The shares of the ceiling that would be as fast per operation as was aimed at, in the order of the table."""
    shares = (
        AIMS["diffusers"][cell.backward] * one.rate() / cell.ceiling
        for cell in cells
        for one in cell.peers
        if one.name.startswith("diffusers")
    )
    return ", ".join(f"{share:.0%}" for share in shares) or "nothing that was measured"


def aims(cells: Sequence[Cell]) -> Iterator[list[str]]:
    """A line for each aim, with what each cell found in the order of the table."""
    peers = {one.name for cell in cells for one in cell.peers}
    for label in sorted(peers):
        forward, both, memory = AIMS[label.split()[0]]
        per_operation = label.startswith("diffusers")
        for backward, aim in ((False, forward), (True, both)):
            found = [
                cell.per_operation(one) if per_operation else cell.ratio(one)
                for cell in cells
                for one in cell.peers
                if cell.backward == backward and one.name == label
            ]
            measure = (
                f"{'training' if backward else 'forward'} {'per operation' if per_operation else 'time'}"
            )
            yield [label, measure, f">= {aim}", *verdict(found, [x >= aim for x in found], "{:.2f}")]
        shares = [
            own / one.peak
            for cell in cells
            for one in cell.peers
            if one.name == label and one.peak and (own := cell.networks[0].peak)
        ]
        yield [
            label,
            "training memory",
            f"<= {memory}",
            *verdict(shares, [x <= memory for x in shares], "{:.2f}"),
        ]
    for backward, aim in ((False, 0.6), (True, 0.5)):
        found = [
            cell.networks[0].rate() / cell.ceiling
            for cell in cells
            if cell.backward == backward and cell.size == "35M"
        ]
        measure = f"35M, {'training' if backward else 'forward'}"
        yield ["the ceiling", measure, f">= {aim:.0%}", *verdict(found, [x >= aim for x in found], "{:.0%}")]


def verdict(found: Sequence[float], holds: Sequence[bool], form: str) -> tuple[str, str]:
    """What was found, and in how many of the cases it is enough."""
    words = "not measured" if not found else "yes" if all(holds) else f"{sum(holds)} of {len(holds)}"
    return ", ".join(form.format(x) for x in found), words


def grid_of(text: str) -> Grid:
    """'16x24x40' as numbers."""
    parts = tuple(int(part) for part in text.split("x"))
    if len(parts) != 3:
        raise ValueError(f"a grid is frames x height x width, such as 16x24x40; got {text!r}")
    return parts[0], parts[1], parts[2]


if __name__ == "__main__":
    main()
