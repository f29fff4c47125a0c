"""A small video-text encoder: clips and captions in one space, where a clip lies near what is true of it.

Its video tower begins as the judge's (judge.py), whose lowest level stays as it was; its text tower is a head of fifty
thousand parameters on MiniLM's frozen token states. Trained on captioned renders by train_videotext.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from judge import Unit
from safetensors import safe_open
from torch import Tensor, nn

from vdm_blocks.checkpoint import file_hash, load_into, save_tensors
from vdm_blocks.conditioning.text import TextEncoder
from vdm_blocks.nn import ChannelNorm, Pointwise, SpatialConv, SpatialDownsample, fold_space
from vdm_blocks.nn.axes import channels_last, from_last, to_last


@dataclass(frozen=True, kw_only=True)
class VideoTextSpec:
    """Sizes of the two towers.

    Attributes:
        channels: of the video tower's three levels.
        width: D, of an embedding.
        text: the length of a text encoder's token state.
        queries: how many weighted means of the token states are taken.
        value: channels of each.
        grid: frames, rows and columns that a clip has.
    """

    channels: tuple[int, int, int] = (64, 96, 112)
    width: int = 96
    text: int = 384
    queries: int = 4
    value: int = 64
    grid: tuple[int, int, int] = (16, 24, 40)


class VideoTower(nn.Module):
    """(B, 3, T, H, W) -> (B, T, D), every frame seen in its clip; the pictures of a pack are seen apart."""

    def __init__(self, spec: VideoTextSpec) -> None:
        super().__init__()
        first, middle, last = spec.channels
        self.stem = SpatialConv(12, first)
        self.units = nn.ModuleList(Unit(c) for c in spec.channels)
        self.shrink = nn.ModuleList([SpatialDownsample(first, middle), SpatialDownsample(middle, last)])
        self.norm = ChannelNorm(last)
        self.appearance = nn.Linear(2 * last, spec.width)
        _, height, width = spec.grid
        self.where = Pointwise(last, 16)
        self.pose = nn.Linear(16 * (height // 8) * (width // 8), 64)
        self.change = nn.Conv1d(64, 64, 5, padding=2)
        self.motion = nn.Linear(128, spec.width)

    def forward(self, video: Tensor, images: Tensor | None = None) -> Tensor:
        x = self.stem(channels_last(fold_space(video, 2)))
        for i, unit in enumerate(self.units):
            x = self.shrink[i - 1](x) if i else x
            x = unit(x, images)
        x = F.silu(self.norm(x))
        seen = torch.cat([x.mean((-2, -1)), x.amax((-2, -1))], dim=1).transpose(1, 2)
        pose = F.silu(self.pose(from_last(self.where(to_last(x))).transpose(1, 2).flatten(2)))
        change = F.silu(self.change(pose.transpose(1, 2)))
        motion = self.motion(torch.cat([change.mean(2), change.amax(2)], dim=1))[:, None]
        if images is not None:
            motion = motion * ~images[:, None, None]
        out: Tensor = self.appearance(seen) + motion
        return out

    def begin_as_judge(self, path: Path) -> None:
        """Takes the judge's weights for all that the two share, and keeps the lowest level at them.

        Raises:
            ValueError: no such file.
        """
        if not path.is_file():
            raise ValueError(f"there is no judge at {path}; examples/cascade/train_judge.py makes one")
        own = self.state_dict()
        with safe_open(path, framework="pt") as file:
            shared = [n for n in file.keys() if n in own and not n.startswith("motion.")]  # noqa: SIM118
            own |= {name: file.get_tensor(name).float() for name in shared}
        self.load_state_dict(own)
        for module in (self.stem, self.units[0]):
            module.requires_grad_(False)


class TextTower(nn.Module):
    """Token states (N, L, 384), mask (N, L) -> (N, D): as many weighted means of the states as there are queries."""

    def __init__(self, spec: VideoTextSpec) -> None:
        super().__init__()
        self.query = nn.Linear(spec.text, spec.queries)
        self.value = nn.Linear(spec.text, spec.value)
        self.out = nn.Linear(spec.queries * spec.value, spec.width)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        weight = self.query(states).masked_fill(~mask[..., None], -torch.inf).softmax(1)
        pooled = weight.transpose(1, 2) @ F.silu(self.value(states))
        out: Tensor = self.out(pooled.flatten(1))
        return out


class VideoText(nn.Module):
    """Both towers, and the sharpness at which they were trained to agree."""

    def __init__(self, spec: VideoTextSpec) -> None:
        super().__init__()
        self.spec = spec
        self.video = VideoTower(spec)
        self.text = TextTower(spec)
        self.sharpness = nn.Parameter(torch.tensor(2.5))

    @torch.no_grad()
    def embed_frames(self, video: Tensor) -> Tensor:
        """(B, T, D): every frame of clips (B, 3, T, H, W), in the light of the others; for `clip_score`.

        Raises:
            ValueError: clips on another grid.
        """
        if tuple(video.shape[2:]) != self.spec.grid:
            raise ValueError(
                f"the video-text encoder takes {self.spec.grid} frames, rows, columns; got {tuple(video.shape[2:])}"
            )
        out: Tensor = self.video(video)
        return out

    def embed(self, video: Tensor) -> Tensor:
        """(B, D): clips as wholes, the means of their frames; for `r_precision` and distances between sets."""
        return self.embed_frames(video).mean(1)

    @torch.no_grad()
    def embed_captions(self, captions: Sequence[str], encoder: TextEncoder) -> Tensor:
        """(N, D), one caption at a time, so that no caption's embedding depends on its company."""
        rows = []
        for caption in captions:
            encoded = encoder.encode([caption])
            rows.append(self.text(encoded.states.float(), encoded.mask))
        return torch.cat(rows)

    def save(self, path: Path, notes: Mapping[str, str]) -> None:
        """Writes weights in half precision, with notes as metadata."""
        half = {name: x.to(torch.float16).contiguous() for name, x in self.state_dict().items()}
        save_tensors(path, half, dict(notes))

    @classmethod
    def load(cls, path: Path) -> VideoText:
        """The encoder at `path`, ready to embed.

        Raises:
            ValueError: no such file.
        """
        if not path.is_file():
            raise ValueError(f"there is no encoder at {path}; examples/cascade/train_videotext.py makes one")
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        model = cls(VideoTextSpec())
        load_into(model, tensors, what=str(path))
        return model.eval()


