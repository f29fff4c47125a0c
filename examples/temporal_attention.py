"""One temporal attention layer in an image model of your own, trained to see the order of frames.

The model classifies whether a bright column moves right or left. Frame by frame that cannot be told, so without the
layer it can only guess; with it, a few seconds of training are enough.

    python examples/temporal_attention.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vdm_blocks.nn import TemporalAttention, fold_frames, unfold_frames

FRAMES, SIDE = 6, 8


class MyImageModel(nn.Module):
    """Two ordinary 2-D convolutions and a head; it knows nothing of video."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.head = nn.Linear(channels, 2)


class MyVideoModel(MyImageModel):
    """The same on (B, C, T, H, W), with one layer between the convolutions."""

    def __init__(self, channels: int = 16, *, temporal: bool) -> None:
        super().__init__(channels)
        self.temporal = TemporalAttention(channels, heads=2) if temporal else None

    def forward(self, video: Tensor) -> Tensor:
        h = unfold_frames(self.first(fold_frames(video)).relu(), video.shape[2])
        if self.temporal is not None:
            h = self.temporal(h)
        h = unfold_frames(self.second(fold_frames(h)).relu(), video.shape[2])
        out: Tensor = self.head(h.mean((2, 3, 4)))
        return out


def clips(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Columns that move one step a frame around a ring, and whether they move right (1) or left (0)."""
    draw = torch.Generator().manual_seed(seed)
    right = torch.randint(2, (count,), generator=draw)
    start = torch.randint(SIDE, (count, 1), generator=draw)
    at = (start + (2 * right[:, None] - 1) * torch.arange(FRAMES)) % SIDE
    lit = nn.functional.one_hot(at, SIDE).float()  # (B, T, W)
    return lit[:, None, :, None, :].expand(-1, 1, -1, SIDE, -1).contiguous(), right


def accuracy(model: nn.Module) -> float:
    video, right = clips(256, seed=99)
    with torch.no_grad():
        return float((model(video).argmax(1) == right).float().mean())


def main() -> None:
    for temporal in (False, True):
        torch.manual_seed(0)
        model = MyVideoModel(temporal=temporal)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for step in range(150):
            video, right = clips(32, seed=step)
            nn.functional.cross_entropy(model(video), right).backward()
            optimizer.step()
            optimizer.zero_grad()
        print(
            f"{'with' if temporal else 'without'} temporal attention: {accuracy(model):.0%} of directions right"
        )


if __name__ == "__main__":
    main()
