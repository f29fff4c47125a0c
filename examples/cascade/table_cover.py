"""The table's figures of things that pass behind others: what is measured of each row, and what is known of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ledger import Progress, drawn_as
from stages import PLANS
from table_bench import Bench, pairs
from table_permanence import BASELINES, Reading, baseline, cover, read, read_base, summary
from table_rows import Row
from table_sample import Sampler, link, missing

MOST = 50
"""Scenes that are ever looked for in the ledger."""
known = cache(cover)


def measure(bench: Bench, rows: Sequence[Row], count: int, ends: float) -> None:
    """The upper stages of each row from the true first stage, and each base from the caption alone.

    Rows that share those stages share what is read of them.
    """
    wanted = pairs(count, MOST, bench.args.seeds)
    for number in sorted({number for number, _ in wanted}):
        measure_baselines(bench, number)
    samplers = [bench.sampler(row) for row in rows if missing(row, bench.weights) is None]
    jobs: dict[str, tuple[Sampler, int, int, bool]] = {}
    for number, seed in wanted:
        for sampler in samplers:
            jobs[base_key(bench, sampler.row, number, seed)] = (sampler, number, seed, True)
            if len(sampler.row.parts) == 3:
                jobs[upper_key(bench, sampler.row, number, seed)] = (sampler, number, seed, False)
    todo = bench.ledger.missing(jobs)
    progress = Progress("scenes with a cover", len(todo), quiet=bench.args.quiet)
    for key in todo:
        if time.monotonic() > ends:
            print(
                f"the minutes are over with {progress.done} of {progress.total} scenes made; the same goes on"
            )
            return
        sampler, number, seed, is_base = jobs[key]
        bench.ledger.add(key, (base if is_base else upper)(bench, sampler, number, seed))
        progress()


def base(bench: Bench, sampler: Sampler, number: int, seed: int) -> Reading:
    """What a row's first stage makes of a scene's caption, read."""
    scene = known(number)
    video, _ = sampler.run(0, [(scene.caption, seed_of(number, seed))], None, bench.captions)
    return read_base(video, scene.scene.subject.color)


def upper(bench: Bench, sampler: Sampler, number: int, seed: int) -> Reading:
    """What a row's stages after the first make of a scene's true first stage, read."""
    scene = known(number)
    video = scene.first
    for at in range(1, len(sampler.row.parts)):
        video, _ = sampler.run(at, [(scene.caption, seed_of(number, seed))], video, bench.captions)
    return read(video, scene)


def measure_baselines(bench: Bench, number: int) -> None:
    """Of one scene."""
    for name in (*BASELINES, TRUE_BASE):
        key = baseline_key(name, number)
        if key not in bench.ledger.rows:
            scene = known(number)
            found = (
                read_base(scene.first, scene.scene.subject.color)
                if name == TRUE_BASE
                else read(baseline(name, scene), scene)
            )
            bench.ledger.add(key, found)


TRUE_BASE = "base truth"
"""The true first stage, read as a base's own video is."""


def seed_of(number: int, seed: int) -> int:
    """A noise of its own for every scene and seed, apart from the prompts'."""
    return seed * 1_000_003 + 700_000 + number


@cache
def drawn() -> str:
    """Another whenever these scenes are drawn or rendered otherwise; of the first one's bytes."""
    return drawn_as(known(0).video[0])


@cache
def links(row: Row, folder: Path) -> list[str]:
    """All that each of a row's stages depends on by itself."""
    return [link(plan, part, folder) for plan, part in zip(PLANS, row.parts, strict=False)]


def baseline_key(name: str, number: int) -> str:
    """Of what is read from a baseline."""
    return f"cover {drawn()} {name} {number}"


def upper_key(bench: Bench, row: Row, number: int, seed: int) -> str:
    """Of what is read from the stages after the first."""
    own = " > ".join(links(row, bench.weights)[1:])
    return f"cover {drawn()} | {own} | {number} {seed} {bench.args.device}"


def base_key(bench: Bench, row: Row, number: int, seed: int) -> str:
    """Of what is read from a base's own video."""
    return f"cover {drawn()} base | {links(row, bench.weights)[0]} | {number} {seed} {bench.args.device}"


def collect(bench: Bench, rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """All that the ledger knows: of the upper stages, and of the bases; rows that share their stages stand together."""
    found = {
        "upper": [
            _entry(bench, title, {(n, 0): baseline_key(name, n) for n in range(MOST)})
            for name, title in BASELINES.items()
        ],
        "base": [_entry(bench, "ground truth", {(n, 0): baseline_key(TRUE_BASE, n) for n in range(MOST)})],
    }
    usable = [row for row in rows if missing(row, bench.weights) is None]
    for part, key, count in (("upper", upper_key, 3), ("base", base_key, 1)):
        together: dict[str, list[Row]] = {}
        for row in usable:
            if len(row.parts) >= count:
                together.setdefault(key(bench, row, 0, 0), []).append(row)
        for own in together.values():
            keys = {
                at: key(bench, own[0], *at) for at in pairs(MOST * bench.args.seeds, MOST, bench.args.seeds)
            }
            found[part].append(_entry(bench, ", ".join(f"`{row.name}`" for row in own), keys))
    return {part: [entry for entry in own if entry["videos"]] for part, own in found.items()}


def _entry(bench: Bench, title: str, keys: dict[tuple[int, int], str]) -> dict[str, Any]:
    readings = {at: bench.ledger.rows[key] for at, key in keys.items() if key in bench.ledger.rows}
    return {"title": title, "videos": len(readings), "figures": summary(readings)}
