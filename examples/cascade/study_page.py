"""docs/studies.md and its pictures, from what was measured."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from study_arms import UpperArm, arms

from vdm_blocks.video.sheet import contact_sheet

BASE = (
    ("loss", "v loss", "{:.4f}"),
    ("score", "VT score", "{:.1f}"),
    ("precision", "R@1 of 32", "{:.0%}"),
    ("frechet", "FVD-TransNet", "{:.2f}"),
    ("kernel", "KVD-TransNet", "{:.4f}"),
)
UPPER = (
    ("psnr", "PSNR, dB", "{:.1f}"),
    ("shift", "colour shift", "{:.2f}"),
    ("drift", "drift across frames", "{:.3f}"),
    ("x0 error at 0.5", "x0 error at t = 0.5", "{:.4f}"),
    ("x0 error at 0.9", "at t = 0.9", "{:.4f}"),
)
CURVES = {"prediction": UPPER[:3], "sizes": (BASE[0], BASE[1], BASE[3])}
SHEETS = {"prediction": "study-prediction-samples.png", "sizes": "study-sizes-samples.png"}
Readings = Sequence[Mapping[str, Any]]


def page(results: Mapping[str, Any]) -> str:
    """The whole page."""
    amount = results["amount"]
    lines = [
        "# Studies of training",
        "",
        _prose(
            f"Written by `{results['command']}` on {results['date']}, with torch {results['torch']}; `--arm "
            "NAME` trains one arm. The numbers lie in [studies.json](studies.json). The paper has the first "
            "two of these studies (arXiv 2210.02303, sections 3.3 and 3.2); the other two are choices that "
            "a user has to make."
        ),
        "",
        _prose(
            "The networks are small and were trained for minutes. The arms of a study begin with the same seed "
            "and see the same samples, times and noise in the same order, except where the samples are what is "
            "studied. ± is the standard error over seeds (trainings); one seed has none. What such trainings "
            "can show is how the arms compare *early* in training; they cannot show where the arms would end, "
            "nor that the same holds of networks a thousand times as large on filmed video."
        ),
        "",
    ]
    for study in results["studies"]:
        upper = study["name"] == "prediction"
        lines += [f"## {study['title']}", "", *(_of_upper(amount) if upper else _of_base(study, results))]
        lines += [*_table(study, results, UPPER if upper else BASE), ""]
        if study["name"] in CURVES:
            lines += [f"![{study['title']}](pictures/study-{study['name']}.png)", ""]
        if study["name"] in SHEETS:
            lines += [f"![samples](pictures/{SHEETS[study['name']]})", ""]
    return "\n".join(lines).rstrip() + "\n"


def _of_upper(amount: Mapping[str, Any]) -> list[str]:
    text = (
        "A network of the stage to 192x320 learns ε, v, or what v is beyond the linear estimate of its two "
        "inputs, as the shipped stage does (`ResidualNetwork`); each loss is the plain mean square of its own "
        f"target. Trained on four frames of 48x80 crops; read on {amount['clips']} held-out clips of eight "
        f"frames, sampled from the true low-resolution clip by DDIM in {amount['upper_steps']} steps, without "
        "guidance. *Colour shift*: how far a frame's mean colour is off the truth's, in steps of 255; *drift "
        "across frames*: by how much that differs from frame to frame of a clip, the fault that the paper saw "
        "with ε; both are 0 for the truth. *x0 error*: mean square of single estimates, kept within [-1, 1]."
    )
    return [_prose(text), ""]


def _of_base(study: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    amount, renders = results["amount"], results["renders"]
    if study["name"] == "pictures":
        text = (
            "The middle base, with and without single pictures among its samples, as many samples in all: a "
            "pack of pictures counts as one, and has eight captions where a clip has one."
        )
    elif study["name"] == "text":
        text = (
            "The middle base, with attention to the caption's tokens at every level, and with nothing but the "
            "pooled text in the vector that modulates its blocks."
        )
    else:
        known = [
            f"{title} {form.format(renders[key])}" for key, title, form in BASE if renders and key in renders
        ]
        text = (
            "Bases of two levels on 8x12x20, half the base's frames, rows and columns. Read on "
            f"{amount['prompts']} prompts, half of them held-out combinations, one video each, "
            f"{amount['base_steps']} steps at scale 3, enlarged to the grid of the video-text encoder "
            f"(`{results['encoder']}`); "
            f"distances are to {amount['reference']} renders of other scenes on the small grid. The renders of "
            f"the prompts themselves, treated alike, have: {', '.join(known)}. *v loss*: on those renders, "
            "of estimates kept within [-1, 1]. With so few videos a Frechet distance is mostly bias, which depends "
            "on how varied a row's videos are, so only large differences say something; the kernel distance has none."
        )
    return [_prose(text), ""]


def _prose(text: str) -> str:
    return textwrap.fill(text, width=118, break_long_words=False, break_on_hyphens=False)


def _table(
    study: Mapping[str, Any], results: Mapping[str, Any], columns: Sequence[tuple[str, str, str]]
) -> list[str]:
    lines = [
        "| arm | parameters | steps | seeds | " + " | ".join(title for _, title, _ in columns) + " | CPU s |",
        "|---|--:|--:|--:|" + "--:|" * (len(columns) + 1),
    ]
    for name, title in study["arms"].items():
        arm = results["arms"][name]
        spent = 0.0
        for step, own in by_step(arm["readings"]).items():
            spent += statistics.fmean(row["cpu"] for row in own)
            cells = [_cell([row[key] for row in own], form) for key, _, form in columns]
            head = f"| {title} (`{name}`) | {arm['parameters'] / 1e6:.2f} M | {step} | {len(own)} | "
            lines.append(head + " | ".join(cells) + f" | {spent:.0f} |")
    if study["name"] == "prediction" and (rows := results["arms"]["v"]["readings"]):
        cells = [
            form.format(rows[0][f"bicubic {key}"]) if f"bicubic {key}" in rows[0] else ""
            for key, _, form in columns
        ]
        lines.append("| bicubic | | | | " + " | ".join(cells) + " | |")
    missing = [name for name in study["arms"] if not results["arms"][name]["readings"]]
    return lines + ([f"\nNot trained yet: {', '.join(f'`{name}`' for name in missing)}."] if missing else [])


def by_step(readings: Readings) -> dict[int, list[Mapping[str, Any]]]:
    """The seeds' readings after each number of steps."""
    steps = sorted({row["step"] for row in readings})
    return {step: [row for row in readings if row["step"] == step] for step in steps}


