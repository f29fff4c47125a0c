"""README's picture: a fixed list of prompts, one seed, nothing picked: `python examples/cascade/showcase.py`.

Samples the first four stages, to 32x192x320, for each prompt, and saves a row of frames a prompt. The last two
prompts show combinations that heldout.json keeps out of training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from memory import keep_memory
from sampling import load_stages
from torch import Tensor

from vdm_blocks import Cascade, Conditioning, MiniLMEncoder, contact_sheet

PROMPTS = (
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

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "showcase.png"


def main() -> None:
    """Samples every prompt and saves the sheet."""
    args = arguments()
    keep_memory()
    torch.set_num_threads(args.threads)
    cascade = Cascade(load_stages(args.stages))
    encoded = MiniLMEncoder.load().encode(PROMPTS)
    rows: list[Tensor] = []
    for i, prompt in enumerate(PROMPTS):
        cond = Conditioning(text=encoded.states[i : i + 1], text_mask=encoded.mask[i : i + 1])
        rows.append(cascade.sample(cond, seeds=[args.seed])[0])
        print(f"{i + 1}/{len(PROMPTS)} {prompt}", flush=True)
    path = Path(args.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(path, rows, PROMPTS, frames=6, cell_height=96)
    print(path)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="A sheet of the cascade's outputs for a fixed list of prompts."
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--out", default=str(PICTURE))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


if __name__ == "__main__":
    main()
