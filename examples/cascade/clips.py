"""Look at the synthetic clips, or write them out as a folder that any trainer reads.

    python clips.py sheet clips.png                        # a few, as one picture
    python clips.py sheet heldout.png --held-out           # those that training never shows
    python clips.py write some_folder --count 20           # as .mp4 with metadata.jsonl

`heldout.json` lists combinations that training never shows, although it shows each part of them; the default
prompt, "a penguin dances in front of a red umbrella", is not among them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vdm_blocks.data.sample import Source
from vdm_blocks.data.scenes import DURATION, HeldOut
from vdm_blocks.data.solid_source import SolidClips
from vdm_blocks.data.sprite_source import SpriteClips
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.data.stream import Stream, View
from vdm_blocks.video.sheet import contact_sheet
from vdm_blocks.video.write import write_video

HERE = Path(__file__).parent


def sources(solids: float, *, only_held_out: bool) -> list[tuple[Source, float]]:
    """Clips of sprites and of ray-cast solids; `solids` is the share of the latter."""
    pack = SpritePack.load(HERE / "sprites")
    held_out = HeldOut.load(HERE / "heldout.json")
    return [
        (SpriteClips(pack=pack, held_out=held_out, only_held_out=only_held_out), 1 - solids),
        (SolidClips(held_out=held_out, only_held_out=only_held_out), solids),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("sheet", "write"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--fps", type=float, default=24.0)
    parser.add_argument("--solids", type=float, default=0.25, help="share of ray-cast scenes")
    parser.add_argument("--held-out", action="store_true", help="only what training never shows")
    arguments = parser.parse_args()

    view = View(
        frames=round(DURATION * arguments.fps),
        height=arguments.height,
        width=arguments.width,
        fps=arguments.fps,
    )
    mixture = sources(arguments.solids, only_held_out=arguments.held_out)
    stream = Stream(mixture, view, seed=arguments.seed)
    samples = (stream[i] for i in range(arguments.count))
    if arguments.what == "sheet":
        rows = [(sample.video, sample.captions[0]) for sample in samples]
        contact_sheet(arguments.out, [video for video, _ in rows], [text for _, text in rows])
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, sample in enumerate(samples):
        write_video(arguments.out / f"{i:05d}.mp4", sample.video, fps=arguments.fps)
        lines.append(json.dumps({"file_name": f"{i:05d}.mp4", "text": sample.captions[0]}))
    (arguments.out / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
