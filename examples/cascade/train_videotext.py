"""Train the video-text encoder on captioned renders: `python examples/cascade/train_videotext.py`.

Every step sees clips and packs of pictures, of sprites and of ray-cast scenes, every combination, each with its
caption; each clip must be nearest to its own among the captions of this step, the same with one word wrong, and those
of the steps before. All is drawn by (seed, step), so a run that was killed goes on from its last checkpoint. At the end
it writes videotext/videotext.safetensors, videotext/log.csv and its retrieval accuracy on scenes that it was not
trained on.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from altered import altered
from course import Course, common_arguments, descend
from material import Captions
from retrieval import retrieval_shares
from torch import Tensor
from train_judge import RASTER, worn
from videotext import VideoText, VideoTextSpec

from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.data.sample import Sample, Source
from vdm_blocks.data.solid_source import SolidClips, SolidImages
from vdm_blocks.data.sprite_source import SpriteClips, SpriteImages
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.training import EMA, WarmedDecay
from vdm_blocks.training.state import TrainingState

HERE = Path(__file__).parent
NAMES = ("loss", "clips", "pictures", "captions", "sharpness")
"""What the log says of a step: the loss; the share of clips and of pictures nearest to their own caption; the share of
captions nearest to their own clip; the factor on the cosines."""
CLIPS, SOLID_CLIPS, PACKS, SOLID_PACKS = 9, 3, 3, 1
LOOKS, APART = 3, 8
"""Making clips and reading captions costs more than a step on them, so each batch is looked at again: how often, and
how many steps later. Its wear is new each time."""
SHARPEST = math.log(50)


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What a step is given.

    Attributes:
        video: (B, 3, T, H, W), clips first, then packs.
        images: (B,) bool, which are packs.
        said: captions with their token states (L, 384): of the clips, of the packs' pictures, and wrong ones.
    """

    video: Tensor
    images: Tensor
    said: list[tuple[str, Tensor]]


class Material:
    """The lesson of each step, by seed and step; the last few are kept, to be looked at again."""

    def __init__(self, pack: SpritePack, captions: Captions, seed: int) -> None:
        self.pack, self.captions, self.seed = pack, captions, seed
        self.kept: dict[int, Lesson] = {}

    def __call__(self, step: int) -> Lesson:
        """Batches 0 to 7 and twice again, then 8 to 15, and so on."""
        number = step // (LOOKS * APART) * APART + step % APART
        if number not in self.kept:
            self.kept = {n: lesson for n, lesson in self.kept.items() if n > number - 2 * APART}
            samples = material(self.pack, self.seed, number)
            texts = captions_of(samples, self.pack, self.seed, number)
            states, mask = self.captions(texts)
            self.kept[number] = Lesson(
                video=torch.stack([sample.video for sample in samples]),
                images=torch.tensor([sample.images for sample in samples]),
                said=[(text, x[m]) for text, x, m in zip(texts, states, mask, strict=True)],
            )
        return self.kept[number]


Bank = deque[dict[str, Tensor]]
"""The token states of the captions of the last steps, a step in each entry."""


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    torch.manual_seed(args.seed)
    pack, captions = SpritePack.load(HERE / "sprites"), Captions(MiniLMEncoder.load())
    model = VideoText(VideoTextSpec())
    if not args.from_scratch:
        model.video.begin_as_judge(HERE / "judge" / "judge.safetensors")
    learnt = [x for x in model.parameters() if x.requires_grad]
    state = TrainingState(
        model,
        EMA(model, WarmedDecay(decay=0.98)),
        torch.optim.AdamW(learnt, lr=args.rate, betas=(0.9, 0.98), weight_decay=0.02),
    )
    run = {"seed": str(args.seed), "rate": str(args.rate), "from scratch": str(args.from_scratch)}
    course = Course(state, NAMES, out, run)
    data = Material(pack, captions, args.seed)
    bank: Bank = deque(maxlen=args.bank)
    for number in range(max(0, state.step - args.bank), state.step):
        bank.append(dict(data(number).said))
    course.go(lambda: step(state, data, bank, args), args)
    with state.ema.applied(model):
        found = retrieval_shares(model.eval(), pack, captions.encoder, args.tests, quiet=args.quiet)
        notes = {
            "seed": str(args.seed),
            "steps": str(state.step),
            "started from": "random" if args.from_scratch else "the judge",
            "text": "all-MiniLM-L6-v2",
            "retrieval": json.dumps(found),
        }
        model.save(out / "videotext.safetensors", notes)
    print(json.dumps(found, indent=1))


