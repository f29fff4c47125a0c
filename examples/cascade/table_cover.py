"""The table's figures of things that pass behind others: what is measured of each row, and what is known of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ledger import Progress
from stages import PLANS
from table_bench import Bench
from table_permanence import BASELINES, Reading, baseline, cover, read, read_base, summary
from table_rows import Row
from table_sample import link, missing

MOST = 50
"""Scenes that are ever looked for in the ledger."""
known = cache(cover)


def measure(bench: Bench, rows: Sequence[Row], count: int, ends: float) -> None:
    """The upper stages of each row from the true first stage, and each base from the caption alone."""
    folder = Path(bench.args.weights)
    for name in BASELINES:
        for number in range(count):
            if (key := f"cover {name} {number}") not in bench.ledger.rows:
                bench.ledger.add(key, read(baseline(name, known(number)), known(number)))
            if (key := f"cover base {name} {number}") not in bench.ledger.rows and name == "truth":
                scene = known(number)
                bench.ledger.add(key, read_base(scene.first, scene.scene.subject.color))
    samplers = {row: bench.sampler(row) for row in rows if missing(row, folder) is None}
    jobs: dict[str, Callable[[], Reading]] = {}
    for number in range(count):
        for seed in range(bench.args.seeds):
            for row, sampler in samplers.items():

                def upper(sampler: Any = sampler, number: int = number, seed: int = seed) -> Reading:
                    scene = known(number)
                    video = sampler.through(scene.first, scene.caption, seed_of(number, seed), bench.captions)
                    return read(video, scene)

                def base(sampler: Any = sampler, number: int = number, seed: int = seed) -> Reading:
                    scene = known(number)
                    video = sampler.base(scene.caption, seed_of(number, seed), bench.captions)
                    return read_base(video, scene.scene.subject.color)

                jobs[base_key(bench, row, number, seed)] = base
                if len(row.parts) == 3:
                    jobs[upper_key(bench, row, number, seed)] = upper
    todo = bench.ledger.missing(jobs)
    progress = Progress("scenes with a cover", len(todo), quiet=bench.args.quiet)
    for key in todo:
        if time.monotonic() > ends:
            print(f"the minutes are over with {progress.done} of {len(todo)} scenes made", file=sys.stderr)
            return
        bench.ledger.add(key, jobs[key]())
        progress()


def seed_of(number: int, seed: int) -> int:
    """A noise of its own for every scene and seed, apart from the prompts'."""
    return seed * 1_000_003 + 700_000 + number


@cache
def links(row: Row, folder: Path) -> list[str]:
    """All that each of a row's stages depends on by itself."""
    return [link(plan, part, folder) for plan, part in zip(PLANS, row.parts, strict=False)]


def upper_key(bench: Bench, row: Row, number: int, seed: int) -> str:
    """Of what is read from the stages after the first."""
    own = " > ".join(links(row, Path(bench.args.weights))[1:])
    return f"cover | {own} | {number} {seed} {bench.args.device}"


def base_key(bench: Bench, row: Row, number: int, seed: int) -> str:
    """Of what is read from a base's own video."""
    return f"cover base | {links(row, Path(bench.args.weights))[0]} | {number} {seed} {bench.args.device}"


def collect(bench: Bench, rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """All that the ledger knows: of the upper stages, and of the bases; rows that share their stages stand together."""
    folder = Path(bench.args.weights)
    upper = [
        _entry(title, [[bench.ledger.rows.get(f"cover {name} {n}") for n in range(MOST)]])
        for name, title in BASELINES.items()
    ]
    base = [_entry("ground truth", [[bench.ledger.rows.get(f"cover base truth {n}") for n in range(MOST)]])]
    usable = [row for row in rows if missing(row, folder) is None]
    for found, key, count in ((upper, upper_key, 3), (base, base_key, 1)):
        together: dict[str, list[Row]] = {}
        for row in usable:
            if len(row.parts) >= count:
                together.setdefault(key(bench, row, 0, 0), []).append(row)
        for own in together.values():
            names = ", ".join(f"`{row.name}`" for row in own)
            rows_ = [
                [bench.ledger.rows.get(key(bench, own[0], n, seed)) for n in range(MOST)]
                for seed in range(bench.args.seeds)
            ]
            found.append(_entry(names, rows_))
    return {"upper": [e for e in upper if e["videos"]], "base": [e for e in base if e["videos"]]}


def _entry(title: str, by_seed: Sequence[Sequence[Reading | None]]) -> dict[str, Any]:
    readings = [own for seed in by_seed if (own := [row for row in seed if row is not None])]
    return {
        "title": title,
        "videos": sum(len(own) for own in readings),
        "figures": summary(readings) if readings else {},
    }
