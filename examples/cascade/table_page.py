"""docs/table.md, from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TEXT = (
    ("score", "VT score", "{:.1f}"),
    ("precision", "R-precision", "{:.1%}"),
    ("object", "object", "{:.0%}"),
    ("color", "colour", "{:.0%}"),
    ("motion", "motion", "{:.0%}"),
)
SIGHT = (
    ("kernel", "KVD-VT", "{:.2f}"),
    ("frechet", "FVD-VT", "{:.1f}"),
    ("leading", "FVD-VT, leading", "{:.1f}"),
    ("steadiness", "steadiness", "{:.2f}"),
    ("change", "change", "{:.4f}"),
    ("flicker", "flicker", "{:.4f}"),
    ("edge", "saturated", "{:.1%}"),
)
UPPER = (
    ("kept", "kept", "{:.0%}"), ("returned", "returned", "{:.0%}"), ("color", "colour change", "{:.3f}"),
    ("size", "size change", "{:.2f}"), ("shape", "shape change", "{:.2f}"), ("speed", "speed change", "{:.2f}"),
    ("track", "off the track", "{:.3f}"), ("missed", "missed", "{:.0%}"),
)  # fmt: skip
BASE = (("found", "colour in sight", "{:.0%}"), ("passes", "passes", "{:.0%}"), ("kept", "kept", "{:.0%}"))
COST = (("evaluations", "evaluations", "{:.0f}"), ("cpu", "CPU s", "{:.1f}"))


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    settings = results["settings"]
    chance = f"{1 / settings['pool']:.1%}"
    lines = [
        "# The paper's table",
        "",
        f"Written by `{results['command']}` on {results['date']}, with torch {results['torch']} on",
        f"{settings['device']}; `--row NAME` measures one row, `--ablations` the second half. The numbers lie in",
        "[table.json](table.json); [what they do not show](evidence.md) has a page of its own.",
        "",
        "The rows are those of Imagen Video's table of sampling time (arXiv 2210.02303, section 3.4): guidance, by",
        "steps of the base / steps of each super-resolution stage. Its text does not say whether 6 and (15, 1) are",
        "its weight *w* of x = (1 + w) x_cond - w x_uncond or the scale 1 + w, so both readings stand here; scales",
        "are ours, 1 is off. The prompts are the evaluation's, half of them combinations that training never drew.",
        "",
        "Videos are scored as stage 3 leaves them, at 32x48x80 (*stages* 3), or as the base does (1), not at",
        f"128x768x1280. n videos of a row are of the first n of {settings['prompts']} prompts, with",
        f"{settings['seeds']} seeds in turn; so rows with the same n show the same prompts, each with the same noise.",
        "A figure after ± is one standard error over the prompts. Object, colour and motion are shares of those",
        "videos whose prompt names one, which are fewer than n (how many is in the JSON).",
        "",
        "- **VT score**: 100 max(cos, 0) of caption and frame, mean of the frames, by the video-text encoder below.",
        f"- **R-precision**: how often the own caption is the nearest of {settings['pool']} to the mean of a video's",
        f"  frames (the paper asks every frame); chance is {chance}.",
        "- **object, colour, motion**: how often the judge reads what the prompt names.",
        "- **KVD-VT, FVD-VT**: kernel and Frechet distance of that encoder's embeddings to those",
        f"  of {settings['reference']} renders of other scenes. A Frechet distance needs more than",
        f"  {settings['width']} videos, the numbers of an embedding; where a row has fewer, it is left out, and there",
        f"  is the one in the {settings['leading']} *leading* directions, in which the renders differ most. Both are",
        "  biased upwards, and the more so the fewer videos there are. The kernel distance is not; its error is that",
        "  of the seeds' sets, where each has two videos or more.",
        "- **steadiness**: cosine of neighbouring frames' embeddings, times 100; **change**, **flicker**: of pixels;",
        "  **saturated**: the share of values beyond 0.98.",
        "- **evaluations**: of networks, for one video; **CPU s**: seconds of one core for one video, of the stages",
        f"  scored, {settings['batch']} videos at a time (the clock's are in the JSON).",
        "",
        *_encoder(settings["encoder"]),
    ]
    for group in dict.fromkeys(row["group"] for row in results["rows"]):
        own = [row for row in results["rows"] if row["group"] == group]
        lines += ["", f"## {group}", "", *_rows(own)]
    lines += _covers(results.get("covers", {}))
    return "\n".join([*lines, "", *_comparisons(results["comparisons"])]).rstrip() + "\n"


def _encoder(record: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        "What that encoder is worth, on renders that it was not trained on:",
        "",
        "| scenes | " + " | ".join(next(iter(record.values()))) + " |",
        "|---|" + "--:|" * len(next(iter(record.values()))),
    ]
    names = list(next(iter(record.values())))
    for kind, found in record.items():
        cells = [f"{found[name]:.0%}" if name in found else "" for name in names]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return [
        *lines,
        "",
        "(*R@1 of n*: own caption nearest of n; *one word*: nearer than captions wrong in one word, for each word;",
        "the rest: nearer than the caption wrong in that word, of which half is chance.)",
    ]


def _rows(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for columns in ((*TEXT, *COST), SIGHT):
        if not any(row["figures"] for row in rows):
            break
        lines += [
            "| row | steps | stages | n | " + " | ".join(title for _, title, _ in columns) + " |",
            "|---|---|--:|--:|" + "--:|" * len(columns),
        ]
        for row in rows:
            if row["figures"]:
                cells = [_cell(row["figures"], name, form) for name, _, form in columns]
                lines.append(
                    f"| {row['title']} (`{row['name']}`) | {row['steps']} | {row['stages']} | {row['videos']} | "
                    + " | ".join(cells)
                    + " |"
                )
        lines.append("")
    for reason in dict.fromkeys(row["missing"] for row in rows if row["missing"]):
        names = ", ".join(f"`{row['name']}`" for row in rows if row["missing"] == reason)
        lines.append(f"- {names}: {reason}.")
    timed = [row for row in rows if row["to the sixth"] is not None]
    if timed:
        lines += [
            "",
            "Seconds of one core to 128x192x320, as in the paper (stages 4 to 6 were timed once, in eight steps):",
            "",
        ]
        lines += [f"- `{row['name']}`: {row['to the sixth']:.0f}" for row in timed]
    return lines


def _covers(covers: dict[str, list[dict[str, Any]]]) -> list[str]:
    if not covers.get("upper"):
        return []
    lines = [
        "",
        "## Things that pass behind others",
        "",
        "Ray-cast scenes, drawn by no training, in which a thing passes behind a box, is hidden for about a",
        "quarter of the clip, and comes out again. First, stages 2 and 3 get the true first stage, so that the",
        "truth of every frame is known: what is measured is whether *they* keep the thing, not whether the base",
        "would have made it. *Kept*: it is seen again, and its colour, size, shape and speed are within the bounds",
        "of `Permanence.kept`; the changes are of those that were seen on both sides; *off the track*: in heights",
        "of the picture (a cone's centre of pixels lies 0.05 off its axis in the truth as well); *missed*: of the",
        "frames that ought to show it whole.",
        "",
        *_table(covers["upper"], UPPER),
        "",
        "Then the base makes the scene from its caption alone, and decides itself where everything is. *Colour in",
        "sight*: the share of frames that show the thing's colour; *passes*: seen twice, then not, then twice",
        "again; *kept*: that, and it came out as it went in, of all videos. There is no true track to compare",
        "with.",
        "",
        *_table(covers["base"], BASE),
    ]
    return lines


def _table(entries: Sequence[dict[str, Any]], columns: Sequence[tuple[str, str, str]]) -> list[str]:
    lines = [
        "| rows | n | " + " | ".join(title for _, title, _ in columns) + " |",
        "|---|--:|" + "--:|" * len(columns),
    ]
    for entry in entries:
        cells = [_cell(entry["figures"], name, form) for name, _, form in columns]
        lines.append(f"| {entry['title']} | {entry['videos']} | " + " | ".join(cells) + " |")
    return lines


def _cell(figures: dict[str, dict[str, float | None]], name: str, form: str) -> str:
    if name not in figures:
        return ""
    mean, error = figures[name]["mean"], figures[name]["error"]
    said = form.format(mean)
    return said if error is None or name in {n for n, *_ in COST} else f"{said} ± {form.format(error)}"


def _comparisons(comparisons: dict[str, dict[str, Any]]) -> list[str]:
    if not comparisons:
        return []
    lines = [
        "## Distilled steps against the full ones",
        "",
        "Rows of students alone, and the ground truth of the same prompts, less the 256/128 row of the same guidance,",
        "on the prompts and seeds that both have; the error is of the pairs. Bold is beyond one standard error of the",
        "256/128 row; in brackets are figures for which there is none. Where the truth differs in the same sense as a",
        "row, and by more, the row is the nearer to it.",
        "",
    ]
    columns = (*TEXT, *SIGHT)
    lines += [
        "| row | n | " + " | ".join(title for _, title, _ in columns) + " |",
        "|---|--:|" + "--:|" * len(columns),
    ]
    for both in comparisons.values():
        cells = [_difference(both["figures"].get(key), form) for key, _, form in columns]
        lines.append(f"| {both['title']} | {both['videos']} | " + " | ".join(cells) + " |")
    return lines


def _difference(found: dict[str, Any] | None, form: str) -> str:
    if found is None:
        return ""
    said = form.replace("{:", "{:+").format(found["difference"])
    if found["within"] is None:
        return f"({said})"
    error = "" if found["error"] is None else f" ± {form.format(found['error'])}"
    return f"{said}{error}" if found["within"] else f"**{said}**{error}"
