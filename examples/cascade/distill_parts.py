"""What distill.py wraps around a distiller: scales to be told, half precision, and a log."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from distilled_stages import RECIPES, SCALES, Recipe, is_guided, network_of, told_scales
from muon import Muon
from safetensors.torch import load_file
from sampling import model_of
from stages import Plan
from torch import Tensor, nn
from train import Log

from vdm_blocks.denoisers import DenoiserWrapper, ModelDenoiser
from vdm_blocks.diffusion.noise import NoiseSource
from vdm_blocks.distillation import Distiller, Lesson, ScaleAdapter, save_student, with_guidance_scale
from vdm_blocks.distillation.learn import Parameters
from vdm_blocks.models import VideoUNet, build_network
from vdm_blocks.types import Conditioning, Denoised, Denoiser


class ToldScales:
    """A distiller whose roles are told a guidance scale, drawn for each sample."""

    def __init__(self, distiller: Distiller) -> None:
        self.distiller = distiller

    def __call__(self, x0: Tensor, cond: Conditioning, *, generator: NoiseSource = None) -> Tensor:
        """The loss of each sample, (B,)."""
        scale = SCALES.draw(generator, x0)
        return self.distiller(x0, with_guidance_scale(cond, scale), generator=generator)


class Autocast:
    """A distiller run under bfloat16 autocast."""

    def __init__(self, distiller: Distiller, device: torch.device, *, enabled: bool) -> None:
        self.distiller, self.device, self.enabled = distiller, device, enabled

    def __call__(self, x0: Tensor, cond: Conditioning, *, generator: NoiseSource = None) -> Tensor:
        """The loss of each sample, (B,)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.enabled):
            return self.distiller(x0, cond, generator=generator)


class Half(DenoiserWrapper):
    """A denoiser under bfloat16 autocast."""

    def __init__(self, denoiser: Denoiser, device: torch.device, *, enabled: bool) -> None:
        super().__init__(denoiser)
        self.device, self.enabled = device, enabled

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """The denoiser's split."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.enabled):
            return self.denoiser(z_t, t, cond)


class Teller:
    """Lines of progress, the log and its curve; it begins at whatever update a resumed run begins at."""

    def __init__(
        self,
        folder: Path,
        name: str,
        what: str,
        lessons: Sequence[Lesson],
        *,
        every: float = 20,
        quiet: bool = False,
    ) -> None:
        self.folder, self.name, self.what = folder, name, what
        self.rates = [own.rate * (1 - i / own.updates) for own in lessons for i in range(own.updates)]
        self.total = len(self.rates)
        self.every, self.quiet = every, quiet
        self.log: Log | None = None
        self.first = 0
        self.began = self.shown = time.monotonic()

    def __call__(self, done: int, loss: float) -> None:
        """`done` updates are made, the last with `loss`."""
        now = time.monotonic()
        if self.log is None:
            self.first = done - 1
            self.log = Log(self.folder / f"{self.what}.csv", upto=done - 1)
        self.log.write(done - 1, loss, self.rates[done - 1], now - self.began)
        if now - self.shown > self.every or done == self.total:
            self.shown = now
            pace = (now - self.began) / (done - self.first)
            self.log.flush()
            if not self.quiet:
                print(
                    f"{self.name} {self.what} {done}/{self.total}  loss {self.log.recent(30):.4g}  {pace:.2f} s/update"
                    f"  {pace * (self.total - done) / 60:.1f} min left",
                    flush=True,
                )

    def finish(self) -> None:
        """Writes the log and its curve, if there was anything to do."""
        if self.log is not None:
            self.log.flush()
            self.log.picture(self.folder / f"{self.what}.png", f"{self.name} {self.what}")


def model(role: object) -> ModelDenoiser:
    """A role that is known to be one."""
    assert isinstance(role, ModelDenoiser)
    return role


def muon(parameters: Parameters) -> torch.optim.Optimizer:
    """The optimizer of the stages' own training; its rate is set at every update."""
    return Muon(cast("Iterable[nn.Parameter]", parameters), lr=1.0)


def blank(plan: Plan, method: str) -> VideoUNet | ScaleAdapter:
    """The network of a method's student, its weights yet to be loaded."""
    unet = build_network(plan.unet)
    assert isinstance(unet, VideoUNet)  # students are, and `load_unet` refused another teacher
    if not is_guided(plan):
        return unet
    return told_scales(plan, unet, method)


def write_student(plan: Plan, weights: Path, path: Path, notes: Mapping[str, str]) -> None:
    """Weights of a run as a student's file, in half precision."""
    student = model_of(plan, blank(plan, notes["method"]))
    student.load_state_dict(load_file(weights))
    network = network_of(student)
    assert isinstance(network, VideoUNet | ScaleAdapter)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_student(path, network, notes=notes)


def recipe_for(plan: Plan, args: argparse.Namespace) -> Recipe:
    """The stage's recipe with what the command line says, or next to nothing of it for --smoke."""
    recipe = RECIPES[plan.name]
    if args.smoke:
        return replace(
            recipe, start=4, guidance=min(recipe.guidance, 2), fitted=1, halving=1, first=0, direct=1, batch=1
        )
    start = args.start if args.start is not None else recipe.start
    end = args.end or 1
    if start < 2 or start & (start - 1) or start <= end:
        raise ValueError(f"--start is {start}; give a power of two above {end}, such as 32 or 256")
    guidance = recipe.guidance if args.guidance is None else args.guidance
    return replace(
        recipe,
        start=start,
        guidance=max(1, round(guidance * args.effort)) if recipe.guidance else 0,
        halving=max(1, round((args.updates or recipe.halving) * args.effort)),
        first=round((0 if args.updates else recipe.first) * args.effort),
        direct=max(1, round((args.updates or recipe.direct) * args.effort)),
        batch=args.batch or recipe.batch,
    )
