"""Distil one stage of the cascade: `python examples/cascade/distill.py 1-base`, or `all`.

First its guidance, into a network that is told the scale, where the stage is guided at all (arXiv 2210.03142); then
its steps, by the stage's own method or another (`--method`): halved again and again (arXiv 2202.00512), or at once, by
multistep consistency, consistency or distribution matching, with its GAN term or without. Everything random is drawn by
(seed, update), so a run that was killed goes on as if nothing had happened. Writes every student's weights,
ladder.json, the logs and their pictures to runs/students/STAGE-WEIGHTS, what is shipped to
weights/students/STAGE.safetensors, and rungs of fewer steps than that to weights/students/few/STAGE-STEPS.safetensors.
`rungs.py` measures what came of it.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from distill_methods import direct_of, guidance_of, halving_of
from distill_parts import Autocast, Half, Teller, ToldScales, blank, model, muon, recipe_for, write_student
from distilled_stages import (
    METHODS,
    SCALES,
    few_student,
    is_guided,
    jumps_of,
    network_of,
    short_hash,
    threshold,
    times_of,
    told,
    told_scales,
)
from material import Captions
from memory import keep_memory
from safetensors.torch import load_file
from sampling import SAMPLING, WEIGHTS, find_weights, model_of, stage_around
from stages import PLANS, Plan
from student_batches import StudentBatches
from student_measures import judged

from vdm_blocks.checkpoint import file_hash, load_unet, save_tensors
from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.denoisers import ModelDenoiser
from vdm_blocks.distillation import (
    Distiller,
    DistillInfo,
    Jumps,
    Ladder,
    Lesson,
    Rung,
    ToldGuidance,
    distill,
    fit_direction,
    learn,
)
from vdm_blocks.models import VideoUNet
from vdm_blocks.sampling import DDIM
from vdm_blocks.types import Denoiser

HERE = Path(__file__).parent


def main() -> None:
    args = arguments()
    keep_memory()
    torch.set_num_threads(args.threads)
    plans = PLANS if args.stage == "all" else tuple(plan for plan in PLANS if plan.name == args.stage)
    if not plans:
        names = ", ".join(plan.name for plan in PLANS)
        sys.exit(f"there is no stage {args.stage!r}; choose one of {names}, or all")
    try:
        for plan in plans:
            find_weights(plan, Path(args.weights))
        captions = Captions(MiniLMEncoder.load())
        for plan in plans:
            Distillation(plan, captions, args).run()
    except ValueError as error:
        sys.exit(f"distill: {error}")


class Distillation:
    """One stage, from its weights to a student of few steps."""

    def __init__(self, plan: Plan, captions: Captions, args: argparse.Namespace) -> None:
        self.plan, self.captions, self.args = plan, captions, args
        self.recipe = recipe_for(plan, args)
        self.method = args.method or self.recipe.method
        self.end = args.end or (1 if self.method == "progressive" else self.recipe.shipped)
        self.weights = find_weights(plan, Path(args.weights))
        self.device = torch.device(args.device)
        self.folder = Path(args.out) / f"{plan.name}-{file_hash(self.weights)[:8]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        index = [p.name for p in PLANS].index(plan.name)
        self.batches = StudentBatches(
            plan,
            PLANS[index - 1] if index else None,
            captions,
            batch=self.recipe.batch,
            seed=args.seed,
            pictures=self.recipe.pictures,
            data=args.data,
            workers=args.workers,
            device=self.device,
        )
        self.identify()

    def identify(self) -> None:
        """Refuses a folder in which the same weights are distilled otherwise."""
        # Each method's own updates are told by its state and by ladder.json.
        common = replace(
            self.recipe, halving=0, first=0, direct=0, rung_rate=1.0, method="", rule=DDIM(), shipped=0
        )
        own = {"seed": self.args.seed, "recipe": repr(common), "plan": repr(self.plan)}
        own |= {"data": str(self.args.data), "float32": self.args.float32}
        own |= {"judge": [self.args.judge_seeds, self.args.judge_clips]}
        path = self.folder / "run.json"
        if path.exists():
            if json.loads(path.read_text()) != own:
                raise ValueError(
                    f"{self.folder} holds another run of this stage; give the same arguments or another --out"
                )
            return
        path.write_text(json.dumps(own, indent=1) + "\n")

    def run(self) -> None:
        """All of it, or what of it is missing."""
        if self.method == "guidance" and not self.recipe.guidance:
            raise ValueError(f"the guidance of {self.plan.name} is off; give another --method")
        student = self.guided()
        if self.method == "guidance":
            if self.recipe.method == "guidance":
                self.ship(self.folder / "guidance.safetensors", self.recipe.shipped)
            return
        student, teacher = self.begun(student), self.guide()
        if self.method != "progressive":
            self.direct(teacher, student)
            return
        ladder = self.descend(teacher, student)
        print(ladder.table())
        if ladder.stopped is not None:
            print(f"{self.plan.name}: stopped, and no weights are shipped: {ladder.stopped}")
            return
        for own in ladder.rungs:
            if own.rung.steps < self.recipe.shipped:
                path = few_student(self.plan, own.rung.steps, Path(self.args.students))
                self.write(self.folder / own.weights, own.rung.steps, path)
        if self.recipe.method == "progressive":
            best = [r for r in ladder.rungs if r.rung.steps >= self.recipe.shipped] or list(ladder.rungs[:1])
            self.ship(self.folder / best[-1].weights, best[-1].rung.steps)

    def guide(self) -> Denoiser:
        """The undistilled stage, guided by the scale that it is told and thresholded: what the students aim at."""
        teacher = self.undistilled()
        return threshold(self.plan, ToldGuidance(teacher) if is_guided(self.plan) else teacher)

    def begun(self, guided: ModelDenoiser) -> ModelDenoiser:
        """What the method begins with: the student of guidance, which hears the scale as the method's students do."""
        student = model_of(self.plan, blank(self.plan, self.method)).to(self.device)
        student.load_state_dict(guided.state_dict())
        return student

    def undistilled(self) -> ModelDenoiser:
        """The stage's network as it was trained."""
        return model_of(self.plan, load_unet(self.weights)).to(self.device).requires_grad_(False)

    def guided(self) -> ModelDenoiser:
        """The student that is told the scale, at any number of steps; an unguided stage's is its teacher's copy."""
        teacher = self.undistilled()
        student = copy.deepcopy(teacher).requires_grad_()
        if not self.recipe.guidance:
            return student
        unet = network_of(student)
        assert isinstance(unet, VideoUNet)
        torch.manual_seed(self.args.seed)  # of the scale's embedding
        adapter = told_scales(self.plan, unet, "guidance").to(self.device)
        student = model_of(self.plan, adapter)
        path = self.folder / "guidance.safetensors"
        if path.exists():
            student.load_state_dict(load_file(path))
            return student
        made = guidance_of(self.plan, teacher, student, SCALES)
        distiller = Autocast(made, self.device, enabled=not self.args.float32)
        lesson = Lesson(updates=self.recipe.guidance, rate=self.recipe.rate, average=self.recipe.average)
        state = self.folder / "guidance.state.safetensors"
        if adapter.direction is not None and not state.exists():
            first = [self.batches(number) for number in range(self.recipe.fitted)]
            numbers, key = range(len(first)), f"fit/{self.args.seed}"
            with torch.autocast(self.device.type, torch.bfloat16, enabled=not self.args.float32):
                left = fit_direction(made, adapter, first.__getitem__, numbers, key=key)
            print(f"{self.plan.name} guidance: fitted, {left:.2f} of its square is left to learn", flush=True)
        teller = self.teller("guidance", [lesson])
        learn(
            student,
            lambda _update: distiller,
            lesson,
            self.batches,
            path=state,
            key=f"guidance/{self.args.seed}",
            optimizer=muon,
            factors=[(module, self.recipe.quick) for module in adapter.added],
            save_every=self.args.save_every,
            on_update=teller,
        )
        teller.finish()
        save_tensors(path, student.state_dict(), {})
        state.unlink(missing_ok=True)
        return student

    def descend(self, teacher: Denoiser, student: ModelDenoiser) -> Ladder:
        """Down the rungs; those below the shipped one show where it breaks, and are never stopped at."""
        rungs: list[Rung] = []
        steps = self.recipe.start // 2
        while steps >= self.end:
            updates = (2 if steps <= 2 else 1) * self.recipe.halving
            rungs.append(
                Rung(
                    steps=steps,
                    updates=updates if rungs else self.recipe.first or updates,
                    rate=self.recipe.rung_rate,
                    average=self.recipe.average,
                )
            )
            steps //= 2
        teller = self.teller("rungs", rungs)
        begins = {
            rung.steps: self.recipe.guidance + sum(r.updates for r in rungs[:i])
            for i, rung in enumerate(rungs)
        }

        def on_update(info: DistillInfo) -> None:
            teller(begins[info.rung.steps] - self.recipe.guidance + info.update, info.loss)

        def down(rungs: list[Rung], width: float) -> Ladder:
            return distill(
                teacher,
                student,
                rungs,
                lambda number: self.batches(self.recipe.guidance + number),
                self.judge,
                folder=self.folder,
                teacher_steps=self.recipe.start,
                jumps=lambda steps: jumps_of(self.plan, steps),
                method=self.progressive,
                optimizer=muon,
                width=width,
                seed=self.args.seed,
                save_every=self.args.save_every,
                on_update=on_update,
            )

        shipped = [rung for rung in rungs if rung.steps >= self.recipe.shipped]
        table = self.folder / "ladder.json"
        passed = table.exists() and len(Ladder.read(table).rungs) > len(shipped)
        ladder = down(rungs, float("inf")) if passed or not shipped else down(shipped, self.args.width)
        if ladder.stopped is None and len(ladder.rungs) < len(rungs):
            ladder = down(rungs, float("inf"))
        teller.finish()
        return ladder

    def progressive(self, teacher: Denoiser, student: Denoiser, jumps: Jumps) -> Distiller:
        """One halving."""
        return self.told(halving_of(self.plan, teacher, model(student), jumps))

    def direct(self, teacher: Denoiser, student: ModelDenoiser) -> None:
        """Another method, straight from the guided teacher to few steps; its weights go beside the rungs."""
        method, steps = self.method, self.end
        path = self.folder / f"{method}-{steps:04d}.safetensors"
        if not path.exists():
            self.learn_direct(teacher, student, path)
        if (method, steps) == (self.recipe.method, self.recipe.shipped):
            self.ship(path, steps)

    def learn_direct(self, teacher: Denoiser, student: ModelDenoiser, path: Path) -> None:
        """The updates of another method, or those of them that are missing."""
        method, steps = self.method, self.end
        torch.manual_seed(self.args.seed)  # of an adversary's head
        roles, turns = direct_of(self.plan, method, teacher, student, steps, self.recipe.start)
        lesson = Lesson(updates=self.recipe.direct, rate=self.recipe.rung_rate, average=0.9)
        state = path.with_suffix(".state.safetensors")
        teller = self.teller(path.stem, [lesson])
        learn(
            roles,
            lambda update: self.told(turns(update)),
            lesson,
            self.batches,
            path=state,
            key=f"{method}/{steps}/{self.args.seed}",
            first=self.recipe.guidance,
            optimizer=muon,
            save_every=self.args.save_every,
            on_update=teller,
        )
        teller.finish()
        save_tensors(path, student.state_dict(), {"steps": str(steps)})
        state.unlink(missing_ok=True)

    def told(self, distiller: Distiller) -> Distiller:
        """The method as this stage takes it: told scales where it is guided, in bfloat16 unless asked otherwise."""
        given: Distiller = ToldScales(distiller) if is_guided(self.plan) else distiller
        return Autocast(given, self.device, enabled=not self.args.float32)

    def teller(self, what: str, lessons: Sequence[Lesson]) -> Teller:
        """Its log."""
        args = self.args
        return Teller(self.folder, self.plan.name, what, lessons, every=args.every, quiet=args.quiet)

    def judge(self, denoiser: Denoiser, steps: int) -> list[float]:
        """How far samples are from held-out clips, at each seed."""
        sampling = SAMPLING[self.plan.name]
        half = Half(denoiser, self.device, enabled=not self.args.float32)
        denoiser, times = told(self.plan, half, sampling, steps), times_of(self.plan, steps)
        stage = stage_around(self.plan, denoiser, DDIM(), times, sampling.dtype)
        seeds, clips = self.args.judge_seeds, self.args.judge_clips
        return judged(self.plan, stage, self.captions, seeds=seeds, clips=clips)

    def ship(self, weights: Path, steps: int) -> None:
        """Writes the student that the demo takes, and its logs."""
        out = Path(self.args.students)
        self.write(weights, steps, out / f"{self.plan.name}.safetensors")
        logs = {"rungs" if self.method == "progressive" else weights.stem: "steps", "guidance": "guidance"}
        for log, name in logs.items():
            if (self.folder / f"{log}.csv").exists():
                shutil.copyfile(self.folder / f"{log}.csv", out / f"{self.plan.name}-{name}.csv")

    def write(self, weights: Path, steps: int, path: Path) -> None:
        """Writes a student's weights in half precision."""
        notes = {
            "stage": self.plan.name,
            "teacher": short_hash(self.weights),
            "method": self.method,
            "rung": str(steps),
            "recipe": repr(self.recipe),
            "seed": str(self.args.seed),
        }
        write_student(self.plan, weights, path, notes)
        print(f"{self.plan.name}: wrote {path}, {weights.stem} ({file_hash(path)[:12]})", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("stage", nargs="?", default="all", help="1-base ... 7-ssr, or all")
    parser.add_argument("--start", type=int, help="steps of the first teacher; 256 and 128 in the paper")
    parser.add_argument("--end", type=int, help="steps of the last rung, 1; or of another method, as shipped")
    parser.add_argument("--guidance", type=int, help="updates that teach the guidance scale")
    parser.add_argument(
        "--updates", type=int, help="updates of a rung, twice as many at 2 steps and 1; or of another method"
    )
    parser.add_argument("--effort", type=float, default=1.0, help="factor on all updates")
    parser.add_argument("--batch", type=int, help="clips of an update")
    parser.add_argument(
        "--width", type=float, default=2.0, help="deviations that a rung may be worse than the teacher"
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        help="the recipe's, if not given; all but guidance and progressive go straight to --end",
    )
    parser.add_argument("--judge-seeds", type=int, default=4)
    parser.add_argument("--judge-clips", type=int, default=1, help="held-out clips a seed")
    parser.add_argument("--data", type=Path, help="a folder of captioned clips instead of the scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", default=str(WEIGHTS), help="folder of the teachers' weights")
    parser.add_argument("--students", help="folder of the finished weights; weights/students by default")
    parser.add_argument("--out", default=str(HERE / "runs" / "students"), help="folder of rungs and logs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=0, help="processes that make data")
    parser.add_argument("--float32", action="store_true", help="no bfloat16 autocast")
    parser.add_argument("--every", type=float, default=20, help="seconds between lines of progress")
    parser.add_argument("--save-every", type=int, default=20, help="updates between checkpoints")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--smoke", action="store_true", help="a few updates, to see that all works")
    args = parser.parse_args()
    if args.students is None:
        args.students = str(Path(args.out) / "smoke-weights" if args.smoke else WEIGHTS / "students")
    if args.smoke:
        args.judge_seeds = 2
        args.width = float("inf")
    return args


if __name__ == "__main__":
    main()
