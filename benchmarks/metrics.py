"""What each metric sees of known damage: `python benchmarks/metrics.py` measures it and rewrites docs/metrics.md.

Ray-cast clips in which a red sphere passes behind a blue box, and clips of a still scene under a camera that moves
around it, are damaged at half and at full strength: in their pixels, and in what happens in them. A metric is believed
where clean, half and full come in order.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vdm_blocks.data import Raster, SolidScene, SolidTruth, render_solids, solid_truth
from vdm_blocks.data.colors import COLORS
from vdm_blocks.data.scenes import generator
from vdm_blocks.data.solids import Camera, Solid
from vdm_blocks.metrics import (
    Cameras,
    EffLite0Features,
    FeatureBank,
    FeatureExtractor,
    TransNetFeatures,
    color_mask,
    depth_order,
    dynamic_degree,
    epipolar_residual,
    estimate_flow,
    feature_consistency,
    flicker,
    frechet_distance,
    kernel_distance,
    motion_degree,
    motion_direction,
    motion_smoothness,
    nearest_color,
    permanence,
    pieces,
    psnr,
    sight,
    ssim,
    track_error,
    warping_error,
)
from vdm_blocks.metrics.damage import DAMAGES, separation

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
RASTER = Raster(frames=16, height=36, width=60, fps=3.0)
ORBIT = Raster(frames=6, height=36, width=60, fps=3.0)
GREY_SKY = ((0.62, 0.64, 0.70), (0.86, 0.87, 0.89))
SWAPS = {0.5: ("orange", "cylinder", 1.25), 1.0: ("green", "cone", 1.7)}
SLOWER = {0.5: 0.7, 1.0: 0.45}
STRENGTHS = (0.5, 1.0)
WORSE_IF_LOW = {"PSNR", "SSIM", "dynamic degree", "motion degree", "feature consistency", "returned", "kept",
                "consistency of neighbours", "colour read", "direction read", "count read",
                "depth order read"}  # fmt: skip
FAULTS = ("slower", "lost", "twin", "in front")
"""Of what happens: the thing comes out at another speed, or not at all; there are two; it passes in front."""
SEEN_BY_ALL = (*DAMAGES, "swap")
NAMES = (*SEEN_BY_ALL, *FAULTS)
EXPECTED: Mapping[str, tuple[str, ...]] = {
    "PSNR": SEEN_BY_ALL, "SSIM": SEEN_BY_ALL,
    "warping error": ("noise", "shuffle", "flicker", "swap"),
    "warping error, camera moves": ("noise", "shuffle", "freeze", "flicker"),
    "flicker": ("flicker",), "dynamic degree": ("freeze",), "motion degree": ("freeze",),
    "motion smoothness": ("shuffle",), "feature consistency": ("swap",), "consistency of neighbours": ("shuffle",),
    "returned": ("lost",), "kept": ("freeze", "swap", "slower", "lost"), "colour change": ("swap",),
    "size change": ("swap",), "shape change": ("swap",), "speed change": ("slower",),
    "track error": ("shuffle", "freeze", "slower"), "epipolar residual": ("shuffle", "freeze"),
    "direction read": ("freeze",), "colour read": ("swap",), "count read": ("twin",), "depth order read": ("in front",),
    "FVD-TransNet": SEEN_BY_ALL, "KID-EffLite0": ("blur",), "KID-EffLite0, stage 3": ("noise", "blur"),
}  # fmt: skip
"""Which damage a metric has to put in order; of the others it may see much or nothing."""


@dataclass(frozen=True, kw_only=True)
class Clips:
    """N clips whose truth is known, and the same with something planted in what happens.

    Attributes:
        alone: bool (N, 2, T, H, W), the pixels that the thing and its cover would have, each by itself.
    """

    video: Tensor
    planted: Mapping[tuple[str, float], Tensor]
    alone: Tensor
    truths: tuple[SolidTruth, ...]
    scenes: tuple[SolidScene, ...]
    raster: Raster


def passing(seed: int) -> SolidScene:
    """A red sphere passes behind a blue box."""
    rng = generator("metrics", seed)
    side = rng.choice((-1, 1))
    ball = Solid(
        shape="sphere",
        color="red",
        size=rng.uniform(0.45, 0.55),
        y=rng.uniform(1.5, 1.8),
        dx=side * rng.uniform(5.6, 6.2),
    )
    return SolidScene(
        subject=ball,
        motion="moves right" if side > 0 else "moves left",
        other=Solid(shape="box", color="blue", size=0.9, y=-0.2, yaw=rng.uniform(-0.1, 0.1)),
        relation="behind",
        camera=Camera(elevation=rng.uniform(0.12, 0.18)),
        sky=GREY_SKY,
        floor=((0.86, 0.84, 0.80), (rng.uniform(0.6, 0.7),) * 3),
    )


def orbiting(seed: int) -> SolidScene:
    """Nothing moves but the camera."""
    rng = generator("orbits", seed)
    return SolidScene(
        subject=Solid(shape="sphere", color="red", size=0.6, x=-rng.uniform(0.5, 0.8)),
        motion="stays still",
        other=Solid(shape="box", color="green", size=0.7, x=1.0, y=1.0, yaw=rng.uniform(0, 1)),
        relation="next to",
        camera=Camera(orbit=rng.choice((-1, 1)) * rng.uniform(1.0, 1.3), elevation=0.35),
        sky=GREY_SKY,
    )


def make(count: int, draw: Callable[[int], SolidScene], raster: Raster, *, first: int = 0) -> Clips:
    """Render `count` scenes and their swaps."""
    scenes = tuple(draw(first + i) for i in range(count))
    truths = tuple(solid_truth(s, raster) for s in scenes)
    video = torch.stack([render_solids(s, raster) for s in scenes])
    return Clips(
        video=video,
        planted=planted(scenes, truths, video, raster) if draw is passing else {},
        alone=torch.stack([torch.stack([own_pixels(s, one, raster) for one in s.solids]) for s in scenes]),
        truths=truths,
        scenes=scenes,
        raster=raster,
    )


def own_pixels(scene: SolidScene, solid: Solid, raster: Raster) -> Tensor:
    """Bool (T, H, W), where a solid would be seen if nothing else were there."""
    seen: Tensor = solid_truth(replace(scene, subject=solid, other=None, relation=None), raster).ids == 1
    return seen


def changes(strength: float, frames: int) -> dict[str, tuple[range, Callable[[Solid], Solid]]]:
    """In which frames the thing is another one, and which."""
    half, full = frames // 2, strength == 1
    color, shape, size = SWAPS[strength]
    return {
        "swap": (
            range(half, frames), lambda one: replace(one, color=color, shape=shape, size=one.size * size)
        ),
        "slower": (range(half, frames), lambda one: replace(one, dx=one.dx * SLOWER[strength])),
        "lost": (range(half, frames if full else frames - 2), lambda one: replace(one, dx=0.0)),
        "in front": (range(frames if full else half), lambda one: replace(one, y=-one.y)),
    }  # fmt: skip


def planted(
    scenes: Sequence[SolidScene], truths: Sequence[SolidTruth], video: Tensor, raster: Raster
) -> dict[tuple[str, float], Tensor]:
    """What goes wrong in the scene itself, behind the cover or about it."""
    made: dict[tuple[str, float], Tensor] = {}
    frames, up = raster.frames, raster.height * 2 // 5
    for strength in STRENGTHS:
        for name, (when, change) in changes(strength, frames).items():
            films = [
                [replace(s, subject=change(s.subject)) if t in when else s for t in range(frames)]
                for s in scenes
            ]
            made[name, strength] = torch.stack([render_solids(film, raster) for film in films])
        ball = torch.stack([truth.ids == 1 for truth in truths])[:, None]
        ball = ball & (torch.arange(frames) % 2 < 2 * strength).view(1, 1, -1, 1, 1)
        made["twin", strength] = torch.where(ball.roll(-up, 3), video.roll(-up, 3), video)
    return made


def variants(clips: Clips) -> dict[tuple[str, float], Tensor]:
    """The clips, clean and under each damage at each strength."""
    made = {("clean", 0.0): clips.video}
    for strength in STRENGTHS:
        made |= {(name, strength): damage(clips.video, strength) for name, damage in DAMAGES.items()}
    return {**made, **clips.planted}


def cameras(clips: Clips, i: int) -> Cameras:
    """The i-th clip's, known."""
    truth, slope = clips.truths[i], clips.scenes[i].camera.slope
    return Cameras(
        eye=truth.eye, axes=truth.axes, slope=slope, height=clips.raster.height, width=clips.raster.width
    )


