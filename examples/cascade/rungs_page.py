"""The tables of `rungs.py`, its page and its picture."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import heard
import rungs_plain
import torch
from ledger import Row

HEAD = (
    "weights", "steps", "evaluations", "fewer", "seconds", "faster", "to the teacher", "to held-out clips", "fit",
)  # fmt: skip
TEXT = """# Distillation

Written by `python examples/cascade/rungs.py` on {date}, with torch {torch} on {threads} thread(s). The same numbers
are in [distillation.json](distillation.json). Every measurement is kept, so a stopped run goes on; weights that
change are measured anew.

*Teacher* is the undistilled stage in {full}, guided where the stage is; *undistilled* is it in as few steps. *Guidance
alone* has both evaluations of guidance in one, and is told the scale. *Student* is a rung of the halvings that begin
there, and *multistep*, *consistency*, *matching* and *adversarial* went straight to few steps by multistep consistency,
consistency, and distribution matching without and with its GAN term; one evaluation a step, all of them. They take
DDIM's steps, except that the last three go to the clean end and back with fresh noise, as these methods do. The base
takes the uniform grid, and the upper stages one whose last evaluation is at time 0.35 or 0.5 (`RECIPES`), from which
they go straight to the end: *uniform grid* shows what the evaluations beyond it would add. *As in the demo* is how
`sampling.py` has the teacher, and *as shipped* how the demo has the student.
*To the teacher* is the root mean square difference from the teacher's video of the
same noise and condition, for values in [-1, 1]. *To held-out clips* is the energy distance between patches of 2
frames by 4 by 4 pixels, as they are and without their means, of samples and of held-out clips: lower is better. *Fit*
is, for the base, the share of what the caption names that the judge reads, and for the others PSNR in dB against the
true clip, which favours the blurred mean of all that could be there. A figure after ± is the standard deviation over
{seeds} seeds, each a noise and a held-out clip of its own. The upper stages are measured on a part of their grid.
*Read* is of the base alone, over more captions than those seeds': of the things that they name, how many the judge
reads in the videos; and of the videos, in how many the object itself. Its error is that of so many draws."""
NOTES = "<!-- notes -->", "<!-- end of notes -->"
"""What stands between these on the page was written by hand, and is kept."""


def entries(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """By stage: the mean of every measurement and its spread over the seeds, teacher first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["videos"]:
            entry = {key: row[key] for key in ("name", "steps", "weights")}
            for key in ("seconds", "evaluations", "distance", "quality", "fit"):
                values = [video[key] for video in row["videos"]]
                entry[key] = fmean(values)
                entry[f"{key} spread"] = stdev(values) if len(values) > 1 else 0.0
            if "read" in row:
                entry["read"] = row["read"]
            found.setdefault(row["stage"], []).append(entry)
    return found


def lines(stage: Sequence[Row]) -> list[tuple[str, ...]]:
    """The cells of a stage's table, the head first."""
    full = stage[0]
    read = any("read" in row for row in stage)
    cells = [
        (
            row["name"],
            str(row["steps"]),
            f"{row['evaluations']:.0f}",
            f"{full['evaluations'] / row['evaluations']:.0f}x",
            f"{row['seconds']:.2f}",
            f"{full['seconds'] / row['seconds']:.0f}x",
            f"{row['distance']:.3f}",
            f"{row['quality']:.3f} ± {row['quality spread']:.3f}",
            f"{row['fit']:.2f} ± {row['fit spread']:.2f}",
            *([_said(row.get("read"))] if read else []),
        )
        for row in stage
    ]
    return [(*HEAD, *(["read"] if read else [])), *cells]


def _said(read: Row | None) -> str:
    return (
        "" if read is None else f"{read['right']} of {read['named']}, {read['object']} of {read['prompts']}"
    )


def tables(rows: Sequence[Row]) -> str:
    """For a terminal."""
    parts = []
    for name, stage in entries(rows).items():
        cells = lines(stage)
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        made = ["  ".join(c.rjust(width) for c, width in zip(row, widths, strict=True)) for row in cells]
        parts.append("\n".join([name, *made, verdict(stage)]))
    return "\n\n".join(parts)


def write_page(
    docs: Path,
    rows: Sequence[Row],
    names: Sequence[str],
    *,
    without: dict[str, list[Row]],
    scales: dict[str, Row],
    seeds: int,
    full_steps: int | None,
) -> None:
    """distillation.md, .json and .png in `docs`; what was not measured now keeps what was there."""
    data = docs / "distillation.json"
    before: dict[str, dict[str, Any]] = json.loads(data.read_text()) if data.exists() else {}
    known = before.get("stages", {}) | entries(rows)
    plain = before.get("without a network", {}) | without
    told = before.get("the scale", {}) | scales
    stages, plain, told = ({name: own[name] for name in names if name in own} for own in (known, plain, told))
    note = {"torch": torch.__version__, "threads": torch.get_num_threads(), "seeds": seeds}
    data.write_text(
        json.dumps({**note, "stages": stages, "without a network": plain, "the scale": told}, indent=1) + "\n"
    )
    full = (
        f"{full_steps} steps"
        if full_steps
        else "the paper's number of steps, 256 for the base and 128 beyond"
    )
    today, threads = time.strftime("%Y-%m-%d"), torch.get_num_threads()
    page = docs / "distillation.md"
    parts = [TEXT.format(date=today, torch=torch.__version__, threads=threads, full=full, seeds=seeds)]
    parts += [notes(page.read_text() if page.exists() else ""), in_all(stages)]
    if picture(docs / "distillation.png", stages):
        parts.append("![Distances against steps](distillation.png)")
    parts += [rungs_plain.section(plain), heard.section(told)]
    for name in names:
        parts.append(f"## {name}")
        if name not in stages:
            parts.append("Not measured yet.")
            continue
        head, *cells = ["| " + " | ".join(row) + " |" for row in lines(stages[name])]
        rule = "|---|" + "--:|" * (head.count("|") - 2)
        parts += ["\n".join([head, rule, *cells]), verdict(stages[name])]
    page.write_text("\n\n".join(part for part in parts if part) + "\n")