def _cell(values: Sequence[float], form: str) -> str:
    said = form.format(statistics.fmean(values))
    if len(values) < 2:
        return said
    return f"{said} ± {form.format(statistics.stdev(values) / len(values) ** 0.5)}"


def pictures(results: Mapping[str, Any], samples: Path, folder: Path, prompts: Sequence[str]) -> None:
    """The curves, if matplotlib is installed, and sheets of the first seed's last samples."""
    folder.mkdir(exist_ok=True)
    for study in results["studies"]:
        if study["name"] in CURVES:
            _curves(study, results, folder / f"study-{study['name']}.png")
        if study["name"] in SHEETS:
            _sheet(study, samples, folder / SHEETS[study["name"]], prompts)


def _curves(study: Mapping[str, Any], results: Mapping[str, Any], path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    columns = CURVES[study["name"]]
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.subplots(1, len(columns))
    for axis, (key, title, _) in zip(axes, columns, strict=True):
        for number, (name, label) in enumerate(study["arms"].items()):
            found = by_step(results["arms"][name]["readings"])
            if not found:
                continue
            means = [statistics.fmean(row[key] for row in own) for own in found.values()]
            axis.plot(list(found), means, "o-", color=f"C{number}", label=label, markersize=3)
            for step, own in found.items():
                axis.plot(
                    [step] * len(own),
                    [row[key] for row in own],
                    ".",
                    color=f"C{number}",
                    alpha=0.5,
                    markersize=3,
                )
        axis.set(title=title, xlabel="steps")
        if key in ("shift", "drift", "loss"):
            axis.set_yscale("log")
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=100)


def _sheet(study: Mapping[str, Any], samples: Path, path: Path, prompts: Sequence[str]) -> None:
    upper = {arm.name for arm in arms() if isinstance(arm, UpperArm)}
    rows, labels = [], []
    files = {name: samples / f"{name}-0.safetensors" for name in study["arms"]}
    found = {name: load_file(file)["videos"].float() for name, file in files.items() if file.exists()}
    for index in range(2):
        for name, videos in found.items():
            rows.append(videos[index])
            what = f"clip {index}" if name in upper else prompts[index]
            labels.append(f"{study['arms'][name]}: {what}")
    if rows:
        contact_sheet(path, rows, labels, frames=6, cell_height=72)
