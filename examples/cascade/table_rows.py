"""The rows of the table and of the ablations, as data: how each stage is made in each of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from distilled_stages import RECIPES
from sampling import SAMPLING, Constant, Swinging
from stages import PLANS

from vdm_blocks.denoisers.scales import guidance_scale_from_paper
from vdm_blocks.sampling import DDIM, Ancestral

FEW = 32
"""Steps; a row with more in a stage is long. The ablations' base has as many."""


class Clip(Enum):
    """How a guided estimate of the clean video is kept within its range."""

    DYNAMIC = "dynamic, at the 0.995 quantile"
    LOOSE = "dynamic, at the 0.9 quantile"
    STATIC = "static"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Part:
    """How one stage is made; None is as the demo does it.

    Attributes:
        steps: of a uniform grid.
        guidance: constant or swinging.
        student: whether the distilled network makes it, or the one that was trained.
        rule: the step rule.
        snr: at which the stage takes the one before.
        clip: only of a guided stage that is no student.
    """

    steps: int
    guidance: Constant | Swinging
    student: bool = False
    rule: DDIM | Ancestral | None = None
    snr: float | None = None
    clip: Clip = Clip.DYNAMIC


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to make videos: the first stages of the cascade, as far as `parts` goes.

    Attributes:
        name: to rerun it by.
        group: the heading under which it stands.
        title: in words.
        parts: of each stage.
    """

    name: str
    group: str
    title: str
    parts: tuple[Part, ...]

    @property
    def steps(self) -> str:
        """As the paper writes it: base/super-resolution."""
        return "/".join(str(part.steps) for part in self.parts[:2])

    @property
    def is_long(self) -> bool:
        """Whether a stage has more steps than a few."""
        return max(part.steps for part in self.parts) > FEW


TABLE, FEWER, TEACHER, DEMO = (
    "The paper's rows",
    "Students in fewer steps: the shipped ones, where it is not said that they were distilled for so few",
    "The same networks undistilled, in eight steps",
    "As the demo has it",
)


def table() -> list[Row]:
    """The paper's six rows in both readings of its weight; in fewer steps; undistilled in eight; the demo's own."""
    rows = []
    for reading in ("w", "1+w"):
        for kind in ("constant", "oscillate"):
            guidance = _read(kind, reading)
            for base, upper in ((256, 128), (256, 8), (8, 8)):
                parts = tuple(
                    Part(steps=steps, guidance=guidance, student=steps == 8) for steps in (base, upper, upper)
                )
                rows.append(_row(kind, reading, TABLE, parts))
    for kind in ("constant", "oscillate"):
        guidance = _read(kind, "w")
        few = [Part(steps=steps, guidance=guidance, student=True) for steps in (4, 2, 1)]
        rows += [_row(kind, "w", FEWER, (part,) * 3) for part in few]
        rows.append(_row(kind, "w", TEACHER, (Part(steps=8, guidance=guidance),) * 3))
    students, teachers = (_demo(student=student) for student in (True, False))
    rows.append(Row(name="demo", group=DEMO, title="its students", parts=students))
    rows.append(Row(name="demo-full", group=DEMO, title="its teachers, `--steps full`", parts=teachers))
    rows.append(Row(name="demo-full-base", group=DEMO, title="the same, the base alone", parts=teachers[:1]))
    return rows


def ablations() -> list[Row]:
    """What a user decides by; each group changes one thing of the demo's teachers, the base in `FEW` steps.

    The base alone, where the rest has no part.
    """
    own, *uppers = _demo(student=False)
    base = replace(own, steps=FEW)
    rows = []
    rules: tuple[DDIM | Ancestral, ...] = (DDIM(), *(Ancestral(gamma=gamma) for gamma in (0.0, 0.3, 1.0)))
    for rule in rules:
        name = f"gamma-{rule.gamma:g}" if isinstance(rule, Ancestral) else "ddim"
        rows.append(_ablation("Step rule of the base", name, f"`{rule}`", replace(base, rule=rule)))
    for clip in Clip:
        strong = replace(base, guidance=Constant(scale=6.0), clip=clip)
        rows.append(_ablation("Thresholding, at scale 6", f"clip-{clip.name.lower()}", clip.value, strong))
    for high, share in ((15.0, 0.0), (15.0, 0.1), (15.0, 0.5), (6.0, 0.1)):
        swing = replace(base, guidance=Swinging(high=high, low=1.0, constant=share))
        title = f"{high:g} and 1, constant for {share:.0%} of the steps"
        rows.append(_ablation("Oscillating guidance", f"swing-{high:g}-{share:g}", title, swing))
    for scale in (1.0, 2.0, 3.0, 6.0):
        part = replace(base, guidance=Constant(scale=scale))
        rows.append(_ablation("Constant guidance", f"scale-{scale:g}", f"scale {scale:g}", part))
    for snr in (3.0, 5.0, None, 1e6):
        upper = tuple(replace(part, snr=snr) for part in uppers)
        name, title = ("own", "as shipped") if snr is None else (f"{snr:g}", f"SNR {snr:g}")
        rows.append(_ablation("Conditioning augmentation", f"snr-{name}", title, base, *upper))
    return rows


def all_rows() -> list[Row]:
    """Of the table and of the ablations."""
    return [*table(), *ablations()]


def _demo(*, student: bool) -> tuple[Part, ...]:
    """The demo's first three stages: its students in as many steps as are shipped, or its teachers."""
    own = [(SAMPLING[plan.name], RECIPES[plan.name].shipped) for plan in PLANS[:3]]
    return tuple(
        Part(steps=shipped if student else sampling.steps, guidance=sampling.guidance, student=student)
        for sampling, shipped in own
    )


def _ablation(group: str, name: str, title: str, *parts: Part) -> Row:
    return Row(name=name, group=group, title=title, parts=parts)


def _row(kind: str, reading: str, group: str, parts: tuple[Part, ...]) -> Row:
    steps = "-".join(str(part.steps) for part in parts[:2])
    teacher = "-teacher" if group == TEACHER else ""
    name = f"{kind}-{steps}{teacher}" + ("" if reading == "w" else "-plus")
    guidance = parts[0].guidance
    said = (
        f"constant {guidance.scale:g}"
        if isinstance(guidance, Constant)
        else f"oscillate ({guidance.high:g}, {guidance.low:g})"
    )
    return Row(name=name, group=group, title=said, parts=parts)


def _read(kind: str, reading: str) -> Constant | Swinging:
    """The paper's 6, or (15, 1), taken as our scale or as the weight whose scale is one more."""
    high, low = (6.0, 1.0) if kind == "constant" else (15.0, 1.0)
    if reading == "1+w":
        high, low = guidance_scale_from_paper(high), guidance_scale_from_paper(low)
    return Constant(scale=high) if kind == "constant" else Swinging(high=high, low=low)