def notes(page: str) -> str:
    """The part of an earlier page that was written by hand."""
    begin, end = NOTES
    _, found, rest = page.partition(begin)
    return f"{begin}{rest.partition(end)[0]}{end}" if found else ""


def in_all(stages: dict[str, list[Row]]) -> str:
    """The stages together: evaluations of a video, and the seconds of what was measured."""
    eight = less(stages, {name: eight_of(stage) for name, stage in stages.items()})
    shipped = less(stages, {name: shipped_of(stage) for name, stage in stages.items()})
    parts = [f"With the students of eight steps {eight}." if eight else ""]
    parts += [f"With what is shipped {shipped}." if shipped else ""]
    return "\n\n".join(part for part in parts if part)


def less(stages: dict[str, list[Row]], chosen: dict[str, Row | None]) -> str:
    """What the chosen rows save of their teachers, all stages together."""
    known = [(stages[name][0], own) for name, own in chosen.items() if own is not None]
    if not known:
        return ""
    full, few = ([round(row["evaluations"]) for row in side] for side in zip(*known, strict=True))
    seconds = [sum(row["seconds"] for row in side) for side in zip(*known, strict=True)]
    return (
        f"the stages measured ({len(known)}) take {sum(few)} evaluations instead of their teachers' {sum(full)}, "
        f"{sum(full) / sum(few):.1f} times fewer (by stage "
        f"{', '.join(f'{a / b:.0f}' for a, b in zip(full, few, strict=True))}), and on what was measured of them "
        f"{seconds[1]:.1f} seconds instead of {seconds[0]:.0f}, {seconds[0] / seconds[1]:.1f} times less"
    )


def shipped_of(stage: Sequence[Row]) -> Row | None:
    """The student that the demo takes."""
    return next((row for row in stage if row["name"] == "student, as shipped"), None)


def eight_of(stage: Sequence[Row]) -> Row | None:
    """The student of eight steps: the rung, or else what is shipped."""
    eights = {row["name"]: row for row in stage if row["steps"] == 8}
    return eights.get("student", eights.get("student, as shipped"))


def verdict(stage: Sequence[Row]) -> str:
    """Which rungs lie within the teacher's spread, and where it breaks."""
    full = stage[0]
    limit = full["quality"] + 2 * full["quality spread"]
    rungs = [row for row in stage if row["name"] in ("student", "guidance alone")]
    if not rungs:
        return ""
    inside = {row["steps"] for row in rungs if row["quality"] <= limit}
    outside = [str(n) for n in sorted({row["steps"] for row in rungs} - inside, reverse=True)]
    few = f"The fewest steps are {min(inside)} that lie" if inside else "No rung lies"
    tail = f"; outside it are {', '.join(outside)}" if outside else ""
    eight = eight_of(stage) or rungs[0]
    at_eight = {row["name"]: row for row in stage if row["steps"] == eight["steps"]}
    plain, same = at_eight.get("undistilled"), at_eight.get("student", at_eight.get("guidance alone", eight))
    nearer = ""
    if plain is not None:
        nearer = (
            f" From the same noise {same['steps']} steps of DDIM end {same['distance']:.3f} from the teacher's own "
            f"video, and those of the undistilled network, in {plain['evaluations']:.0f} evaluations, "
            f"{plain['distance']:.3f}."
        )
    less, faster = full["evaluations"] / eight["evaluations"], full["seconds"] / eight["seconds"]
    return (
        f"{few} within two standard deviations of the teacher{tail}. {eight['steps']} steps take {less:.0f} times "
        f"fewer evaluations and {faster:.0f} times less time than the teacher.{nearer}"
    )


def picture(path: Path, stages: dict[str, list[Row]]) -> bool:
    """Both distances against steps, a column a stage, if matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not stages:
        return False
    figure = Figure(figsize=(2.4 * len(stages), 4.4), layout="constrained")
    grid = figure.subplots(2, len(stages), squeeze=False)
    for column, (name, stage) in enumerate(stages.items()):
        for line, (key, label) in enumerate(
            (("distance", "to the teacher"), ("quality", "to held-out clips"))
        ):
            axes = grid[line, column]
            if key == "quality":
                spread = 2 * stage[0]["quality spread"]
                middle = stage[0]["quality"]
                axes.axhspan(middle - spread, middle + spread, color="0.92")
                axes.axhline(middle, color="0.5", lw=1)
            for kind, mark in (("student", "C0o-"), ("guidance alone", "C2x:"), ("undistilled", "C1s--"),
                               ("multistep", "C3^"), ("consistency", "C4v"), ("matching", "C5D"),
                               ("adversarial", "C6*")):  # fmt: skip
                own = [row for row in stage if row["name"] == kind]
                if own:
                    axes.plot([r["steps"] for r in own], [r[key] for r in own], mark, label=kind, ms=4)
            axes.set_xscale("log", base=2)
            axes.set(
                title=name if line == 0 else "",
                xlabel="steps" if line else "",
                ylabel="" if column else label,
            )
    most = max(grid[0], key=lambda axes: len(axes.lines))
    figure.legend(handles=most.lines, loc="outside lower center", ncols=len(most.lines), fontsize=8)
    figure.savefig(path, dpi=80)
    return True
