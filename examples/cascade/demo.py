"""A prompt becomes a video: `python examples/cascade/demo.py --prompt "a penguin dances"`.

Seven stages run one after the other. Each writes its film when it is done, so an interrupted run loses nothing but
the stage it was in; started again with the same arguments it goes on from the last finished stage, and ends with the
same film.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import torch
from distilled_stages import Chosen, choose_weights, load_chosen
from memory import keep_memory
from safetensors import SafetensorError
from safetensors.torch import load_file
from sampling import SAMPLING, WEIGHTS, oscillating
from stages import PLANS, Plan
from torch import Tensor

from vdm_blocks.checkpoint import file_hash, save_tensors
from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.sampling import StepInfo
from vdm_blocks.types import Conditioning
from vdm_blocks.video.pixels import from_bytes, to_bytes
from vdm_blocks.video.sheet import contact_sheet
from vdm_blocks.video.write import VideoWriter

PROMPT = "a penguin dances in front of a red umbrella"
SHOWN_HEIGHT = 192
"""Films smaller than this are enlarged, each pixel to a square, so that players show them as they are."""


def main() -> int:
    args = arguments()
    try:
        run(args)
    except ValueError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nstopped; what is finished is whole, and the same command goes on from there", file=sys.stderr
        )
        return 130
    return 0


def run(args: argparse.Namespace) -> None:
    """Checks everything, then samples the stages that are not there yet."""
    if not 1 <= args.stages <= len(PLANS):
        raise ValueError(f"--stages is {args.stages}; give a number from 1, the base alone, to {len(PLANS)}")
    plans = PLANS[: args.stages]
    chosen = {plan.name: choose_weights(plan, args.steps, Path(args.weights)) for plan in plans}
    encoded = MiniLMEncoder.load().encode([args.prompt])
    cond = Conditioning(text=encoded.states, text_mask=encoded.mask)
    out = Path(args.out) if args.out else Path("out") / slug(args.prompt, args.seed)
    record = Record(
        out,
        prompt=args.prompt,
        seed=args.seed,
        steps=args.steps,
        guidance=args.guidance,
        weights={n: file_hash(c.weights)[:16] for n, c in chosen.items()},
    )
    torch.set_num_threads(args.threads)
    keep_memory()
    video: Tensor | None = None
    for plan in plans:
        finished = record.finished(plan)
        if finished is not None:
            say(args, f"{plan.name}: there already")
            video = finished
            continue
        video = sample_stage(plan, chosen[plan.name], cond, video, record, args)
    sheet(record, plans)
    say(args, f"{record.film(plans[-1])} and {out / 'sheet.png'}")


def sample_stage(
    plan: Plan,
    chosen: Chosen,
    cond: Conditioning,
    before: Tensor | None,
    record: Record,
    args: argparse.Namespace,
) -> Tensor:
    """Runs one stage, writes its film and what a later run needs, and returns it as bytes (T, H, W, 3)."""
    began = time.monotonic()
    forget_peak()
    sampling = oscillating(plan) if args.guidance == "oscillate" else SAMPLING[plan.name]
    if chosen.why is not None:
        say(args, f"{plan.name}: {chosen.why}; its teacher takes {chosen.steps} steps instead")
    stage = load_chosen(plan, chosen, sampling)
    bar = Bar(f"{plan.name} {plan.grid}", quiet=args.quiet)
    low = None if before is None else from_bytes(before)[None]
    video = stage.run(cond, low, seeds=[args.seed], on_step=bar)[0]
    frames = torch.cat([to_bytes(part) for part in torch.split(video, 8, dim=1)])
    del video, stage
    bar.done(time.monotonic() - began)
    record.keep(plan, frames, seconds=time.monotonic() - began, peak=peak_gib(), steps=chosen.steps)
    return frames


class Record:
    """What a run has finished, in its output folder: films, bytes to go on from, and run.json.

    Raises:
        ValueError: a folder that cannot be written, or that holds another run.
    """

    def __init__(self, out: Path, **run: Any) -> None:
        self.out, self.kept = out, out / ".stages"
        self.file = out / "run.json"
        try:
            self.kept.mkdir(parents=True, exist_ok=True)
            probe = self.kept / f".probe.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ValueError(
                f"cannot write to {out} ({error.strerror}); choose another folder with --out"
            ) from error
        self.data: dict[str, Any] = {"run": run, "stages": {}}
        if self.file.exists():
            try:
                old = json.loads(self.file.read_text())
                known, stages = dict(old["run"]), dict(old["stages"])
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.file} is not a run of this demo; choose another folder with --out"
                ) from error
            shared = known["weights"].keys() & run["weights"].keys()
            same_weights = all(known["weights"][name] == run["weights"][name] for name in shared)
            if (
                any(known[key] != run[key] for key in ("prompt", "seed", "steps", "guidance"))
                or not same_weights
            ):
                what = (
                    known["prompt"]
                    if known["prompt"] != run["prompt"]
                    else "another seed, guidance, number of steps or weights"
                )
                raise ValueError(
                    f"{out} holds another run ({what!r}); choose another folder with --out, or delete it"
                )
            run["weights"] = known["weights"] | run["weights"]
            self.data["stages"] = stages

    def film(self, plan: Plan) -> Path:
        """Where a stage's film goes."""
        return self.out / f"{plan.name}.mp4"

    def finished(self, plan: Plan) -> Tensor | None:
        """The bytes of a stage that an earlier run finished."""
        path = self.kept / f"{plan.name}.safetensors"
        if plan.name not in self.data["stages"] or not path.exists() or not self.film(plan).exists():
            return None
        try:
            return load_file(path)["frames"]
        except (SafetensorError, KeyError):
            return None

    def keep(self, plan: Plan, frames: Tensor, *, seconds: float, peak: float, steps: int) -> None:
        """Writes a finished stage: its film, its bytes, and then, in run.json, that it is finished."""
        times = max(1, -(-SHOWN_HEIGHT // plan.grid.height))
        with VideoWriter(self.film(plan), fps=plan.grid.fps) as writer:
            for part in torch.split(frames, 8):
                large = part.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)
                writer.write(from_bytes(large))
        save_tensors(self.kept / f"{plan.name}.safetensors", {"frames": frames}, {})
        self.data["stages"][plan.name] = {
            "grid": [*plan.grid.shape],
            "fps": plan.grid.fps,
            "steps": steps,
            "seconds": round(seconds, 2),
            "peak_gib": round(peak, 2),
            "shown_enlarged": times,
        }
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(self.data, indent=2) + "\n")
        partial.replace(self.file)


