"""What the judge and the video-text encoder see of known damage: `python examples/cascade/readers_checked.py`.

Renders that neither was trained on are damaged in their pixels, and in what happens in them while the caption stays as
it was. A reading is believed where clean, half and full damage come in order. It rewrites a table of docs/metrics.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

import torch
from judge import Judge, truth
from ledger import Progress
from table_sets import Renders
from torch import Tensor
from train_judge import RASTER
from videotext import VideoTextEncoder

from vdm_blocks.checkpoint import file_hash
from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.data.captions import caption
from vdm_blocks.data.render import render_sprites
from vdm_blocks.data.scenes import SpriteScene, draw_scene
from vdm_blocks.data.sprites import Concept, SpritePack
from vdm_blocks.metrics import clip_score, r_precision
from vdm_blocks.metrics.damage import DAMAGES, separation

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "metrics.md"
STREAM, OTHERS = 900_202, 900_203
"""Scenes that no training, prompt or reference drew; and as many others."""
FAULTS = ("other object", "other motion", "other scene")
"""Of what happens: half the clips, then all, show another object, another motion, or another prompt's scene."""
NAMES = (*DAMAGES, *FAULTS)
EXPECTED: Mapping[str, tuple[str, ...]] = {
    "VT score": ("noise", "freeze", *FAULTS),
    "R-precision": ("noise", "other scene"),
    "object read": ("blur", "other object", "other scene"),
    "colour read": ("other scene",),
    "motion read": ("shuffle", "freeze", "other motion", "other scene"),
    "place read": ("other scene",),
    "KVD-VT": ("noise", "blur"),
}
"""Which damage a reading has to put in order; of the others it may see much or nothing."""
Scores = dict[str, dict[tuple[str, float], Tensor]]


@dataclass(frozen=True, kw_only=True)
class Readers:
    """Both of them, and the pictures that scenes are made of."""

    judge: Judge
    encoder: VideoTextEncoder
    pack: SpritePack
    name: str

    @classmethod
    def load(cls, judge: Path, encoder: Path) -> Readers:
        """From their files."""
        reads = VideoTextEncoder.load(encoder, MiniLMEncoder.load())
        return cls(
            judge=Judge.load(judge),
            encoder=reads,
            pack=SpritePack.load(HERE / "sprites"),
            name=f"judge `{file_hash(judge)[:12]}`, encoder `{reads.name}`",
        )


def faulty(scenes: Sequence[SpriteScene], at: int, fault: str, concepts: Sequence[Concept]) -> SpriteScene:
    """Scene number `at` with something else in it than its caption says."""
    scene, rng = scenes[at], Random(f"{fault}/{at}")
    others = [*scenes[at + 1 :], *scenes[:at]]
    if fault == "other scene":
        return others[0]
    if fault == "other motion":
        moves = next(one for one in others if one.motion != scene.motion)
        track, animated = moves.subject.track, moves.subject.animated
        return replace(
            scene, motion=moves.motion, subject=replace(scene.subject, track=track, animated=animated)
        )
    taken = {one.name for one in scene.objects}
    role = next(c.role for c in concepts if c.name == scene.subject.name)
    name = rng.choice([c.name for c in concepts if c.role == role and c.name not in taken])
    return replace(scene, subject=replace(scene.subject, name=name))


def variants(
    scenes: Sequence[SpriteScene], pack: SpritePack
) -> dict[tuple[str, float], Callable[[], Tensor]]:
    """How to make the clips (N, 3, T, H, W), clean and under every damage at half and at full strength."""
    clean = torch.stack([render_sprites(pack, scene, RASTER) for scene in scenes])

    def planted(fault: str, strength: float) -> Tensor:
        films = []
        for i in range(len(scenes)):
            if i % 2 < 2 * strength:
                films.append(render_sprites(pack, faulty(scenes, i, fault, pack.concepts), RASTER))
            else:
                films.append(clean[i])
        return torch.stack(films)

    made: dict[tuple[str, float], Callable[[], Tensor]] = {("clean", 0.0): lambda: clean}
    for strength in (0.5, 1.0):
        for name, damage in DAMAGES.items():
            made[name, strength] = partial(damage, clean, strength)
        for fault in FAULTS:
            made[fault, strength] = partial(planted, fault, strength)
    return made


def distinct(count: int, pack: SpritePack) -> list[SpriteScene]:
    """Scenes of as many captions."""
    found: dict[str, SpriteScene] = {}
    for index in range(20 * count):
        scene = draw_scene(pack.concepts, STREAM, index)
        found.setdefault(caption(scene), scene)
        if len(found) == count:
            break
    return list(found.values())