def true_flow(clips: Clips) -> tuple[Tensor, Tensor]:
    """Of every clip."""
    flows = []
    for i, (scene, truth) in enumerate(zip(clips.scenes, clips.truths, strict=True)):
        t = clips.raster.times()
        where = torch.stack([s.centre(t, duration=scene.duration) for s in scene.solids], dim=1)
        flows.append(cameras(clips, i).flow(truth.depth, truth.ids, centres=where))
    return torch.cat([f for f, _ in flows]), torch.cat([v for _, v in flows])


def per_clip(clips: Clips, video: Tensor, flow: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Every metric of single clips, (N,) each."""
    visible = torch.stack([truth.visible[:, 0] for truth in clips.truths])
    tracks = torch.stack([truth.tracks[:, 0] for truth in clips.truths])
    mask = torch.zeros_like(video[:, 0], dtype=torch.bool)
    for color in ("red", *(color for color, _, _ in SWAPS.values())):
        mask |= color_mask(video, COLORS[color], least=0.25)
    seen = sight(video, mask)
    kept = permanence(video, mask, visible)
    track = track_error(seen, tracks, visible > 0.97, height=clips.raster.height)
    moved = estimate_flow(video)
    last = [(color[color.isfinite().all(1)][-1:]).mean(0) for color in seen.color]
    palette = {name: COLORS[name] for name in ("red", "orange", "yellow", "green", "blue", "purple")}
    named = nearest_color(torch.stack(last).nan_to_num(), palette)
    going = motion_direction(seen, height=clips.raster.height)
    counted = (pieces(mask) == 1).double()
    whole = visible > 0.97
    first, second = clips.alone.unbind(1)
    front = depth_order(video, first, second, COLORS["red"], COLORS["blue"])
    return {
        "PSNR": psnr(video, clips.video).clamp(max=60).mean(1),
        "SSIM": ssim(video, clips.video).mean(1),
        "warping error": warping_error(video, *flow),
        "flicker": flicker(video),
        "dynamic degree": dynamic_degree(video),
        "motion degree": motion_degree(moved),
        "motion smoothness": motion_smoothness(moved),
        "returned": kept.returned,
        "kept": kept.kept().double(),
        "colour change": kept.color,
        "size change": kept.size,
        "shape change": kept.shape,
        "speed change": kept.speed,
        "track error": track.distance,
        "colour read": torch.tensor([float(name == "red") for name in named]),
        "count read": (counted * whole).sum(1) / whole.sum(1),
        "direction read": torch.tensor(
            [
                float(way == s.motion.removeprefix("moves "))
                for way, s in zip(going, clips.scenes, strict=True)
            ]
        ),
        "depth order read": 1 - front,
    }


def bank_of(net: FeatureExtractor, video: Tensor) -> FeatureBank:
    """The features of all clips."""
    bank = FeatureBank(net.width, extractor=net.name)
    for one in video.split(4):
        bank.update(net(one))
    return bank


Scores = dict[str, dict[tuple[str, float], Tensor]]


def measure_sets(kinds: Mapping[tuple[str, float], Tensor], others: Tensor) -> Scores:
    """What networks see of every second frame: consistency of clips, and distances to a set of other clips."""
    trans, eff = TransNetFeatures.load(), EffLite0Features.load(side=64)
    early = EffLite0Features.load(side=64, stage=3)
    real = bank_of(trans, others[:, :, ::2]).stats()
    sets = {
        "KID-EffLite0": (eff, bank_of(eff, others[:, :, ::4])),
        "KID-EffLite0, stage 3": (early, bank_of(early, others[:, :, ::4])),
    }
    scores: Scores = {}

    def add(name: str, key: tuple[str, float], value: Tensor) -> None:
        scores.setdefault(name, {})[key] = value.double()

    for key, video in kinds.items():
        every = eff(video[:, :, ::2]).unflatten(0, (len(video), -1))
        add("feature consistency", key, feature_consistency(every))
        add("consistency of neighbours", key, feature_consistency(every, first=0.0))
        distance = frechet_distance(bank_of(trans, video[:, :, ::2]).stats(), real, singular=True)
        add("FVD-TransNet", key, torch.tensor([distance]))
        for name, (net, bank) in sets.items():
            found = bank_of(net, video[:, :, ::4])
            add(name, key, torch.tensor([kernel_distance(found, bank)]))
    return scores


def measure(count: int, *, orbits: int, networks: bool) -> Scores:
    """Every metric under every damage: (N,) of clips, (1,) of sets."""
    clips = make(count, passing, RASTER)
    flow = true_flow(clips)
    scores: Scores = {}
    kinds = variants(clips)
    for key, video in kinds.items():
        for name, values in per_clip(clips, video, flow).items():
            scores.setdefault(name, {})[key] = values.double()
    around = make(orbits, orbiting, ORBIT)
    around_flow = true_flow(around)
    for key, video in variants(around).items():
        found = [epipolar_residual(one, cameras(around, i)) for i, one in enumerate(video)]
        scores.setdefault("epipolar residual", {})[key] = torch.stack(found)
        error = warping_error(video, *around_flow)
        scores.setdefault("warping error, camera moves", {})[key] = error.double()
    if networks:
        seen = {key: video for key, video in kinds.items() if key[0] not in FAULTS}
        scores |= measure_sets(seen, make(count, passing, RASTER, first=count).video)
    return scores


def in_order(scores: Scores, name: str, damage: str) -> bool:
    """Whether clean is better than half strength, and that than full; a score that is gone (NaN) is the worst."""
    sign = -1.0 if name in WORSE_IF_LOW else 1.0
    values = [sign * float(scores[name][key].mean().nan_to_num(sign * 1e9)) for key in keys_of(damage)]
    if name in ("kept", "colour read", "direction read", "depth order read"):
        return values[0] < values[2] and values[0] <= values[1] <= values[2]
    return values[0] < values[1] < values[2]


def keys_of(damage: str) -> list[tuple[str, float]]:
    """Clean, half, full."""
    return [("clean", 0.0), (damage, 0.5), (damage, 1.0)]


def sensitivity(scores: Scores, name: str, damage: str) -> float:
    """How many standard deviations between clips full strength lies on the bad side of clean."""
    sign = -1.0 if name in WORSE_IF_LOW else 1.0
    return sign * separation(scores[name]["clean", 0.0], scores[name][damage, 1.0])


def cell(value: float) -> str:
    """Three digits, or a dash for what is not there."""
    return "lost" if math.isnan(value) else f"{value:.3g}"


def tables(scores: Scores) -> str:
    """The two tables of the page."""
    lines = ["| metric | clean ± s.e. | " + " | ".join(NAMES) + " |", "| --- | --- |" + " --- |" * len(NAMES)]
    for name, found in scores.items():
        clean = found["clean", 0.0]
        error = f" ± {cell(float(clean.std() / len(clean) ** 0.5))}" if len(clean) > 1 else ""
        shown = [
            " → ".join(cell(float(found[key].mean())) for key in keys_of(d)[1:]) if (d, 1.0) in found else ""
            for d in NAMES
        ]
        lines.append(f"| {name} | {cell(float(clean.mean()))}{error} | " + " | ".join(shown) + " |")
    lines += ["", "| metric | " + " | ".join(NAMES) + " |", "| --- |" + " --- |" * len(NAMES)]
    for name, found in scores.items():
        shown = []
        for damage in NAMES:
            if (damage, 1.0) not in found:
                shown.append("")
                continue
            value = sensitivity(scores, name, damage)
            text = (
                "lost"
                if math.isnan(value)
                else f"{value + 0.0:+.1f}"
                if abs(value) < 100
                else ("> 100" if value > 0 else "< -100")
            )
            has = damage in EXPECTED.get(name, ())
            shown.append(
                f"**{text}**" if has and in_order(scores, name, damage) else f"{text} ✗" if has else text
            )
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--orbits", type=int, default=3)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    began = time.process_time()
    scores = measure(options.clips, orbits=options.orbits, networks=True)
    text = tables(scores)
    print(text)
    head, _, rest = options.page.read_text(encoding="utf-8").partition("<!-- tables -->\n")
    _, _, tail = rest.partition("<!-- end of tables -->\n")
    options.page.write_text(
        f"{head}<!-- tables -->\n\n{text}\n\n<!-- end of tables -->\n{tail}", encoding="utf-8"
    )
    print(f"{time.process_time() - began:.0f} s of one core")


if __name__ == "__main__":
    main()
