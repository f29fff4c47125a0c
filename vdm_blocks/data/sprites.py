"""The pack of small pictures that sprite scenes are made of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vdm_blocks.data.tint import split_tint
from vdm_blocks.video.extras import import_pillow


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One thing that a caption can name.

    Args:
        name: the noun.
        role: "actor" appears as it was drawn; "prop" appears in a colour that the caption says.
        facing: "left", "right" or "front", the way its picture looks.
        period: seconds that its own animation lasts, 0 for a still picture.
    """

    name: str
    role: str
    facing: str = "front"
    period: float = 0.0

    def __post_init__(self) -> None:
        if self.role not in ("actor", "prop") or self.facing not in ("left", "right", "front"):
            raise ValueError(
                f"{self.name!r}: role is 'actor' or 'prop' and facing 'left', 'right' or 'front', "
                f"got {self.role!r} and {self.facing!r}"
            )


@dataclass(frozen=True)
class SpritePack:
    """Small looped pictures with transparency, ready to be drawn at any size.

    Args:
        concepts: K of them.
        pictures: uint8 (K, F, 5, S, S): red, green, blue premultiplied by alpha; alpha; and how much of the
            colour that the caption says is to be added there (0 everywhere for actors).
            Recolouring is linear, rgb + tint * colour, so it commutes with averaging.
    """

    concepts: tuple[Concept, ...]
    pictures: Tensor

    def __post_init__(self) -> None:
        size = self.pictures.shape[-1]
        if (
            self.pictures.dim() != 5
            or self.pictures.shape[0] != len(self.concepts)
            or self.pictures.shape[2] != 5
        ):
            raise ValueError(
                f"pictures of {len(self.concepts)} concepts are (K, F, 5, S, S), "
                f"got {tuple(self.pictures.shape)}"
            )
        if size < 16 or size & (size - 1):
            raise ValueError(f"sprite sizes are powers of two from 16 on, got {size}")

    @classmethod
    def load(cls, folder: str | Path) -> SpritePack:
        """Read the pack that `index.json` in the folder describes. Needs the extra `vdm-blocks[video]`.

        Raises:
            ValueError: when the index is missing, or a file differs from its sha256.
        """
        pillow = import_pillow()
        folder = Path(folder)
        if not (folder / "index.json").is_file():
            raise ValueError(
                f"no sprite pack at {folder}: index.json is missing; "
                "examples/cascade/make_sprites.py makes one"
            )
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        size, frames = int(index["size"]), int(index["frames"])
        concepts, pictures = [], []
        for entry in index["sprites"]:
            path = folder / entry["file"]
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
                raise ValueError(
                    f"{path} is missing or is not the file that index.json describes; make the pack again"
                )
            with pillow.open(path) as image:
                data = torch.frombuffer(bytearray(image.convert("RGBA").tobytes()), dtype=torch.uint8)
                rows, columns = image.height // size, image.width // size
            tiles = data.view(rows, size, columns, size, 4).permute(0, 2, 4, 1, 3).reshape(-1, 4, size, size)
            five = split_tint(tiles.float() / 255, tinted=entry["role"] == "prop")
            pictures.append((five * 255).round().to(torch.uint8).expand(frames, -1, -1, -1))
            concepts.append(
                Concept(
                    name=entry["name"], role=entry["role"], facing=entry["facing"], period=entry["period"]
                )
            )
        return cls(tuple(concepts), torch.stack(pictures))

    @cached_property
    def levels(self) -> tuple[Tensor, ...]:
        """`pictures`, and its area averages at half the size and half again down to 16, finest first."""
        levels = [self.pictures]
        while levels[-1].shape[-1] > 16:
            flat = levels[-1].flatten(0, 1)
            smaller = torch.cat(
                [avg_pool2d(part.float(), 2).round().to(torch.uint8) for part in torch.split(flat, 256)]
            )
            levels.append(smaller.view(*self.pictures.shape[:3], *smaller.shape[-2:]))
        return tuple(levels)

    @cached_property
    def number(self) -> dict[str, int]:
        """Which row of `pictures` a name means."""
        return {concept.name: i for i, concept in enumerate(self.concepts)}

    def named(self, role: str) -> tuple[Concept, ...]:
        """The concepts of a role, in order."""
        return tuple(concept for concept in self.concepts if concept.role == role)
