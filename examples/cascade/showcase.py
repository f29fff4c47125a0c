"""README's picture: a fixed list of prompts, one seed, nothing picked: `python examples/cascade/showcase.py`.

Samples the first four stages, to 32x192x320, for each prompt, and saves a row of frames a prompt. The last two
prompts show combinations that heldout.json keeps out of training. With --beside, for every second prompt, the row is
three frames of the teachers', and after them the same three of the students', by the same seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from distilled_stages import choose_weights, load_chosen
from memory import keep_memory
from sampling import WEIGHTS, load_stages
from stages import PLANS
from torch import Tensor

from vdm_blocks import Cascade, Conditioning, MiniLMEncoder, contact_sheet

PROMPTS: tuple[str, ...] = (
    "a penguin dances in front of a red umbrella",
    "a big tiger jumps by the sea",
    "a frog moves right on green grass",
    "a whale rises under water",
    "a blue car moves left in the desert",
    "a fire truck stands still in the mountains",
    "a robot spins at night",
    "a yellow star grows at sunset",
    "a lion dances behind a purple balloon in the snow",
    "a checked red sphere moves left behind a blue box",
    "a penguin spins on green grass",
    "a green heart rises in a forest",
)
"""The last two are held out: no penguin ever spun in training, and no heart was green."""

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"


def main() -> None:
    """Samples every prompt and saves the sheet."""
    args = arguments()
    keep_memory()
    torch.set_num_threads(args.threads)
    weights = Path(args.weights)
    cascades, prompts = [Cascade(load_stages(args.stages, weights))], PROMPTS
    if args.beside:
        students = [load_chosen(p, choose_weights(p, "default", weights)) for p in PLANS[: args.stages]]
        cascades, prompts = [*cascades, Cascade(students)], PROMPTS[::2]
    encoded = MiniLMEncoder.load().encode(prompts)
    rows: list[Tensor] = []
    for i, prompt in enumerate(prompts):
        cond = Conditioning(text=encoded.states[i : i + 1], text_mask=encoded.mask[i : i + 1])
        made = [cascade.sample(cond, seeds=[args.seed])[0] for cascade in cascades]
        rows.append(torch.cat([evenly(video, 6 // len(made)) for video in made], dim=1))
        print(f"{i + 1}/{len(prompts)} {prompt}", flush=True)
    path = Path(args.out) if args.out else PICTURES / ("distilled.png" if args.beside else "showcase.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    title, height = (": teachers, then students", 64) if args.beside else ("", 96)
    contact_sheet(path, rows, [prompt + title for prompt in prompts], frames=6, cell_height=height)
    print(path)


def evenly(video: Tensor, count: int) -> Tensor:
    """`count` frames of a video (3, T, H, W), from the first to the last."""
    return video[:, torch.linspace(0, video.shape[1] - 1, count).round().long()]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="A sheet of the cascade's outputs for a fixed list of prompts."
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--beside", action="store_true", help="teachers left, their students right")
    parser.add_argument("--weights", default=str(WEIGHTS), help="folder of the stages' weights")
    parser.add_argument("--out", default="", help="the picture; in docs/pictures by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


if __name__ == "__main__":
    main()
