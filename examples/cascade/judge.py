"""The judge: a small network that reads from a clip what is in it, and how that moves.

It is trained on renders alone (train_judge.py), whose scenes say what is true, and never sees a caption, a generated
video or the text encoder. So it is independent of what it judges.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from vdm_blocks.checkpoint import load_into, save_tensors
from vdm_blocks.data.backdrops import BACKDROPS
from vdm_blocks.data.colors import COLORS
from vdm_blocks.data.scenes import MOTIONS, SpriteScene
from vdm_blocks.data.sprites import Concept
from vdm_blocks.nn import ChannelNorm, Pointwise, SpatialConv, SpatialDownsample, TemporalConv, fold_space
from vdm_blocks.nn.axes import channels_last, from_last, to_last

NONE = "none"
ATTRIBUTES = ("object", "second", "color", "motion", "place")
"""The subject; the object beside it; the colour of whichever of them has one; the subject's motion; the place."""


def vocabulary(concepts: Sequence[Concept]) -> dict[str, tuple[str, ...]]:
    """The answers that each attribute has."""
    return {
        "object": tuple(concept.name for concept in concepts),
        "second": (NONE, *(concept.name for concept in concepts if concept.role == "prop")),
        "color": (NONE, *COLORS),
        "motion": MOTIONS,
        "place": BACKDROPS,
    }


def truth(scene: SpriteScene) -> dict[str, str]:
    """The right answers about a scene."""
    colors = [one.color for one in scene.objects if one.color is not None]
    return {
        "object": scene.subject.name,
        "second": scene.other.name if scene.other is not None else NONE,
        "color": colors[0] if colors else NONE,
        "motion": scene.motion,
        "place": scene.place,
    }


class Unit(nn.Module):
    """x + conv(silu(norm(temporal(conv(silu(norm(x))))))), the frames of pictures apart."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.conv1, self.conv2 = SpatialConv(channels, channels), SpatialConv(channels, channels)
        self.temporal = TemporalConv(channels)

    def forward(self, x: Tensor, images: Tensor | None) -> Tensor:
        h = self.temporal(self.conv1(F.silu(self.norm1(x))), images)
        out: Tensor = x + self.conv2(F.silu(self.norm2(h)))
        return out


@dataclass(frozen=True, kw_only=True)
class JudgeSpec:
    """Channels of the three levels, and the answers of each attribute."""

    answers: Mapping[str, tuple[str, ...]]
    channels: tuple[int, int, int] = (64, 96, 112)
    grid: tuple[int, int, int] = (16, 24, 40)


class Judge(nn.Module):
    """Logits for every attribute, from clips or packs of pictures.

    Shape: video (B, 3, 16, 24, 40) -> for every attribute but the motion (B, T, answers), one reading a frame; for
    the motion, (B, answers).
    """

    def __init__(self, spec: JudgeSpec) -> None:
        super().__init__()
        self.spec = spec
        first, middle, last = spec.channels
        self.stem = SpatialConv(12, first)
        self.units = nn.ModuleList(Unit(c) for c in spec.channels)
        self.shrink = nn.ModuleList([SpatialDownsample(first, middle), SpatialDownsample(middle, last)])
        self.norm = ChannelNorm(last)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(2 * last, len(spec.answers[name])) for name in ATTRIBUTES if name != "motion"}
        )
        _, height, width = spec.grid
        self.where = Pointwise(last, 16)
        self.pose = nn.Linear(16 * (height // 8) * (width // 8), 64)
        self.change = nn.Conv1d(64, 64, 5, padding=2)
        self.motion = nn.Linear(128, len(spec.answers["motion"]))

    def forward(self, video: Tensor, images: Tensor | None = None) -> dict[str, Tensor]:
        x = self.stem(channels_last(fold_space(video, 2)))
        for i, unit in enumerate(self.units):
            x = self.shrink[i - 1](x) if i else x
            x = unit(x, images)
        x = F.silu(self.norm(x))
        seen = torch.cat([x.mean((-2, -1)), x.amax((-2, -1))], dim=1).transpose(1, 2)
        logits = {name: head(seen) for name, head in self.heads.items()}
        pose = F.silu(self.pose(from_last(self.where(to_last(x))).transpose(1, 2).flatten(2)))
        change = F.silu(self.change(pose.transpose(1, 2)))
        logits["motion"] = self.motion(torch.cat([change.mean(2), change.amax(2)], dim=1))
        return logits

    @torch.no_grad()
    def read(self, video: Tensor) -> list[dict[str, str]]:
        """The likeliest answers about each clip (B, 3, T, H, W); a frame's readings are averaged over the clip.

        Raises:
            ValueError: clips on another grid.
        """
        if tuple(video.shape[2:]) != self.spec.grid:
            raise ValueError(
                f"the judge reads {self.spec.grid} frames, rows, columns; got {tuple(video.shape[2:])}"
            )
        logits = self(video)
        best = {name: (x.mean(1) if x.ndim == 3 else x).argmax(1).tolist() for name, x in logits.items()}
        answers = self.spec.answers
        return [{name: answers[name][best[name][i]] for name in ATTRIBUTES} for i in range(len(video))]

    def save(self, path: Path, notes: Mapping[str, str]) -> None:
        """Writes weights in half precision, with the answers as metadata."""
        half = {name: x.to(torch.float16) for name, x in self.state_dict().items()}
        save_tensors(path, half, {"answers": json.dumps(dict(self.spec.answers)), **notes})

    @classmethod
    def load(cls, path: str | Path) -> Judge:
        """The judge at `path`, ready to read.

        Raises:
            ValueError: no such file.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"there is no judge at {path}; examples/cascade/train_judge.py makes one")
        with safe_open(path, framework="pt") as file:
            answers = {k: tuple(v) for k, v in json.loads(file.metadata()["answers"]).items()}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        judge = cls(JudgeSpec(answers=answers))
        load_into(judge, tensors, what=str(path))
        return judge.eval()
