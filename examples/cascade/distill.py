"""Distil one stage of the cascade: `python examples/cascade/distill.py 1-base`, or `all`.

First its guidance, into a network that is told the scale, where the stage is guided at all (arXiv 2210.03142); then
its steps, halved again and again (arXiv 2202.00512). Everything random is drawn by (seed, update), so a run that was
killed goes on as if nothing had happened. Writes every rung's weights, ladder.json, the log and two pictures to
runs/students/STAGE-WEIGHTS, and the weights of eight steps to weights/students/STAGE.safetensors. `rungs.py` measures
what came of it.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from distill_parts import Autocast, Half, Teller, ToldScales, blank, model, muon
from distilled_stages import (
    RECIPES,
    SCALES,
    Recipe,
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
from torch import Tensor, nn

from vdm_blocks.checkpoint import file_hash, load_unet, save_tensors
from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.denoisers import ModelDenoiser
from vdm_blocks.denoisers.residual import ResidualNetwork
from vdm_blocks.distillation import (
    ConsistencyDistiller,
    Distiller,
    DistillInfo,
    DistributionMatching,
    Emphasis,
    GuidanceDistiller,
    Jumps,
    Ladder,
    Lesson,
    MultistepConsistencyDistiller,
    ProgressiveDistiller,
    Rung,
    ScaleAdapter,
    distill,
    learn,
    save_student,
)
from vdm_blocks.models import VideoUNet
from vdm_blocks.sampling import DDIM
from vdm_blocks.types import Conditioning, Denoiser

HERE = Path(__file__).parent
METHODS = ("progressive", "multistep", "consistency", "matching")


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
            data=args.data,
            workers=args.workers,
            device=self.device,
        )
        self.identify()

    def identify(self) -> None:
        """Refuses a folder in which the same weights are distilled otherwise."""
        own = {"seed": self.args.seed, "recipe": repr(self.recipe), "plan": repr(self.plan)}
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
        student = self.guided()
        if self.args.method != "progressive":
            self.other(student)
            return
        ladder = self.descend(student)
        print(ladder.table())
        if ladder.stopped is not None:
            print(f"{self.plan.name}: stopped, and no weights are shipped: {ladder.stopped}")
            return
        self.ship(ladder)

    def guided(self) -> ModelDenoiser:
        """The student that is told the scale, at any number of steps; an unguided stage's is its teacher's copy."""
        teacher = model_of(self.plan, load_unet(self.weights)).to(self.device).requires_grad_(False)
        student = copy.deepcopy(teacher).requires_grad_()
        if not self.recipe.guidance:
            return student
        unet = network_of(student)
        assert isinstance(unet, VideoUNet)
        torch.manual_seed(self.args.seed)  # of the scale's embedding
        student = model_of(self.plan, told_scales(self.plan, unet).to(self.device))
        path = self.folder / "guidance.safetensors"
        if path.exists():
            student.load_state_dict(load_file(path))
            return student
        emphasis = self.emphasis(student)

        def by_scale(logsnr: Tensor, cond: Conditioning) -> Tensor:
            plain = torch.ones_like(logsnr) if emphasis is None else emphasis(logsnr, cond)
            scale = cond.extra["guidance_scale"].to(plain)
            return plain / (scale[:, None] if plain.ndim > scale.ndim else scale).square()

        distiller = Autocast(
            GuidanceDistiller(teacher, student, SCALES, noise=self.plan.noise, emphasis=by_scale),
            self.device,
            enabled=not self.args.float32,
        )
        lesson = Lesson(updates=self.recipe.guidance, rate=self.recipe.rate)
        state = self.folder / "guidance.state.safetensors"
        teller = self.teller("guidance", [lesson])
        learn(
            student,
            lambda _update: distiller,
            lesson,
            self.batches,
            path=state,
            key=f"guidance/{self.args.seed}",
            optimizer=muon,
            save_every=self.args.save_every,
            on_update=teller,
        )
        teller.finish()
        save_tensors(path, student.state_dict(), {})
        state.unlink(missing_ok=True)
        return student

    def descend(self, student: ModelDenoiser) -> Ladder:
        """Down the rungs; those below the shipped one show where it breaks, and are never stopped at."""
        teacher = threshold(self.plan, copy.deepcopy(student).eval().requires_grad_(False))
        rungs = []
        steps = self.recipe.start // 2
        while steps >= self.args.end:
            more = 2 if steps <= 2 else 1
            rungs.append(Rung(steps=steps, updates=more * self.recipe.halving, rate=self.recipe.rung_rate))
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
        return self.told(
            ProgressiveDistiller(
                teacher, student, jumps, noise=self.plan.noise, emphasis=self.emphasis(student)
            )
        )

    def other(self, student: ModelDenoiser) -> None:
        """Another method, straight from the guided teacher to few steps; its weights go beside the rungs."""
        method, steps = self.args.method, self.args.end
        path = self.folder / f"{method}-{steps:04d}.safetensors"
        if path.exists():
            print(f"{self.plan.name}: {path.name} is there already")
            return
        teacher = threshold(self.plan, copy.deepcopy(student).eval().requires_grad_(False))
        roles = nn.ModuleDict({"student": student})
        grid = self.recipe.start
        noise, emphasis = self.plan.noise, self.emphasis(student)
        turns: Callable[[int], Distiller]
        if method == "matching":
            roles["critic"] = copy.deepcopy(student)
            matching = DistributionMatching(teacher, student, model(roles["critic"]), steps, noise=noise)
            two = self.told(matching), self.told(matching.critic_loss)
            turns = lambda update: two[0 if update % 6 == 5 else 1]  # noqa: E731
        else:
            made: Distiller = (
                ConsistencyDistiller(
                    teacher, student, times_of(self.plan, grid), noise=noise, emphasis=emphasis
                )
                if method == "consistency"
                else MultistepConsistencyDistiller(
                    teacher, student, steps, steps=grid, noise=noise, emphasis=emphasis
                )
            )
            one = self.told(made)
            turns = lambda _update: one  # noqa: E731
        # As many updates as the rungs above take together.
        halvings = (grid // steps).bit_length() - 1
        rate = self.recipe.rung_rate
        lesson = Lesson(updates=max(halvings, 1) * self.recipe.halving, rate=rate, average=0.9)
        state = path.with_suffix(".state.safetensors")
        teller = self.teller(f"{method}-{steps:04d}", [lesson])
        learn(
            roles,
            turns,
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

    def emphasis(self, student: Denoiser) -> Emphasis | None:
        """The residual network's precision, as in training."""
        network = model(student).network
        return network.precision if isinstance(network, ResidualNetwork) else None

    def judge(self, denoiser: Denoiser, steps: int) -> list[float]:
        """How far samples are from held-out clips, at each seed."""
        sampling = SAMPLING[self.plan.name]
        half = Half(denoiser, self.device, enabled=not self.args.float32)
        rule = DDIM() if steps == self.recipe.start else self.recipe.rule
        denoiser, times = told(self.plan, half, sampling, steps), times_of(self.plan, steps)
        stage = stage_around(self.plan, denoiser, rule, times, sampling.dtype)
        seeds, clips = self.args.judge_seeds, self.args.judge_clips
        return judged(self.plan, stage, self.captions, seeds=seeds, clips=clips)

    def ship(self, ladder: Ladder) -> None:
        """Writes the weights for the shipped steps of DDIM, or for the fewest above them, in half precision."""
        least = self.recipe.shipped * (1 if self.recipe.rule == DDIM() else 2)
        done = [r for r in ladder.rungs if r.rung.steps >= least] or list(ladder.rungs[:1])
        best, student = done[-1], model_of(self.plan, blank(self.plan))
        student.load_state_dict(load_file(self.folder / best.weights))
        network = network_of(student)
        assert isinstance(network, VideoUNet | ScaleAdapter)
        notes = {
            "stage": self.plan.name,
            "teacher": short_hash(self.weights),
            "rung": str(best.rung.steps),
            "recipe": repr(self.recipe),
            "seed": str(self.args.seed),
        }
        out = Path(self.args.students)
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{self.plan.name}.safetensors"
        save_student(path, network, notes=notes)
        print(f"{self.plan.name}: wrote {path}, rung {best.rung.steps} ({file_hash(path)[:12]})", flush=True)


