"""The command line of the benchmarks of our own networks, by size and grid."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.networks import SIZES, grid_of
from benchmarks.peers import Grid
from benchmarks.timing import setting, write_section

Rows = list[list[str]]


def by_size(
    doc: str,
    name: str,
    measure: Callable[[str, Grid, int], Rows],
    section: Callable[[Rows, int], str],
    *,
    rounds: int,
) -> None:
    """The command of a benchmark of our networks alone: measures each size on each grid, prints, writes its section."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else None)
    parser.add_argument("--sizes", default=SIZES, help="of 10M, 35M and tiny")
    parser.add_argument("--grids", default="16x24x40", help="frames x height x width")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=Path, help="a page whose section is written anew")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(setting(), file=sys.stderr)
    rows = [
        row
        for grid in args.grids.split(",")
        for size in args.sizes.split(",")
        for row in measure(size, grid_of(grid), args.rounds)
    ]
    text = section(rows, args.rounds)
    print(text)
    if args.write:
        write_section(args.write, name, text)
