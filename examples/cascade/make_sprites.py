"""Build the sprite pack that the cascade's synthetic clips are made of.

    python make_sprites.py --out sprites                      # fetches the art with npm
    python make_sprites.py --out sprites --source FOLDER      # or reads packages unpacked below FOLDER

The art is Microsoft's Fluent emoji, animated (MIT), as packed for npm by LobeHub in
`@lobehub/fluent-emoji-anim-1` to `-4`, files named by code point. Of each chosen one we keep 16 frames spread
evenly over its loop, cropped to the union of their alpha boxes, 128 x 128 RGBA, in one WebP atlas of 4 x 4
tiles (a still picture: one tile), and say in `index.json` what it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

PACKAGES = tuple(f"@lobehub/fluent-emoji-anim-{i}@1.0.0" for i in (1, 2, 3, 4))
FRAMES = 16
SIZE = 128
MARGIN = 0.03

# name: (code point, the way it faces)
ACTORS = {
    "penguin": ("1f427", "front"),
    "dog": ("1f436", "front"),
    "cat": ("1f408", "left"),
    "fox": ("1f98a", "front"),
    "lion": ("1f981", "front"),
    "tiger": ("1f42f", "front"),
    "frog": ("1f438", "front"),
    "bear": ("1f43b", "front"),
    "panda": ("1f43c", "front"),
    "koala": ("1f428", "front"),
    "rabbit": ("1f407", "left"),
    "elephant": ("1f418", "left"),
    "giraffe": ("1f992", "left"),
    "horse": ("1f434", "left"),
    "cow": ("1f404", "left"),
    "pig": ("1f416", "left"),
    "sheep": ("1f411", "left"),
    "monkey": ("1f412", "left"),
    "raccoon": ("1f99d", "front"),
    "owl": ("1f989", "front"),
    "duck": ("1f986", "left"),
    "flamingo": ("1f9a9", "left"),
    "parrot": ("1f99c", "left"),
    "turtle": ("1f422", "left"),
    "dinosaur": ("1f996", "left"),
    "whale": ("1f433", "left"),
    "fish": ("1f420", "left"),
    "octopus": ("1f419", "front"),
    "crab": ("1f980", "front"),
    "snail": ("1f40c", "left"),
    "butterfly": ("1f98b", "front"),
    "bee": ("1f41d", "left"),
    "ladybug": ("1f41e", "front"),
    "kangaroo": ("1f998", "left"),
    "zebra": ("1f993", "left"),
    "unicorn": ("1f984", "left"),
    "dragon": ("1f409", "left"),
    "rocket": ("1f680", "right"),
    "helicopter": ("1f681", "left"),
    "airplane": ("2708-fe0f", "right"),
    "spaceship": ("1f6f8", "front"),
    "taxi": ("1f695", "left"),
    "bus": ("1f68c", "left"),
    "fire truck": ("1f692", "left"),
    "tractor": ("1f69c", "left"),
    "train": ("1f682", "left"),
    "robot": ("1f916", "front"),
    "ghost": ("1f47b", "front"),
    "snowman": ("2603-fe0f", "front"),
    "pumpkin": ("1f383", "front"),
    "teddy bear": ("1f9f8", "front"),
    "alarm clock": ("23f0", "front"),
}
PROPS = {
    "umbrella": "2602-fe0f",
    "heart": "2764-fe0f",
    "star": "2b50",
    "balloon": "1f388",
    "t-shirt": "1f455",
    "backpack": "1f392",
    "diamond": "1f48e",
    "bucket": "1faa3",
    "teapot": "1fad6",
    "dress": "1f457",
    "bell": "1f514",
    "cap": "1f9e2",
    "bow": "1f380",
    "gift": "1f381",
    "car": "1f697",
    "flower": "1f338",
    "boxing glove": "1f94a",
    "key": "1f511",
}


def fetch_packages(folder: Path) -> None:
    """Download and unpack the npm packages below `folder`."""
    for number, package in enumerate(PACKAGES):
        run = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True
        )
        with tarfile.open(folder / run.stdout.strip().splitlines()[-1]) as archive:
            archive.extractall(folder / str(number), filter="data")


def read_loop(path: Path) -> tuple[Tensor, float]:
    """Frames (16 or 1, 4, h, w), premultiplied in [0, 1], and the seconds that one loop lasts."""
    frames, period = [], 0.0
    with Image.open(path) as image:
        count = getattr(image, "n_frames", 1)
        keep = {i * count // FRAMES for i in range(FRAMES)} if count > 1 else {0}
        for i in range(count):
            image.seek(i)
            image.load()
            period += float(image.info.get("duration", 0)) / 1000
            if i in keep:
                rgba = torch.frombuffer(bytearray(image.convert("RGBA").tobytes()), dtype=torch.uint8)
                frames.append(rgba.view(image.height, image.width, 4).permute(2, 0, 1).float() / 255)
    video = torch.stack(frames)
    return torch.cat([video[:, :3] * video[:, 3:], video[:, 3:]], dim=1), period


def fit(video: Tensor) -> Tensor:
    """Crop to the union of the alpha boxes, square it with a margin, resize to SIZE; all premultiplied."""
    alpha = video[:, 3].amax(dim=0) > 0.03
    rows, columns = alpha.any(dim=1).nonzero().flatten(), alpha.any(dim=0).nonzero().flatten()
    top, left = int(rows[0]), int(columns[0])
    video = video[..., top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    height, width = video.shape[-2:]
    side = round(max(height, width) * (1 + 2 * MARGIN))
    dy, dx = side - height, side - width
    video = pad(video, (dx // 2, dx - dx // 2, dy // 2, dy - dy // 2))
    return interpolate(video, size=(SIZE, SIZE), mode="bilinear", antialias=True).clamp(0, 1)


def atlas(video: Tensor) -> Image.Image:
    """One straight-alpha RGBA picture of 4 x 4 tiles (or of one)."""
    straight = torch.cat([video[:, :3] / video[:, 3:].clamp(min=1 / 255), video[:, 3:]], dim=1).clamp(0, 1)
    side = 4 if len(video) == FRAMES else 1
    tiles = (
        straight.view(side, side, 4, SIZE, SIZE).permute(0, 3, 1, 4, 2).reshape(side * SIZE, side * SIZE, 4)
    )
    data = bytes((tiles * 255).round().to(torch.uint8).flatten().tolist())
    return Image.frombytes("RGBA", (side * SIZE, side * SIZE), data)


def build(source: Path, out: Path) -> None:
    files = {path.stem: path for path in sorted(source.rglob("*.webp"))}
    wanted = [(name, code, facing, "actor") for name, (code, facing) in ACTORS.items()]
    wanted += [(name, code, "front", "prop") for name, code in PROPS.items()]
    missing = [f"{name} ({code}.webp)" for name, code, _, _ in wanted if code not in files]
    if missing:
        raise SystemExit(
            f"{source} lacks {', '.join(missing)}: it should hold the unpacked {', '.join(PACKAGES)}"
        )
    out.mkdir(parents=True, exist_ok=True)
    sprites = []
    for name, code, facing, role in wanted:
        video, period = read_loop(files[code])
        target = out / f"{name.replace(' ', '_')}.webp"
        atlas(fit(video)).save(target, quality=84, method=6)
        sprites.append(
            {
                "name": name,
                "article": "an" if name[0] in "aeiou" else "a",
                "role": role,
                "facing": facing,
                "code_point": code,
                "frames": len(video),
                "period": round(period, 3),
                "file": target.name,
                "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
            }
        )
    index = {
        "size": SIZE,
        "frames": FRAMES,
        "source": list(PACKAGES),
        "licence": "MIT, see NOTICE",
        "sprites": sprites,
    }
    (out / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    print(f"{len(sprites)} sprites, {sum(p.stat().st_size for p in out.iterdir()) / 1e6:.2f} MB in {out}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "sprites")
    parser.add_argument(
        "--source", type=Path, help="folder below which the packages are unpacked; default: npm"
    )
    arguments = parser.parse_args()
    if arguments.source is not None:
        build(arguments.source, arguments.out)
    else:
        with tempfile.TemporaryDirectory() as folder:
            fetch_packages(Path(folder))
            build(Path(folder), arguments.out)


if __name__ == "__main__":
    main()
