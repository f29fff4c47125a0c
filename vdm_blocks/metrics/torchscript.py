"""Inception and I3D, from the TorchScript files that published FID and FVD numbers are made with."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self

from vdm_blocks.metrics.extractor import byte_frames, digest_of

__all__ = ["I3DFeatures", "InceptionFeatures"]

I3D_FRAMES = 10


class _FromFile:
    """A network in a TorchScript file, whose name holds the first digits of the file's sha256."""

    network_name: ClassVar[str]

    def __init__(self, network: Any, *, digest: str, device: torch.device | str = "cpu") -> None:
        self.network = network
        self.device = torch.device(device)
        self.name = f"{self.network_name}/{digest[:12]}"

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> Self:
        """Reads the TorchScript file.

        Raises:
            ValueError: no such file, or one that is no TorchScript.
        """
        digest = digest_of(Path(path))
        return cls(_load(Path(path), device), digest=digest, device=device)


class InceptionFeatures(_FromFile):
    """The 2048 numbers before the last layer of Inception-v3, of every frame: what FID and KID are made with.

    The file is `inception-2015-12-05.pt`, the TorchScript translation of TensorFlow's graph (arXiv 1706.08500; used
    by arXiv 2006.06676). It takes bytes, and does the resizing to 299 x 299 (bilinear, corners not aligned) and
    (x - 128) / 128 itself, so frames go in as they are.
    """

    network_name = "Inception-2015-12-05"
    width = 2048

    @torch.no_grad()
    def __call__(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B T, 2048).

        Raises:
            ValueError: no such video.
        """
        frames = byte_frames(video).flatten(0, 1).to(torch.uint8)
        return _checked(self.network(frames.to(self.device), return_features=True), self.width)


class I3DFeatures(_FromFile):
    """The 400 logits of I3D trained on Kinetics-400, of whole videos: what FVD is made with (arXiv 1812.01717).

    The file is `i3d_torchscript.pt`, the translation of the TensorFlow Hub module (arXiv 2112.14683). As in the FVD
    code, each frame is resized to 224 x 224 (bilinear, not antialiased, the aspect not kept) and x / 127.5 - 1.
    """

    network_name = "I3D-Kinetics-400"
    width = 400

    @torch.no_grad()
    def __call__(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) of ten frames or more -> (B, 400).

        Raises:
            ValueError: no such video, or fewer frames.
        """
        frames = byte_frames(video, least=I3D_FRAMES).to(self.device)
        small = F.interpolate(frames.flatten(0, 1), size=(224, 224), mode="bilinear", align_corners=False)
        clip = (small / 127.5 - 1).unflatten(0, frames.shape[:2]).transpose(1, 2)
        found = self.network(clip, rescale=False, resize=False, return_features=True)
        return _checked(found, self.width)


def _load(path: Path, device: torch.device | str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.load.*", category=DeprecationWarning)
            return torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise ValueError(f"{path} is no TorchScript file: {str(error).splitlines()[0]}") from error


def _checked(features: Tensor, width: int) -> Tensor:
    if features.ndim != 2 or features.shape[1] != width:
        raise ValueError(
            f"the file's features are {tuple(features.shape)}, not (N, {width}); it holds another network"
        )
    return features.float().cpu()
