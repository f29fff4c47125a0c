"""The distilled stages: how each is distilled, as data, and the stages of the cascade built from what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sampling import (
    OSCILLATING,
    SAMPLING,
    WEIGHTS,
    Sampling,
    find_weights,
    sampled_model,
    scale_of,
    stage_around,
    stage_for,
)
from stages import Plan
from torch import Tensor, nn

from vdm_blocks.cascade import Stage
from vdm_blocks.checkpoint import file_hash, load_network, read_info
from vdm_blocks.denoisers import DynamicThreshold, ModelDenoiser, StaticThreshold
from vdm_blocks.denoisers.residual import ResidualNetwork
from vdm_blocks.distillation import (
    DistilledGuidance,
    FreshNoise,
    Jumps,
    ScaleAdapter,
    ScaleRange,
    load_student,
)
from vdm_blocks.models import VideoUNet
from vdm_blocks.sampling import DDIM, Ancestral, StepRule, uniform_times
from vdm_blocks.types import Denoiser

STUDENTS = WEIGHTS / "students"
FEW = "few"
"""The folder beside the shipped students, in no checkout, of those that were distilled for fewer steps."""
STEPS = 8
"""Of the rung that is shipped, where a stage's recipe says nothing else."""
SCALES = ScaleRange(low=1.0, high=16.0, power=2.0)
"""The guidance scales that a student learns: off, to beyond the oscillating 15, the low ones more often."""
RULES: dict[str, StepRule[Any]] = {
    "guidance": DDIM(),
    "progressive": DDIM(),
    "multistep": DDIM(),
    "consistency": FreshNoise(),
    "matching": FreshNoise(),
    "adversarial": FreshNoise(),
}
"""By which the students of each method are sampled; what is shipped, by the recipe's rule."""
METHODS = tuple(RULES)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a stage is distilled.

    Attributes:
        full: steps of the undistilled stage in the paper's table, which the rungs are compared with.
        start: steps of the first teacher; the rungs halve them, and other methods follow its grid.
        guidance: updates that teach the student the guidance scale; 0 for a stage whose guidance is off.
        context: whether guidance is that of what the network is told, from which the student starts; else it is a
            direction of its last layer, fitted before.
        bend: of the scale, in `ScaleAdapter`. A student of guidance alone has it only with `context`: by a direction
            guidance is straight, and what thresholded steps come to is not.
        fitted: batches that the direction of guidance is fitted to.
        halving: updates of a rung, twice as many for 2 steps and 1.
        first: of the first rung, which learns more of guidance besides; 0 for as many as another.
        direct: updates of a method that goes straight to few steps.
        batch: clips, or packs of pictures, of an update.
        pictures: the share of updates on packs; None is that of the training's last phase.
        average: decay of the running average that the student of guidance and the rungs end as; 0 is none.
        rate: learning rate of the guidance at its start.
        quick: factor on it for what the student has that its teacher has not.
        rung_rate: of a rung, and of other methods.
        last: the time of the last evaluation, from which a sample goes straight to its end; 0 for a uniform grid.
        method: of the student that is shipped; "guidance" is one whose steps were not distilled.
        rule: by which the shipped student is sampled.
        shipped: its steps, which the demo takes.
    """

    full: int = 128
    start: int = 32
    guidance: int = 0
    context: bool = False
    bend: float = math.inf
    fitted: int = 32
    halving: int = 80
    first: int = 0
    direct: int = 120
    batch: int = 2
    pictures: float | None = None
    average: float = 0.95
    rate: float = 1e-3
    quick: float = 2.0
    rung_rate: float = 2e-4
    last: float = 0.35
    method: str = "progressive"
    rule: StepRule[Any] = DDIM()  # noqa: RUF009 - frozen
    shipped: int = STEPS


BY_EMBEDDING = Recipe(guidance=400, context=True, bend=1.5, direct=200, rate=1e-4, rung_rate=3e-5)
"""Of a guided stage whose caption acts by the embedding."""
RECIPES: dict[str, Recipe] = {
    "1-base": Recipe(
        full=256,
        start=16,
        guidance=500,
        halving=240,
        first=1000,
        direct=200,
        batch=3,
        pictures=0.7,
        rate=3e-4,
        bend=1.0,
        last=0.0,
        rule=Ancestral(gamma=0.0),
    ),
    "2-tsr": BY_EMBEDDING,
    "3-ssr": BY_EMBEDDING,
    "4-ssr": Recipe(halving=60, last=0.5, shipped=4),
    "5-tsr": Recipe(shipped=4),
    "6-tsr": Recipe(shipped=4),
    "7-ssr": Recipe(batch=3, last=0.5, shipped=4),
}
"""For two hours on a core, all stages together, half of it the base's; a zoo that is used would take a hundred times as
many updates (the paper's take 50,000 a rung). The upper stages, short of training, add grain where there is little
noise: their last evaluation is at 0.35 or 0.5, and 32 steps on that grid look as clean as the two of `SAMPLING`. Where
there is no guidance to halve the evaluations, four steps are shipped, which differ from eight less than the seeds do.
Where the embedding hears nearly all that a caption does, which `heard.py` says of each stage, it is guided itself. The
base learns most from packs of pictures, each of which shows 16 captions at 16 noise levels for the time of one clip;
its rung of eight is sampled by its teacher's rule, in which outlines change less from frame to frame than in DDIM,
which is what the halvings learn."""


def times_of(plan: Plan, steps: int) -> Tensor:
    """The stage's grid: uniform from 1 to the recipe's `last`, which is left out, and then straight to 0."""
    last = RECIPES[plan.name].last
    times = last + (1 - last) * uniform_times(steps)
    times[-1] = 0.0
    return times


def jumps_of(plan: Plan, steps: int) -> Jumps:
    """What a rung learns: the steps of `times_of`, each by way of a time of the grid of twice as many."""
    fine = times_of(plan, 2 * steps).tolist()
    return Jumps(t=tuple(fine[:-1:2]), mid=tuple(fine[1::2]), s=tuple(fine[2::2]))


def is_guided(plan: Plan) -> bool:
    """Whether the stage's student is told a guidance scale."""
    return plan.name in OSCILLATING


def network_of(model: ModelDenoiser) -> nn.Module:
    """The network in a `model_of`."""
    inner: nn.Module = model.network.network if isinstance(model.network, ResidualNetwork) else model.network
    return inner


def told_scales(plan: Plan, network: nn.Module, method: str) -> ScaleAdapter:
    """The network, told the guidance scale, for a student of `method`."""
    width, recipe = plan.unet.embedding, RECIPES[plan.name]
    bend = math.inf if method == "guidance" and not recipe.context else recipe.bend
    return ScaleAdapter(
        network,
        at="context.logsnr",
        width=width,
        scales=SCALES,
        hidden=48,
        head=None if recipe.context else "head",
        context="context" if recipe.context else None,
        bend=bend,
    )


def threshold(plan: Plan, denoiser: Denoiser) -> Denoiser:
    """As the stage is sampled: dynamic where it is guided, else static."""
    return DynamicThreshold(denoiser) if is_guided(plan) else StaticThreshold(denoiser)


def told(plan: Plan, denoiser: Denoiser, sampling: Sampling, steps: int) -> Denoiser:
    """A student as it is sampled in `steps`: told the stage's guidance, and thresholded."""
    if not is_guided(plan):
        return threshold(plan, denoiser)
    scale = scale_of(sampling.guidance, times_of(plan, steps))
    return threshold(plan, DistilledGuidance(denoiser, scale))


def student_stage(
    plan: Plan,
    network: VideoUNet | ScaleAdapter,
    steps: int = STEPS,
    sampling: Sampling | None = None,
    rule: StepRule[Any] | None = None,
) -> Stage:
    """A stage of the cascade around its student, in `steps` steps and one evaluation a step.

    The rule is the recipe's where none is given.
    """
    sampling = SAMPLING[plan.name] if sampling is None else sampling
    unet = network.network if isinstance(network, ScaleAdapter) else network
    assert isinstance(unet, VideoUNet)
    denoiser = told(plan, sampled_model(plan, network, unet, sampling), sampling, steps)
    rule = RECIPES[plan.name].rule if rule is None else rule
    return stage_around(plan, denoiser, rule, times_of(plan, steps), sampling.dtype)


def find_student(plan: Plan, folder: Path = STUDENTS) -> Path:
    """The file of a stage's student.

    Raises:
        ValueError: none there, or of another network than the plan's.
    """
    path = folder / f"{plan.name}.safetensors"
    if not path.is_file():
        raise ValueError(f"{path} is missing; distil it: python examples/cascade/distill.py {plan.name}")
    info = read_info(path)
    if info.spec != plan.unet or (info.adapter is not None) != is_guided(plan):
        raise ValueError(f"{path} holds another network than stages.py plans for {plan.name}; distil it anew")
    return path


def few_student(plan: Plan, steps: int, folder: Path = STUDENTS) -> Path:
    """Where the student lies that was distilled for so many steps, fewer than are shipped."""
    return folder / FEW / f"{plan.name}-{steps}.safetensors"


def rule_of(plan: Plan, student: Path) -> StepRule[Any]:
    """By which a student is sampled: the recipe's rule if it is the shipped one, else that of its own method.

    Raises:
        ValueError: a student of few steps that does not say its method.
    """
    if student.parent.name != FEW:
        return RECIPES[plan.name].rule
    method = read_info(student).notes.get("method")
    if method not in RULES:
        raise ValueError(
            f"{student} says method {method!r}, and there are {', '.join(RULES)}; distil it anew"
        )
    return RULES[method]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A stage's weights, how many steps to take with them, and whether they are a student's.

    Attributes:
        why: why the teacher stands in for a student that was asked for; None if it does not.
    """

    weights: Path
    steps: int
    student: bool
    why: str | None = None


def choose_weights(plan: Plan, steps: str, weights: Path = WEIGHTS) -> Chosen:
    """What the demo's `--steps` means for a stage.

    'default' is the student in as many steps as it was distilled to, and 'full' the teacher in its own number; a number
    up to 8 is the student's, a larger one the teacher's. A student that was distilled for a number below that of
    the shipped one is taken before it (`few_student`). Where the student is missing, or is that of other weights
    than the teacher's in `weights`, the teacher stands in for it.

    Raises:
        ValueError: steps that are none of these, or weights that are missing or do not fit.
    """
    if steps not in ("default", "full") and not (steps.isdecimal() and int(steps) > 0):
        raise ValueError(f"--steps is {steps!r}; give 'full', 'default', or a number of steps")
    teacher = find_weights(plan, weights)
    count = int(steps) if steps.isdecimal() else SAMPLING[plan.name].steps
    why = None
    if steps == "default" or (steps.isdecimal() and count <= STEPS):
        student = weights / "students" / f"{plan.name}.safetensors"
        if not student.is_file():
            why = "it has no student yet"
        elif read_info(find_student(plan, student.parent)).notes.get("teacher") != short_hash(teacher):
            why = "its student is that of other weights"
        else:
            count = RECIPES[plan.name].shipped if steps == "default" else count
            own = few_student(plan, count, student.parent)
            if (
                count < RECIPES[plan.name].shipped
                and own.is_file()
                and read_info(own).notes.get("teacher") == short_hash(teacher)
            ):
                student = own
            return Chosen(weights=student, steps=count, student=True)
    return Chosen(weights=teacher, steps=count, student=False, why=why)


def short_hash(weights: Path) -> str:
    """By which a student knows its teacher."""
    return file_hash(weights)[:16]


def load_chosen(plan: Plan, chosen: Chosen, sampling: Sampling | None = None) -> Stage:
    """The stage of the chosen weights."""
    sampling = SAMPLING[plan.name] if sampling is None else sampling
    if chosen.student:
        rule = rule_of(plan, chosen.weights)
        return student_stage(plan, load_student(chosen.weights), chosen.steps, sampling, rule)
    return stage_for(plan, load_network(chosen.weights), replace(sampling, steps=chosen.steps))