def record(path: Path) -> dict[str, dict[str, float]]:
    """The retrieval accuracy that a trained encoder's file states of itself.

    Raises:
        ValueError: it states none.
    """
    with safe_open(path, framework="pt") as file:
        notes = file.metadata() or {}
    if "retrieval" not in notes:
        raise ValueError(
            f"{path} states no accuracy of its own; examples/cascade/train_videotext.py writes it there"
        )
    found: dict[str, dict[str, float]] = json.loads(notes["retrieval"])
    return found


class VideoTextEncoder:
    """Both towers behind the protocol of the metrics: captions and frames in, embeddings of one space out.

    Attributes:
        name: of the network and its weights.
    """

    def __init__(self, model: VideoText, text: TextEncoder, *, digest: str) -> None:
        self.model, self.text = model, text
        self.name = f"VideoText/{digest[:12]}"

    @classmethod
    def load(cls, path: Path, text: TextEncoder) -> VideoTextEncoder:
        """The encoder at `path`, for captions read by `text`.

        Raises:
            ValueError: no such file.
        """
        model = VideoText.load(path)
        return cls(model, text, digest=file_hash(path))

    def encode_texts(self, prompts: Sequence[str]) -> Tensor:
        """N captions -> (N, D)."""
        return self.model.embed_captions(prompts, self.text)

    def encode_frames(self, video: Tensor) -> Tensor:
        """(B, 3, 16, 24, 40) in [-1, 1] -> (B, 16, D)."""
        return self.model.embed_frames(video)
