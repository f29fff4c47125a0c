"""What a stage's figures are without any network: of the truth, and of what is trivial."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from evaluate_stages import factors
from ledger import Row
from material import lower, raise_
from stages import Plan
from student_measures import case, grid_of, quality, read_of
from torch import Tensor

from vdm_blocks.metrics import psnr


def plain(plan: Plan, seeds: int) -> list[Row]:
    """Of the clips that `rungs.py` measures a stage on.

    For the base, the clips themselves, and in their places the clips of other captions; for the others, the true clip
    of the stage before, interpolated.
    """
    clips = [case(plan, index) for index in range(seeds + 1)]
    true = [own.video for own in clips[:seeds]]
    if plan.unet.cond_channels:
        grid = grid_of(plan)
        shape = (grid.frames, grid.height, grid.width)
        lows = [lower(video, *factors(plan), images=False) for video in true]
        made = [raise_(low, plan, shape)[:, :3] for low in lows]  # without the mark of known frames
        fit = [float(psnr(a, b).clamp(max=60).mean()) for a, b in zip(made, true, strict=True)]
        return [_row("the stage before, interpolated", _far(made, true), fit)]
    named, other = [own.named for own in clips[:seeds]], [own.video for own in clips[1:]]
    return [
        _row("the clips themselves", [], [read_of(*one) for one in zip(true, named, strict=True)]),
        _row(
            "clips of other captions",
            _far(other, true),
            [read_of(*one) for one in zip(other, named, strict=True)],
        ),
    ]


def _far(made: Sequence[Tensor], true: Sequence[Tensor]) -> list[float]:
    return [quality([a], [b]) for a, b in zip(made, true, strict=True)]


def _row(name: str, far: Sequence[float], fit: Sequence[float]) -> Row:
    return {"name": name, "quality": list(far), "fit": list(fit)}


def section(found: dict[str, list[Row]]) -> str:
    """The part of the page; empty where nothing was measured."""
    if not found:
        return ""
    lines = [
        "## Without a network",
        "",
        "The same figures of the same clips, to read the others by. Interpolation keeps the frames that are known and",
        "invents nothing, and both figures reward that; [the results](results.md) compare on the added frames alone.",
        "",
        "| stage | what | to held-out clips | fit |",
        "|---|---|--:|--:|",
    ]
    for stage, rows in found.items():
        lines += [
            f"| {stage} | {row['name']} | {_said(row['quality'], '.3f')} | {_said(row['fit'], '.2f')} |"
            for row in rows
        ]
    return "\n".join(lines)


def _said(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    return f"{fmean(values):{form}}" + (f" ± {stdev(values):{form}}" if len(values) > 1 else "")
