"""Train one stage of the cascade: `python examples/cascade/train.py 1-base`.

Everything that is random is drawn by (seed, step), so a run that was killed goes on from its last checkpoint as if
nothing had happened. Writes state.safetensors, log.csv, loss.png and sample sheets to runs/STAGE, and at the end the
averaged weights to weights/STAGE.safetensors.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from course import descend
from material import Captions, lower, raise_, stream, text_of, unpack
from memory import keep_memory
from muon import Muon
from peek import peek
from stages import PLANS, Phase, Plan, Training
from team import Team
from torch import Tensor

from vdm_blocks.checkpoint import file_hash, load_network, save_network
from vdm_blocks.conditioning.augmentation import ConditioningAugmentation
from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.data.sample import Batch
from vdm_blocks.denoisers import ModelDenoiser
from vdm_blocks.denoisers.residual import ResidualNetwork
from vdm_blocks.diffusion.noise import KeyedNoise
from vdm_blocks.models import TransformerSpec, UNetSpec, VideoTransformer, VideoUNet, build_network
from vdm_blocks.training import EMA, DiffusionLoss, WarmedDecay
from vdm_blocks.training.state import TrainingState

HERE = Path(__file__).parent


def main() -> None:
    args = arguments()
    keep_memory()
    torch.set_num_threads(args.threads)
    plans = PLANS if args.stage == "all" else [plan for plan in PLANS if plan.name == args.stage]
    if not plans:
        names = ", ".join(plan.name for plan in PLANS)
        sys.exit(f"there is no stage {args.stage!r}; choose one of {names}, or all")
    captions = Captions(MiniLMEncoder.load())
    team = Team.join(torch.device(args.device))
    args.quiet = args.quiet or not team.writes
    for plan in plans:
        if args.smoke:
            plan = smoke(plan)
        index = [p.name for p in PLANS].index(plan.name)
        try:
            Run(plan, PLANS[index - 1] if index else None, captions, team, args).train()
        except ValueError as error:
            sys.exit(f"train: {error}")
    team.leave()


class Run:
    """One stage's training, from its last checkpoint to its last step."""

    def __init__(
        self, plan: Plan, before: Plan | None, captions: Captions, team: Team, args: argparse.Namespace
    ) -> None:
        self.plan, self.before, self.captions, self.team, self.args = plan, before, captions, team, args
        self.folder = Path(args.out) / plan.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = torch.device(args.device)
        self.network = first_network(plan, args).to(self.device)
        if args.checkpointing:
            recompute(self.network)
        self.residual = None if before is None else ResidualNetwork(self.network, detail_std=plan.detail)
        self.denoiser = ModelDenoiser(
            self.network if self.residual is None else self.residual, schedule=plan.schedule
        )
        self.factors = plan.grid.over(before.grid) if before is not None else (1, 1)
        optimizer = Muon(self.network.parameters(), lr=plan.training.rate)
        self.state = TrainingState(
            self.network, EMA(self.network, WarmedDecay(decay=plan.training.average)), optimizer
        )
        self.identity = {"stage": plan.name, "seed": str(args.seed), "plan": repr(plan)}
        if args.data is not None:
            self.identity["data"] = str(args.data)
        if args.start_from is not None:
            self.identity["start"] = file_hash(args.start_from)
        if args.renew is not None:
            self.identity["renew"] = args.renew
        self.file = self.folder / "state.safetensors"
        if self.file.exists():
            self.state.load(self.file, run=self.identity)

    def train(self) -> None:
        """Steps until the plan's last, saving at intervals; then writes the averaged weights."""
        total = self.plan.training.steps
        name, start = self.plan.name, self.state.step
        if start and self.team.writes:
            print(f"{name}: going on from step {start} of {total}", flush=True)
        began = saved = shown = time.monotonic()
        log = Log(self.folder / "log.csv", upto=start)
        for step, batch in self.batches():
            loss = self.step(step, batch)
            log.write(step, loss, self.rate(step), time.monotonic() - began)
            now = time.monotonic()
            if now - shown > self.args.every or step + 1 == total:
                shown = now
                left = (now - began) / (step + 1 - start) * (total - step - 1)
                if not self.args.quiet:
                    print(
                        f"{name} {step + 1}/{total}  loss {log.recent():.4f}  "
                        f"{(now - began) / (step + 1 - start):.2f} s/step  {left / 60:.1f} min left",
                        flush=True,
                    )
            if not self.team.writes:
                continue
            if now - saved > self.args.save_every or step + 1 == total:
                saved = now
                self.state.save(self.file, run=self.identity)
                log.flush()
                log.picture(self.folder / "loss.png", name)
            if self.args.sheet_every and (step + 1) % self.args.sheet_every == 0:
                self.export(self.folder / "average.safetensors")
                with self.state.ema.applied(self.network):
                    sheet = self.folder / f"sheet-{step + 1}.png"
                    peek(sheet, self.plan, self.before, self.network, self.captions, batch)
        if self.team.writes:
            self.export(Path(self.args.weights) / f"{name}.safetensors")

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """(step, our part of its batch) from the step reached to the last; sample numbers follow from the step."""
        first, number = 0, 0
        for phase in self.plan.training.phases:
            done = min(max(self.state.step - first, 0), phase.steps)
            if done < phase.steps:
                source = stream(self.plan, phase, self.before, seed=self.args.seed, data=self.args.data)
                start = number + done * phase.batch
                if self.before is None and self.team.size > 1 and not phase.together:
                    raise ValueError(
                        f"stage {self.plan.name} mixes clips and pictures in a batch, which several processes would "
                        "take in unequal parts; plan its phases with together=True, or start one process"
                    )
                part = self.team.part(phase.batch)
                loader = source.loader(phase.batch, start=start, part=part, workers=self.args.workers)
                yield from zip(range(first + done, first + phase.steps), loader, strict=False)
            first += phase.steps
            number += phase.steps * phase.batch

    def step(self, step: int, batch: Batch) -> float:
        """One optimizer step; returns the mean loss."""
        for group in self.state.optimizer.param_groups:
            group["lr"] = self.rate(step)
        video, cond = batch.video, text_of(batch, self.captions)
        if self.before is None and bool(batch.images.all()):
            video, cond = unpack(video, cond)
        count = len(video) * self.team.size
        ours = self.team.part(count)
        seeds = tuple(step * 100_000 + i for i in range(count))[ours]
        noise = KeyedNoise(seeds=seeds, stage=f"{self.plan.name}/{self.args.seed}")
        # One low-discrepancy set of times per step (arXiv 2107.00630, appendix I.1), and one of augmentations.
        draw = torch.Generator().manual_seed(self.args.seed * 1_000_003 + step)
        even = torch.arange(count) / count
        t = (torch.rand((), generator=draw) + even) % 1
        u = ((torch.rand((), generator=draw) + even) % 1)[torch.randperm(count, generator=draw)]
        keep = torch.rand(count, generator=draw) >= 0.1
        t, u, keep = t[ours].to(self.device), u[ours], keep[ours]
        if self.before is not None:
            low = [lower(v[None], *self.factors, bool(i)) for v, i in zip(video, batch.images, strict=True)]
            parts = [
                self.augmented(part, video.shape, u[i : i + 1], noise.select([i]))
                for i, part in enumerate(low)
            ]
            cond = replace(
                cond, video=torch.cat([p[0] for p in parts]), aug_logsnr=torch.cat([p[1] for p in parts])
            )
        video, cond = video.to(self.device), cond.drop_text(keep).to(self.device)
        loss_of = DiffusionLoss(noise=self.plan.noise)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=not self.args.float32):
            losses = loss_of(self.denoiser, video, t, cond, generator=noise)
        if self.residual is not None:
            losses = losses * self.residual.precision(self.denoiser.schedule.logsnr(t), cond).to(losses)
        return descend(self.state, losses.mean(), self.team)

    def augmented(
        self, low: Tensor, shape: torch.Size, u: Tensor, noise: KeyedNoise
    ) -> tuple[Tensor, Tensor]:
        """One sample's condition on the stage's grid, noised at the random level that `u` stands for.

        Down to an SNR of 2.7; the square puts four tenths of the samples above the log-SNR of 5 used in sampling.
        """
        noisy, logsnr = ConditioningAugmentation(longest=0.35).random(low, u.square(), generator=noise)
        return raise_(noisy, self.plan, shape), logsnr

    def rate(self, step: int) -> float:
        """The learning rate: 100 steps of warm-up, constant, and linear to a fiftieth over the last 30%."""
        training = self.plan.training
        left = (training.steps - step) / (0.3 * training.steps)
        return training.rate * min(1.0, (step + 1) / 100, max(left, 0.02))

    def export(self, path: Path) -> None:
        """Writes the averaged weights, half precision, with what they were made from."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.state.ema.applied(self.network):
            notes = {
                "stage": self.plan.name,
                "grid": str(self.plan.grid),
                "seed": str(self.args.seed),
                "steps": str(self.state.step),
                "text": "all-MiniLM-L6-v2",
            }
            save_network(path, self.network, notes=notes)
        print(f"{self.plan.name}: wrote {path} ({file_hash(path)[:12]})", flush=True)


def first_network(plan: Plan, args: argparse.Namespace) -> VideoUNet | VideoTransformer:
    """The network that a run begins with: random by the seed, but for what `--start-from` holds."""
    torch.manual_seed(args.seed)
    network = build_network(plan.unet)
    if args.start_from is None:
        return network
    trained = load_network(args.start_from)
    if not begins(trained.spec, plan.unet):
        raise ValueError(f"{args.start_from} holds another network than stages.py plans for {plan.name}")
    own, given = network.state_dict(), trained.state_dict()
    if args.renew is not None:
        given = {name: value for name, value in given.items() if args.renew not in name}
    network.load_state_dict(own | given)
    new = [name for name in own if name not in given]
    if new:
        print(f"{plan.name}: {len(new)} parameters begin anew: {', '.join(new)}", flush=True)
    return network


def begins(trained: UNetSpec | TransformerSpec, planned: UNetSpec | TransformerSpec) -> bool:
    """Whether weights of one plan can begin a network of the other, which may number its frames anew."""
    if isinstance(trained, UNetSpec) and isinstance(planned, UNetSpec):
        trained = replace(trained, frame_positions=trained.frame_positions or planned.frame_positions)
    return trained == planned


def recompute(network: VideoUNet | VideoTransformer) -> None:
    """Has all activations recomputed in the backward pass."""
    if isinstance(network, VideoUNet):
        network.checkpoint_levels(*range(len(network.levels)))
    else:
        network.checkpoint_blocks(*range(len(network.blocks)))


class Log:
    """Loss by step, in a CSV file that grows; a resumed run first drops what it is about to do again."""

    def __init__(self, path: Path, *, upto: int) -> None:
        self.path = path
        self.rows: list[tuple[int, float, float, float]] = []
        if path.exists():
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    if int(row["step"]) < upto:
                        self.write(
                            int(row["step"]), *(float(row[key]) for key in ("loss", "rate", "seconds"))
                        )

    def write(self, step: int, loss: float, rate: float, seconds: float) -> None:
        """Notes one step."""
        self.rows.append((step, loss, rate, seconds))

    def recent(self, count: int = 100) -> float:
        """The mean loss of the last steps."""
        rows = self.rows[-count:]
        return sum(r[1] for r in rows) / len(rows)

    def flush(self) -> None:
        """Writes the file anew, whole or not at all."""
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "loss", "rate", "seconds"])
            writer.writerows((s, f"{a:.5f}", f"{b:.3g}", f"{c:.1f}") for s, a, b, c in self.rows)
        partial.replace(self.path)

    def picture(self, path: Path, title: str) -> None:
        """The loss curve, if matplotlib is installed."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            return
        losses = torch.tensor([r[1] for r in self.rows])
        width = max(1, len(losses) // 200)
        smooth = losses[: len(losses) // width * width].view(-1, width).mean(1)
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot(torch.arange(len(smooth)) * width, smooth)
        axes.set(yscale="log", xlabel="step", ylabel="v loss", title=title)
        figure.savefig(path, dpi=100)


def smoke(plan: Plan) -> Plan:
    """The plan, with a few steps of its last phase's mixture only."""
    last = plan.training.phases[-1]
    few: tuple[Phase, ...] = (replace(last, steps=3, batch=2),)
    training: Training = replace(plan.training, phases=few)
    return replace(plan, training=training)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("stage", nargs="?", default="all", help="1-base ... 7-ssr, or all")
    parser.add_argument(
        "--data", type=Path, help="train on this folder of captioned clips instead of the scenes"
    )
    parser.add_argument(
        "--start-from", help="begin with these weights, such as the shipped ones, not with random ones"
    )
    parser.add_argument("--renew", help="with --start-from: parameters with this in their names begin anew")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=str(HERE / "runs"), help="folder of checkpoints, logs and sheets")
    parser.add_argument("--weights", default=str(HERE / "weights"), help="folder of the finished weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=1, help="processes that make data")
    parser.add_argument("--float32", action="store_true", help="no bfloat16 autocast")
    parser.add_argument(
        "--checkpointing", action="store_true", help="recompute activations: less memory, slower"
    )
    parser.add_argument("--every", type=float, default=20, help="seconds between lines of progress")
    parser.add_argument("--save-every", type=float, default=120, help="seconds between checkpoints")
    parser.add_argument(
        "--sheet-every", type=int, default=500, help="steps between sample sheets; 0 for none"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument(
        "--smoke", action="store_true", help="a few steps of every stage, to see that all works"
    )
    args = parser.parse_args()
    if args.smoke and args.weights == str(HERE / "weights"):
        args.weights = str(Path(args.out) / "smoke-weights")  # never over the shipped ones
    return args


if __name__ == "__main__":
    main()
