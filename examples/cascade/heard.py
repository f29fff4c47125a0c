"""How much of guidance the shipped students hear: `python examples/cascade/heard.py` says it of each guided stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from distilled_stages import STUDENTS, find_student, jumps_of, threshold
from ledger import Row
from material import Captions
from sampling import OSCILLATING, WEIGHTS, find_weights, model_of
from stages import PLANS, Plan
from student_batches import StudentBatches
from torch import Tensor, nn

from vdm_blocks.checkpoint import load_unet, read_info
from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.diffusion import diffuse
from vdm_blocks.distillation import ToldGuidance, load_student, with_guidance_scale
from vdm_blocks.distillation.targets import two_step_target
from vdm_blocks.models.context import Context
from vdm_blocks.types import Conditioning, Denoiser

TIMES = (0.95, 0.85, 0.7, 0.5)
OFF = 1.0
SCALES = (1.5, 3.0, 5.0, 15.0)


@dataclass(frozen=True, kw_only=True)
class Heard:
    """Of what the teacher changes by when it is told another scale: <wanted, wanted>, <wanted, got>, |got - wanted|^2.

    `got` is what the student changes by, and all three are sums over the noise levels of `TIMES`.
    """

    wanted: float
    shared: float
    missed: float

    @property
    def part(self) -> float:
        """Of the teacher's change, how much the student's has: 1 is all."""
        return self.shared / self.wanted

    @property
    def left(self) -> float:
        """What the student's change is wrong by, of the teacher's change, both squared: 0 is nothing."""
        return self.missed / self.wanted

    @staticmethod
    def between(wanted: Tensor, got: Tensor) -> Heard:
        """Of two changes."""
        return Heard(
            wanted=float(wanted.square().sum()),
            shared=float((wanted * got).sum()),
            missed=float((got - wanted).square().sum()),
        )

    def __add__(self, other: Heard) -> Heard:
        return Heard(
            wanted=self.wanted + other.wanted,
            shared=self.shared + other.shared,
            missed=self.missed + other.missed,
        )


def main() -> None:
    captions = Captions(MiniLMEncoder.load())
    for plan in PLANS:
        if plan.name in OSCILLATING:
            said = ", ".join(f"{own.part:.2f} at {scale:g}" for scale, own in heard(plan, captions).items())
            alone = by_embedding(plan, captions)
            print(
                f"{plan.name}: of its teacher's change it has {said}; {alone:.3f} is the embedding's",
                flush=True,
            )


def heard(
    plan: Plan, captions: Captions, weights: Path = WEIGHTS, students: Path = STUDENTS
) -> Mapping[float, Heard]:
    """By scale: what the student was to change by when it is told that one instead of `OFF`, and what it does.

    Summed over a batch of the stage's own training data at each time. What it was to learn is the guided teacher's
    estimate of x0, or, of a rung, the x0 that leads as far as the teacher's two steps, both thresholded. Where the
    caption was dropped, as in training, there is no change.
    """
    file = find_student(plan, students)
    teacher: Denoiser = ToldGuidance(model_of(plan, load_unet(find_weights(plan, weights))))
    student: Denoiser = model_of(plan, load_student(file))
    notes = read_info(file).notes
    near = [(t, t, t) for t in TIMES]
    halved = notes.get("method") == "progressive"
    if halved:
        teacher, student = threshold(plan, teacher), threshold(plan, student)
        jumps = list(jumps_of(plan, int(notes["rung"])))
        near = [min(jumps, key=lambda jump: abs(jump[0] - t)) for t in TIMES]
    found: dict[float, Heard] = {}
    for (z_t, time, cond), (_, *to) in zip(noised(plan, captions, [t for t, *_ in near]), near, strict=True):
        mid, end = (torch.full_like(time, one) for one in to)
        told = [with_guidance_scale(cond, torch.full((len(z_t),), scale)) for scale in (OFF, *SCALES)]
        with torch.inference_mode():
            aims = [
                two_step_target(teacher, z_t, time, mid, end, one) if halved else teacher(z_t, time, one).x0
                for one in told
            ]
            answers = [student(z_t, time, one).x0 for one in told]
        for scale, aim, answer in zip(SCALES, aims[1:], answers[1:], strict=True):
            own = Heard.between(aim - aims[0], answer - answers[0])
            found[scale] = found[scale] + own if scale in found else own
    return found


def noised(
    plan: Plan, captions: Captions, times: Sequence[float]
) -> Iterator[tuple[Tensor, Tensor, Conditioning]]:
    """A batch of the stage's own training data at each time: z_t, the times of its samples, and what they are told."""
    index = PLANS.index(plan)
    batches = StudentBatches(plan, PLANS[index - 1] if index else None, captions, batch=1, seed=77)
    for number, t in enumerate(times):
        x0, cond = batches(number)
        eps = plan.noise.draw(
            torch.Generator().manual_seed(number), x0.shape, step=0, device=x0.device, dtype=x0.dtype
        )
        time = torch.full((len(x0),), t, dtype=torch.float64)
        yield diffuse(x0, eps, time, plan.schedule), time, cond


def by_embedding(plan: Plan, captions: Captions, weights: Path = WEIGHTS) -> float:
    """Of what the caption changes in the teacher's answer, the part that is there when attention sees no caption."""
    network = load_unet(find_weights(plan, weights))
    teacher = model_of(plan, network)

    def unattended(_module: nn.Module, _given: tuple[object, ...], context: Context) -> Context:
        assert context.text_mask is not None
        mask = torch.zeros_like(context.text_mask)
        mask[..., 0] = True  # the null token
        return context._replace(text_mask=mask)

    found = []
    for z_t, time, cond in noised(plan, captions, TIMES):
        with torch.inference_mode():
            bare, whole = teacher(z_t, time, cond.without_text()).x0, teacher(z_t, time, cond).x0
            with network.context.register_forward_hook(unattended):
                alone = teacher(z_t, time, cond).x0
        found.append(Heard.between(whole - bare, alone - bare))
    return sum(found[1:], found[0]).part


def entry(found: Mapping[float, Heard], embedding: float) -> Row:
    """As the page and its file hold it."""
    scales = {f"{scale:g}": {"has": own.part, "wrong by": own.left} for scale, own in found.items()}
    return {"embedding": embedding, **scales}


def section(stages: Mapping[str, Row]) -> str:
    """The part of the page; empty where nothing was measured."""
    if not stages:
        return ""
    scales = [f"{scale:g}" for scale in SCALES]
    lines = [
        "## The scale",
        "",
        "How far the shipped student's answer moves when it is told that scale instead of 1, against how far its",
        "guided teacher's does (a rung's: what its two thresholded steps come to), on training clips with the same",
        "noise. *Has* is the part along the teacher's change, 1 for all of it, and *wrong by* the square of the",
        "difference, 0 for none and 1 for a student that hears nothing. *Embedding* is how much of what a caption",
        "changes in the teacher's answer is there without attention to it.",
        "",
        "| stage | embedding | " + " | ".join(f"has, at {scale} | wrong by" for scale in scales) + " |",
        "|---|" + "--:|" * (2 * len(scales) + 1),
    ]
    for name, row in stages.items():
        cells = (f"{row[scale]['has']:.2f} | {row[scale]['wrong by']:.2f}" for scale in scales)
        lines.append(f"| {name} | {row['embedding']:.3f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
