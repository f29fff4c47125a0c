"""How well the video-text encoder finds captions, on renders that it was not trained on."""

from __future__ import annotations

from random import Random

import torch
import torch.nn.functional as F
from altered import ALTERABLE, altered
from ledger import Progress
from train_judge import RASTER
from videotext import VideoText

from vdm_blocks.conditioning.text import TextEncoder
from vdm_blocks.data.solid_source import SolidClips
from vdm_blocks.data.sprite_source import SpriteClips
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.metrics import r_precision

TEST_SEED = 900_101
"""A stream that no training step draws from."""
POOLS = (32, 99)


def retrieval_shares(
    model: VideoText, pack: SpritePack, encoder: TextEncoder, count: int, *, quiet: bool
) -> dict[str, dict[str, float]]:
    """For sprites and for ray-cast scenes, `count` unseen clips of each: the share that found their own caption.

    `R@1 of n`: nearest of a pool of n, the others being captions of other clips. For every attribute: nearer than the
    same caption with that one word wrong, of which half is chance. `one word`: nearer than all of these at once.
    """
    found = {}
    for kind, source in (("sprites", SpriteClips(pack=pack)), ("ray-cast", SolidClips())):
        progress = Progress(f"retrieval: {kind}", count, quiet=quiet)
        videos, texts = [], []
        wins: dict[str, list[bool]] = {}
        for i in range(count):
            sample = source.sample(TEST_SEED, i, RASTER)
            wrong = altered(sample.scenes[0], pack.concepts, Random(f"test/{i}"))
            said = model.embed_captions([sample.captions[0], *wrong.values()], encoder)
            video = model.embed(sample.video[None])
            cosine = F.cosine_similarity(video, said)
            nearer = (cosine[1:] < cosine[0]).tolist()
            for name, won in zip(wrong, nearer, strict=True):
                wins.setdefault(name, []).append(won)
            wins.setdefault("one word", []).append(all(nearer))
            videos.append(video)
            texts.append(said[:1])
            progress()
        found[kind] = {
            f"R@1 of {pool}": round(
                float(r_precision(torch.cat(texts), torch.cat(videos), pool=pool).mean()), 4
            )
            for pool in POOLS
            if pool <= count
        }
        named = [name for name in ("one word", *ALTERABLE) if name in wins]
        found[kind] |= {name: round(sum(wins[name]) / len(wins[name]), 4) for name in named}
    return found
