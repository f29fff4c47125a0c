"""The paper's studies of training at our scale: `python examples/cascade/studies.py` writes docs/studies.md.

Small networks are trained for minutes, arms of a study on the same samples with the same noise, and read as they
learn. Every network and every reading is kept, so a stopped run goes on where it was. `--arm NAME` trains some alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ledger import Ledger
from material import HERE, Captions
from memory import keep_memory
from study_arms import STUDIES, Arm, BaseArm, arms, recipe
from study_measures import Amount, Measures
from study_page import page, pictures
from study_train import Learner, train
from table_read import scenes_digest
from videotext import VideoTextEncoder

from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.data.scenes import HeldOut
from vdm_blocks.data.sprites import SpritePack

ENCODER = HERE / "videotext" / "videotext.safetensors"


def main(given: Sequence[str] | None = None) -> int:
    args = arguments(given)
    try:
        run(args)
    except ValueError as error:
        print(f"studies: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; what is trained is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    return 0


def run(args: argparse.Namespace) -> None:
    """Trains what is missing, as far as the minutes go, and writes the page."""
    keep_memory()
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    if not out.is_dir():
        raise ValueError(
            f"there is no folder {out} to write the page to; make it, or choose another with --out"
        )
    groups = in_groups(chosen(args.arm))
    folder = runs_of(Path(args.runs))
    captions, ledger, amount = Captions(MiniLMEncoder.load()), Ledger(folder / "studies.jsonl"), Amount()
    encoder = VideoTextEncoder.load(Path(args.encoder), captions.encoder)
    measures = Measures(captions, encoder, amount, folder / "samples")
    ends = time.monotonic() + 60 * args.minutes if args.minutes else float("inf")
    if renders(encoder.name) not in ledger.rows:
        ledger.add(renders(encoder.name), measures.read(measures.renders))

    def measure(learner: Learner, spent: float) -> None:
        row = {"step": learner.state.step, "seed": learner.seed, "cpu": spent, **measures(learner)}
        ledger.add(key(learner.arm, learner.seed, learner.state.step, encoder.name), row)

    done = all(
        train(group, seed, folder / "networks", captions, measure, ends=ends, quiet=args.quiet)
        for seed in range(args.seeds)
        for group in groups
    )
    if not done:
        print("the minutes are over; the same command goes on")
    results = collect(ledger, encoder.name, args.seeds)
    pictures(results, folder / "samples", out / "pictures", [prompt.text for prompt in measures.made])
    (out / "studies.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "studies.md").write_text(page(results), encoding="utf-8")
    if not args.quiet:
        print(f"wrote {out / 'studies.md'}")


def runs_of(folder: Path) -> Path:
    """Networks that learned scenes that are drawn otherwise are others, and so are readings on them."""
    return folder / scenes_digest(SpritePack.load(HERE / "sprites"), HeldOut.load(HERE / "heldout.json"))


def chosen(names: Sequence[str] | None) -> list[Arm]:
    """The arms of these names; all for None."""
    by_name = {arm.name: arm for arm in arms()}
    unknown = [name for name in names or () if name not in by_name]
    if unknown:
        raise ValueError(f"there is no arm {unknown[0]!r}; choose among {', '.join(by_name)}")
    return list(by_name.values()) if names is None else [by_name[name] for name in names]


def in_groups(found: Sequence[Arm]) -> list[list[Arm]]:
    """Arms that see the same samples together."""
    groups: dict[str, list[Arm]] = {}
    for arm in found:
        plan = arm.plan
        groups.setdefault(f"{plan.name} {plan.training}", []).append(arm)
    return list(groups.values())


def key(arm: Arm, seed: int, step: int, encoder: str) -> str:
    """Of what was read from an arm's network; the video-text encoder reads the bases alone."""
    return f"{recipe(arm)} {Amount()} {seed} {step}" + (f" {encoder}" if isinstance(arm, BaseArm) else "")


def renders(encoder: str) -> str:
    """Of what was read from the prompts' renders."""
    return f"renders {Amount()} {encoder}"


def collect(ledger: Ledger, encoder: str, seeds: int) -> dict[str, Any]:
    """All that the ledger knows of the arms as they are planned now."""
    found = {}
    for arm in arms():
        keys = [key(arm, seed, step, encoder) for seed in range(seeds) for step in arm.measured]
        found[arm.name] = {
            "parameters": sum(x.numel() for x in Learner(arm, 0, Path("nowhere")).network.parameters()),
            "steps": arm.steps,
            "batch": arm.batch,
            "readings": ledger.present(keys),
        }
    return {
        "command": "python examples/cascade/studies.py",
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "amount": vars(Amount()),
        "renders": ledger.rows.get(renders(encoder)),
        "encoder": encoder,
        "arms": found,
        "studies": [
            {"name": study.name, "title": study.title, "arms": {arm.name: arm.title for arm in study.arms}}
            for study in STUDIES
        ],
    }


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Studies of training; writes docs/studies.md and studies.json."
    )
    parser.add_argument("--arm", action="append", help="train this one alone; may be given again")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of every arm")
    parser.add_argument("--minutes", type=float, default=0, help="stop after so many; 0 is no limit")
    parser.add_argument("--out", default=str(HERE.parents[1] / "docs"), help="folder of the page")
    parser.add_argument(
        "--runs", default=str(HERE / "runs" / "studies"), help="folder of networks and readings"
    )
    parser.add_argument("--encoder", default=str(ENCODER), help="the video-text encoder")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