def sheet(record: Record, plans: tuple[Plan, ...]) -> None:
    """One picture of all stages: a row a stage, eight moments each."""
    videos, labels = [], []
    for plan in plans:
        frames = record.finished(plan)
        assert frames is not None
        picked = torch.linspace(0, len(frames) - 1, 8).round().long()
        videos.append(from_bytes(frames[picked]))
        labels.append(f"{plan.name}  {plan.grid}")
    contact_sheet(record.out / "sheet.png", videos, labels, frames=8, cell_height=SHOWN_HEIGHT)


def slug(prompt: str, seed: int) -> str:
    """A folder name for a prompt."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60]
    return f"{words or 'prompt'}-{seed}"


class Bar:
    """One line of progress: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        self.title, self.quiet = title, quiet
        self.began = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def __call__(self, info: StepInfo) -> None:
        now = time.monotonic()
        if self.quiet or (not self.terminal and now - self.shown < 10):
            return
        self.shown = now
        done, count = info.index + 1, info.count
        left = (now - self.began) / done * (count - done)
        bar = "#" * (24 * done // count)
        line = f"{self.title:32s} [{bar:24s}] {done}/{count}  {left:4.0f} s left"
        print(
            f"\r{line}" if self.terminal else line,
            end="" if self.terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def done(self, seconds: float) -> None:
        """Ends the line."""
        if not self.quiet:
            print(
                f"{chr(13) if self.terminal else ''}{self.title:32s} {seconds:6.1f} s{' ' * 40}",
                file=sys.stderr,
            )


def forget_peak() -> None:
    """Starts the kernel's count of peak memory anew, where it can be."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_gib() -> float:
    """The process's peak resident memory since `forget_peak`, or since its start where that cannot be told."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 2**20  # type: ignore[union-attr]
    except (OSError, AttributeError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def say(args: argparse.Namespace, text: str) -> None:
    """A line, unless silenced."""
    if not args.quiet:
        print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Text to video through the seven shipped stages.")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", type=int, default=len(PLANS), help="how many stages to run, 1 to 7")
    parser.add_argument(
        "--steps",
        default="default",
        help="'default', each stage's student; 'full', the teachers in their own numbers; or one number for all",
    )
    parser.add_argument(
        "--guidance",
        choices=("constant", "oscillate"),
        default="constant",
        help="each stage's own scale, or (15, 1) in turn on the first three stages as in the paper",
    )
    parser.add_argument("--out", default="", help="folder; by default out/ and the prompt's words")
    parser.add_argument("--weights", default=str(WEIGHTS), help="folder of the stages' weights")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quiet", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
