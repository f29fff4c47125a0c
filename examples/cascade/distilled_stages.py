"""The distilled stages: how each is distilled, as data, and the stages of the cascade built from what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sampling import (
    OSCILLATING,
    SAMPLING,
    WEIGHTS,
    Bfloat16,
    Constant,
    Sampling,
    find_weights,
    raise_space,
    raise_time,
)
from stages import PLANS, Plan
from torch import nn

from vdm_blocks.cascade import Stage
from vdm_blocks.checkpoint import read_info
from vdm_blocks.conditioning.augmentation import ConditioningAugmentation
from vdm_blocks.denoisers import DynamicThreshold, ModelDenoiser, Oscillating, StaticThreshold
from vdm_blocks.denoisers.residual import ResidualNetwork
from vdm_blocks.distillation import DistilledGuidance, ScaleAdapter, ScaleRange, load_student
from vdm_blocks.models import VideoUNet
from vdm_blocks.models.tiled import TiledNetwork
from vdm_blocks.sampling import DDIM, uniform_times
from vdm_blocks.types import Denoiser

STUDENTS = WEIGHTS / "students"
STEPS = 8
"""Of the students that the demo takes."""
SCALES = ScaleRange(low=1.0, high=16.0)
"""The guidance scales that a student learns: off, to beyond the oscillating 15."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a stage is distilled.

    Attributes:
        full: steps of the undistilled stage in the paper's table, which the rungs are compared with.
        start: steps of the first teacher; the rungs halve them.
        guidance: updates that teach the student the guidance scale; 0 for a stage whose guidance is off.
        halving: updates of a rung, twice as many for 2 steps and 1.
        batch: clips, or packs of pictures, of an update.
        rate: learning rate of the guidance at its start.
        rung_rate: of a rung.
    """

    full: int = 128
    start: int = 32
    guidance: int = 0
    halving: int = 40
    batch: int = 2
    rate: float = 1e-3
    rung_rate: float = 5e-4


RECIPES: dict[str, Recipe] = {
    "1-base": Recipe(full=256, guidance=90, halving=20, batch=3),
    "2-tsr": Recipe(guidance=120, halving=40),
    "3-ssr": Recipe(guidance=120, halving=40),
    "4-ssr": Recipe(halving=20),
    "5-tsr": Recipe(halving=40),
    "6-tsr": Recipe(halving=60),
    "7-ssr": Recipe(halving=60, batch=3),
}
"""For about twenty minutes on two cores, all stages together; a zoo that is used would take a hundred times as many
updates (the paper's take 50,000 a rung)."""


def is_guided(plan: Plan) -> bool:
    """Whether the stage's student is told a guidance scale."""
    return plan.name in OSCILLATING


def model_of(plan: Plan, network: nn.Module) -> ModelDenoiser:
    """A network of the stage as the denoiser that it was trained as, before guidance and thresholding."""
    upper = plan.unet.cond_channels > 0
    return ModelDenoiser(ResidualNetwork(network, detail_std=plan.detail) if upper else network)


def network_of(model: ModelDenoiser) -> nn.Module:
    """The network in a `model_of`."""
    inner: nn.Module = model.network.network if isinstance(model.network, ResidualNetwork) else model.network
    return inner


def told_scales(plan: Plan, unet: VideoUNet) -> ScaleAdapter:
    """The network, told the guidance scale."""
    return ScaleAdapter(unet, at="context.logsnr", width=plan.unet.embedding, scales=SCALES, hidden=48)


def threshold(plan: Plan, denoiser: Denoiser) -> Denoiser:
    """As the stage is sampled: dynamic where it is guided, else static."""
    return DynamicThreshold(denoiser) if is_guided(plan) else StaticThreshold(denoiser)


def told(plan: Plan, denoiser: Denoiser, sampling: Sampling, steps: int) -> Denoiser:
    """A student as it is sampled in `steps`: told the stage's guidance, and thresholded."""
    if not is_guided(plan):
        return threshold(plan, denoiser)
    guidance = sampling.guidance
    scale = (
        guidance.scale
        if isinstance(guidance, Constant)
        else Oscillating(
            high=guidance.high, low=guidance.low, constant=guidance.constant, times=uniform_times(steps)
        )
    )
    return threshold(plan, DistilledGuidance(denoiser, scale))


def student_stage(
    plan: Plan,
    network: VideoUNet | ScaleAdapter,
    steps: int = STEPS,
    sampling: Sampling | None = None,
) -> Stage:
    """A stage of the cascade around its student, in `steps` steps of DDIM and one evaluation a step."""
    sampling = SAMPLING[plan.name] if sampling is None else sampling
    unet = network.network if isinstance(network, ScaleAdapter) else network
    assert isinstance(unet, VideoUNet)
    model = model_of(plan, Bfloat16(network))
    if sampling.tile is not None:
        margin = unet.receptive_field()
        if margin is None:
            raise ValueError("a network with attention sees the whole video, so it cannot be run in tiles")
        model = ModelDenoiser(
            TiledNetwork(model.network, tile=sampling.tile, margin=margin, divisor=unet.spec.divisor)
        )
    return stage_around(plan, told(plan, model, sampling, steps), steps, sampling)


def stage_around(plan: Plan, denoiser: Denoiser, steps: int, sampling: Sampling) -> Stage:
    """The stage with another denoiser, in `steps` steps of DDIM."""
    return Stage(
        name=plan.name,
        grid=plan.grid,
        denoiser=denoiser,
        step=DDIM(),
        times=uniform_times(steps),
        augmentation=ConditioningAugmentation() if plan.unet.cond_channels else None,
        snr=plan.snr,
        raise_=raise_time if plan.unet.cond_channels == 4 else raise_space,
        noise=plan.noise,
        dtype=sampling.dtype,
    )


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


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A stage's weights, how many steps to take with them, and whether they are a student's."""

    weights: Path
    steps: int
    student: bool


def choose_weights(plan: Plan, steps: str, weights: Path = WEIGHTS) -> Chosen:
    """What the demo's `--steps` means for a stage.

    'default' is the students' eight steps where the stage has a student, and else the teacher's own number; 'full' is
    the teacher's own number; a number of 8 or fewer is the student's, a larger one the teacher's.

    Raises:
        ValueError: steps that are none of these, or weights that are missing or do not fit.
    """
    if steps not in ("default", "full") and not (steps.isdecimal() and int(steps) > 0):
        raise ValueError(f"--steps is {steps!r}; give 'full', 'default', or a number of steps")
    students = weights / "students"
    wanted = steps == "default" or (steps.isdecimal() and int(steps) <= STEPS)
    if wanted and (students / f"{plan.name}.safetensors").is_file():
        count = STEPS if steps == "default" else int(steps)
        return Chosen(weights=find_student(plan, students), steps=count, student=True)
    count = int(steps) if steps.isdecimal() else SAMPLING[plan.name].steps
    return Chosen(weights=find_weights(plan, weights), steps=count, student=False)


def load_student_stages(count: int = len(PLANS), folder: Path = STUDENTS, steps: int = STEPS) -> list[Stage]:
    """The first `count` stages, distilled; all files are checked before any is read."""
    files = [find_student(plan, folder) for plan in PLANS[:count]]
    return [student_stage(plan, load_student(file), steps) for plan, file in zip(PLANS, files, strict=False)]
