"""Train the judge on renders: `python examples/cascade/train_judge.py`.

Half of what it sees are packs of pictures, which teach objects and colours sixteen times as fast as clips do. All is
drawn by (seed, step), so a run that was killed goes on from its last checkpoint. At the end it writes
judge/judge.safetensors, judge/log.csv and its accuracy on scenes that it was not trained on.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from course import Course, common_arguments, descend
from judge import ATTRIBUTES, Judge, JudgeSpec, truth, vocabulary
from memory import keep_memory
from muon import Muon
from torch import Tensor

from vdm_blocks.data.raster import Raster
from vdm_blocks.data.sample import Sample
from vdm_blocks.data.scenes import HeldOut, SpriteScene
from vdm_blocks.data.sprite_source import SpriteClips, SpriteImages
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.training import EMA, WarmedDecay
from vdm_blocks.training.state import TrainingState

HERE = Path(__file__).parent
RASTER = Raster(frames=16, height=24, width=40, fps=3.0)
TEST_SEED = 900_001


def main() -> None:
    args = arguments()
    keep_memory()
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    torch.manual_seed(args.seed)
    pack = SpritePack.load(HERE / "sprites")
    judge = Judge(JudgeSpec(answers=vocabulary(pack.concepts)))
    state = TrainingState(
        judge,
        EMA(judge, WarmedDecay(decay=0.995)),
        Muon(judge.parameters(), lr=args.rate),
    )
    # The length is no part of what the run is: a longer one goes on from a shorter.
    run = {"seed": str(args.seed), "rate": str(args.rate), "batch": str(args.batch)}
    Course(state, tuple(ATTRIBUTES), out, run).go(lambda: step(state, pack, args), args)
    with state.ema.applied(judge):
        scores = accuracy(judge.eval(), pack, args.tests, only_held_out=False)
        held = accuracy(judge, pack, args.tests, only_held_out=True)
        notes = {
            "seed": str(args.seed),
            "steps": str(state.step),
            "accuracy": json.dumps({"any": scores, "held out": held}),
        }
        judge.save(out / "judge.safetensors", notes)
    print(f"accuracy on {args.tests} unseen scenes, any: {scores}; held-out combinations: {held}")


def step(state: TrainingState, pack: SpritePack, args: argparse.Namespace) -> tuple[float, ...]:
    """One optimizer step; returns its number and the loss of each attribute."""
    number = state.step
    rate = args.rate * min(1.0, (number + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * number / args.steps))
    for group in state.optimizer.param_groups:
        group["lr"] = max(rate, args.rate * 0.01)
    half = args.batch // 2
    indices = range(number * half, number * half + half)
    samples = [SpriteImages(pack=pack).sample(args.seed, i, RASTER) for i in indices]
    samples += [SpriteClips(pack=pack).sample(args.seed + 1, i, RASTER) for i in indices]
    images = torch.tensor([sample.images for sample in samples])
    draw = torch.Generator().manual_seed(args.seed * 1_000_003 + number)
    video = worn(torch.stack([sample.video for sample in samples]), draw)
    judge = state.network
    assert isinstance(judge, Judge)
    judge.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=not args.float32):
        logits = judge(video, images)
    losses = {name: loss(logits[name].float(), labels(judge, name, samples), images) for name in ATTRIBUTES}
    descend(state, torch.stack(tuple(losses.values())).sum())
    return (float(number), *(x.item() for x in losses.values()))


def worn(video: Tensor, draw: torch.Generator) -> Tensor:
    """The clips, each more or less blurred, noisy and faded, so that small flaws do not blind the judge."""
    count = len(video)
    blur, noise, fade = (torch.rand(3, count, generator=draw) ** 2).view(3, count, 1, 1, 1, 1)
    flat = video.transpose(1, 2).flatten(0, 1)
    soft = F.avg_pool2d(F.pad(flat, (1, 1, 1, 1), mode="replicate"), 3, 1)
    soft = soft.unflatten(0, (count, -1)).transpose(1, 2)
    video = torch.lerp(video, soft, blur) * (1 - 0.2 * fade)
    out: Tensor = video + 0.12 * noise * torch.randn(video.shape, generator=draw)
    return out


def labels(judge: Judge, name: str, samples: list[Sample]) -> Tensor:
    """(B, T) the right answers."""
    answers = judge.spec.answers[name]
    rows = []
    for sample in samples:
        scenes = [scene for scene in sample.scenes if isinstance(scene, SpriteScene)]
        row = [answers.index(truth(scene)[name]) for scene in scenes]
        rows.append(row if sample.images else row * sample.video.shape[1])
    return torch.tensor(rows)


def loss(logits: Tensor, label: Tensor, images: Tensor) -> Tensor:
    """Cross-entropy, of every frame; of the motion, of every clip."""
    if logits.ndim == 3:
        return F.cross_entropy(logits.flatten(0, 1), label.flatten())
    return F.cross_entropy(logits[~images], label[~images, 0])


@torch.no_grad()
def accuracy(judge: Judge, pack: SpritePack, count: int, *, only_held_out: bool) -> dict[str, float]:
    """The share of right readings on clips of a stream that no training step drew from."""
    held_out = HeldOut.load(HERE / "heldout.json") if only_held_out else None
    clips = SpriteClips(pack=pack, held_out=held_out, only_held_out=only_held_out)
    right = dict.fromkeys(ATTRIBUTES, 0)
    for i in range(count):
        sample = clips.sample(TEST_SEED, i, RASTER)
        (scene,) = sample.scenes
        assert isinstance(scene, SpriteScene)
        answer = judge.read(sample.video[None])[0]
        for name, true in truth(scene).items():
            right[name] += answer[name] == true
    return {name: round(n / count, 4) for name, n in right.items()}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--batch", type=int, default=16, help="clips and packs in a step, half of each")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--tests", type=int, default=1000, help="unseen scenes for the final accuracy")
    common_arguments(parser, HERE / "judge")
    return parser.parse_args()


if __name__ == "__main__":
    main()