def step(state: TrainingState, data: Material, bank: Bank, args: argparse.Namespace) -> tuple[float, ...]:
    """One optimizer step; returns its number and what NAMES says."""
    number = state.step
    rate = args.rate * min(1.0, (number + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * number / args.steps))
    for group in state.optimizer.param_groups:
        group["lr"] = max(rate, args.rate * 0.01)
    model = state.network
    assert isinstance(model, VideoText)
    model.train()
    batch = data(number)
    images, own = batch.images, batch.said
    texts = [text for text, _ in own]
    draw = torch.Generator().manual_seed(args.seed * 1_000_003 + number)
    video = worn(batch.video, draw)
    before = {text: x for part in bank for text, x in part.items()}
    others = [(text, x) for text, x in before.items() if text not in set(texts)]
    padded = torch.nn.utils.rnn.pad_sequence([x for _, x in own + others], batch_first=True)
    lengths = torch.tensor([len(x) for _, x in own + others])
    bank.append(dict(own))
    with torch.autocast("cpu", torch.bfloat16, enabled=not args.float32):
        frames = model.video(video, images)
        said = model.text(padded, torch.arange(padded.shape[1])[None] < lengths[:, None])
    frames, said = frames.float(), F.normalize(said.float(), dim=1)
    clips = int((~images).sum())
    seen = F.normalize(torch.cat([frames[:clips].mean(1), frames[clips:].flatten(0, 1)]), dim=1)
    cosine = seen @ said.T
    alike = torch.tensor([[a == b for b, _ in own + others] for a in texts[: len(seen)]])
    alike.fill_diagonal_(False)
    logits = (cosine * model.sharpness.clamp(max=SHARPEST).exp()).masked_fill(alike, -torch.inf)
    label = torch.arange(len(seen))
    back = logits[:, : len(seen)].T
    loss = (F.cross_entropy(logits, label) + F.cross_entropy(back, label)) / 2
    # Of the clips alone once more, since there are five pictures to each.
    loss = (
        loss
        + (F.cross_entropy(logits[:clips], label[:clips]) + F.cross_entropy(back[:clips], label[:clips])) / 2
    )
    descend(state, loss)
    right = (logits.argmax(1) == label).float()
    returned = (back.argmax(1) == label).float()[:clips]
    scores = (loss, right[:clips].mean(), right[clips:].mean(), returned.mean(), model.sharpness.exp())
    return (float(number), *(x.item() for x in scores))


def material(pack: SpritePack, seed: int, number: int) -> list[Sample]:
    """Batch `number`: clips first, then packs."""
    sources: tuple[tuple[Source, int], ...] = (
        (SpriteClips(pack=pack), CLIPS),
        (SolidClips(), SOLID_CLIPS),
        (SpriteImages(pack=pack), PACKS),
        (SolidImages(), SOLID_PACKS),
    )
    return [
        source.sample(seed + kind, number * count + i, RASTER)
        for kind, (source, count) in enumerate(sources)
        for i in range(count)
    ]


def captions_of(samples: list[Sample], pack: SpritePack, seed: int, number: int) -> list[str]:
    """Of clips and pictures, in their order; then those of the clips again, wrong in one word each, twice over."""
    right = [caption for sample in samples for caption in sample.captions]
    wrong = []
    for i, sample in enumerate(sample for sample in samples if not sample.images):
        rng = Random(f"wrong/{seed}/{number}/{i}")
        choices = list(altered(sample.scenes[0], pack.concepts, rng).values())
        wrong += rng.sample(choices, min(2, len(choices)))
    return right + wrong


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=2210)
    parser.add_argument("--steps", type=int, default=480)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--bank", type=int, default=12, help="steps whose captions are kept to choose from")
    parser.add_argument("--from-scratch", action="store_true", help="do not begin with the judge's weights")
    parser.add_argument("--tests", type=int, default=512, help="unseen scenes for the final accuracy")
    common_arguments(parser, HERE / "videotext")
    return parser.parse_args()


if __name__ == "__main__":
    main()