def measure(readers: Readers, count: int, *, quiet: bool = False) -> Scores:
    """Every reading of every kind of clip: (N,) of clips, (1,) of sets."""
    scenes = distinct(count, readers.pack)
    right = [truth(scene) for scene in scenes]
    texts = readers.encoder.encode_texts([caption(scene) for scene in scenes])
    others = torch.stack(
        [
            render_sprites(readers.pack, draw_scene(readers.pack.concepts, OTHERS, i), RASTER)
            for i in range(count)
        ]
    )
    renders = Renders(frames_of(readers, others).mean(1), extractor=readers.encoder.name)
    kinds, scores = variants(scenes, readers.pack), Scores()
    progress = Progress("damaged renders", len(kinds), quiet=quiet)
    for key, make in kinds.items():
        video = make()
        frames = frames_of(readers, video)
        answers = [answer for part in video.split(8) for answer in readers.judge.read(part)]
        found = {
            "VT score": clip_score(texts, frames),
            "R-precision": r_precision(texts, frames.mean(1), pool=count),
            "KVD-VT": torch.tensor([renders.kernel(renders.embedded(frames.mean(1)))]),
        }
        for title, name in (
            ("object", "object"),
            ("colour", "color"),
            ("motion", "motion"),
            ("place", "place"),
        ):
            hits = [a[name] == r[name] for a, r in zip(answers, right, strict=True) if r[name] != "none"]
            found[f"{title} read"] = torch.tensor(hits)
        for name, values in found.items():
            scores.setdefault(name, {})[key] = values.double()
        progress()
    return scores


def frames_of(readers: Readers, video: Tensor) -> Tensor:
    """(N, T, D), a few clips at a time."""
    return torch.cat([readers.encoder.encode_frames(part) for part in video.split(8)])


def sign_of(name: str) -> float:
    """1 where more is worse."""
    return 1.0 if name == "KVD-VT" else -1.0


def in_order(found: Mapping[tuple[str, float], Tensor], name: str, damage: str) -> bool:
    """Whether clean is better than half strength, and that than full; at the end of a scale half may equal either."""
    a, b, c = (
        sign_of(name) * float(found[key].mean()) for key in (("clean", 0.0), (damage, 0.5), (damage, 1.0))
    )
    return a < c and a <= b <= c


def sensitivity(found: Mapping[tuple[str, float], Tensor], name: str, damage: str) -> float:
    """How many standard deviations between clips full strength lies on the bad side of clean."""
    return sign_of(name) * separation(found["clean", 0.0], found[damage, 1.0])


def table(scores: Scores) -> str:
    """Half → full strength and, in brackets, the sensitivity; bold where the order is meant and holds, ✗ if not."""
    lines = [
        "| reading | clean ± s.e. | " + " | ".join(NAMES) + " |",
        "| --- |" + " --- |" * (len(NAMES) + 1),
    ]
    for name, found in scores.items():
        clean, cells = found["clean", 0.0], []
        error = f" ± {float(clean.std()) / math.sqrt(len(clean)):.2g}" if len(clean) > 1 else ""
        for damage in NAMES:
            half, full = (float(found[damage, k].mean()) for k in (0.5, 1.0))
            size = sensitivity(found, name, damage)
            told = f"{size + 0.0:+.1f}" if abs(size) < 100 else "> 100" if size > 0 else "< -100"
            text = f"{half:.3g} → {full:.3g} ({told})"
            if damage in EXPECTED[name]:
                text = f"**{text}**" if in_order(found, name, damage) else f"{text} ✗"
            cells.append(text)
        lines.append(f"| {name} | {float(clean.mean()):.3g}{error} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--judge", type=Path, default=HERE / "judge" / "judge.safetensors")
    parser.add_argument("--encoder", type=Path, default=HERE / "videotext" / "videotext.safetensors")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    readers = Readers.load(args.judge, args.encoder)
    made = table(measure(readers, args.clips))
    print(made)
    head, mark, rest = args.page.read_text(encoding="utf-8").partition("<!-- readers -->\n")
    _, end, tail = rest.partition("<!-- end of readers -->\n")
    if not mark or not end:
        raise ValueError(
            f"{args.page} has no place for the table, <!-- readers --> to <!-- end of readers -->"
        )
    told = f"{args.clips} clips; {readers.name}."
    args.page.write_text(f"{head}{mark}\n{told}\n\n{made}\n\n{end}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
