"""How much of guidance the shipped students hear: `python examples/cascade/heard.py` says it of each guided stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from distilled_stages import STUDENTS, find_student, jumps_of, threshold
from material import Captions
from sampling import OSCILLATING, WEIGHTS, find_weights, model_of
from stages import PLANS, Plan
from student_batches import StudentBatches

from vdm_blocks.checkpoint import load_unet, read_info
from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.diffusion import diffuse
from vdm_blocks.distillation import ToldGuidance, load_student, with_guidance_scale
from vdm_blocks.distillation.targets import two_step_target
from vdm_blocks.types import Denoiser

TIMES = (0.95, 0.85, 0.7, 0.5)
LOW, HIGH = 1.0, 5.0


def main() -> None:
    captions = Captions(MiniLMEncoder.load())
    for plan in PLANS:
        if plan.name in OSCILLATING:
            parts = heard(plan, captions)
            by_time = ", ".join(
                f"{heard_of([part]):.2f} at {t:g}" for t, part in parts.items() if part[1] > 0
            )
            print(f"{plan.name}: {heard_of(list(parts.values())):.2f} of its teacher's change ({by_time})")


def heard(
    plan: Plan, captions: Captions, weights: Path = WEIGHTS, students: Path = STUDENTS
) -> Mapping[float, tuple[float, float]]:
    """By time, <wanted, got> and <wanted, wanted>, summed over a batch of the stage's own training data.

    `wanted` is how what the student was to learn changes when the scale is HIGH instead of LOW, `got` how its answer
    does: the guided teacher's estimate of x0, or, of a rung, the x0 that leads as far as the teacher's two steps, both
    thresholded. Where the caption was dropped, as in training, there is no change.
    """
    index = PLANS.index(plan)
    batches = StudentBatches(plan, PLANS[index - 1] if index else None, captions, batch=1, seed=77)
    file = find_student(plan, students)
    teacher: Denoiser = ToldGuidance(model_of(plan, load_unet(find_weights(plan, weights))))
    student: Denoiser = model_of(plan, load_student(file))
    notes = read_info(file).notes
    halved = notes.get("method") == "progressive"
    if halved:
        teacher, student = threshold(plan, teacher), threshold(plan, student)
        jumps = list(jumps_of(plan, int(notes["rung"])))
        near = [min(jumps, key=lambda jump: abs(jump[0] - t)) for t in TIMES]
    else:
        near = [(t, t, t) for t in TIMES]
    found = {}
    for number, (t, *to) in enumerate(near):
        x0, cond = batches(number)
        eps = plan.noise.draw(
            torch.Generator().manual_seed(number), x0.shape, step=0, device=x0.device, dtype=x0.dtype
        )
        time = torch.full((len(x0),), t, dtype=torch.float64)
        z_t = diffuse(x0, eps, time, plan.schedule)
        with torch.inference_mode():
            low, high = (with_guidance_scale(cond, torch.full((len(x0),), scale)) for scale in (LOW, HIGH))
            if halved:
                mid, end = (torch.full_like(time, one) for one in to)
                aims = [two_step_target(teacher, z_t, time, mid, end, told) for told in (high, low)]
            else:
                aims = [teacher(z_t, time, told).x0 for told in (high, low)]
            wanted = aims[0] - aims[1]
            got = student(z_t, time, high).x0 - student(z_t, time, low).x0
        found[t] = float((wanted * got).sum()), float(wanted.square().sum())
    return found


def heard_of(parts: list[tuple[float, float]]) -> float:
    """The part of the teacher's change that the student's change has, by least squares."""
    return sum(shared for shared, _ in parts) / sum(size for _, size in parts)


if __name__ == "__main__":
    main()