def recipe_for(plan: Plan, args: argparse.Namespace) -> Recipe:
    """The stage's recipe with what the command line says, or next to nothing of it for --smoke."""
    recipe = RECIPES[plan.name]
    if args.smoke:
        return replace(recipe, start=4, guidance=min(recipe.guidance, 2), halving=1, batch=1)
    start = args.start if args.start is not None else recipe.start
    if start < 2 or start & (start - 1) or start <= args.end:
        raise ValueError(f"--start is {start}; give a power of two above {args.end}, such as 32 or 256")
    guidance = recipe.guidance if args.guidance is None else args.guidance
    return replace(
        recipe,
        start=start,
        guidance=max(1, round(guidance * args.effort)) if recipe.guidance else 0,
        halving=max(1, round((args.updates or recipe.halving) * args.effort)),
        batch=args.batch or recipe.batch,
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("stage", nargs="?", default="all", help="1-base ... 7-ssr, or all")
    parser.add_argument("--start", type=int, help="steps of the first teacher; 256 and 128 in the paper")
    parser.add_argument("--end", type=int, default=1, help="steps of the last rung")
    parser.add_argument("--guidance", type=int, help="updates that teach the guidance scale")
    parser.add_argument("--updates", type=int, help="updates of a rung; twice as many at 2 steps and 1")
    parser.add_argument("--effort", type=float, default=1.0, help="factor on all updates")
    parser.add_argument("--batch", type=int, help="clips of an update")
    parser.add_argument(
        "--width", type=float, default=2.0, help="deviations that a rung may be worse than the teacher"
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="progressive",
        help="another than progressive goes straight to --end",
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
