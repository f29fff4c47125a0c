"""How a network of transformers wants its frames, read from the file that lies beside its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch.nn.functional as F
from torch import Tensor

from vdm_blocks.metrics.extractor import normalised

__all__ = ["FrameInput"]

Filter = Literal["bilinear", "bicubic"]
_FILTERS: dict[int, Filter] = {2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True, kw_only=True)
class FrameInput:
    """Resize (antialiased, in whole bytes), crop the centre, x / 255, subtract the mean, divide by the deviation.

    Args:
        size: the shorter side after resizing, the aspect kept; or (rows, columns), which does not keep it.
        crop: (rows, columns) cut from the middle; None keeps all.
        filter: of the resizing.
        mean, std: of red, green and blue.

    Raises:
        ValueError: sizes below one.
    """

    size: int | tuple[int, int]
    crop: tuple[int, int] | None
    filter: Filter
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        sides = (self.size,) if isinstance(self.size, int) else self.size
        if min(*sides, *(self.crop or (1,)), 1) < 1 or min(self.std) <= 0:
            raise ValueError(f"sizes are at least 1 and deviations above 0; got {self}")

    @classmethod
    def load(cls, folder: str | Path) -> FrameInput:
        """Reads `preprocessor_config.json` as `save_pretrained` of an image or video processor writes it.

        Raises:
            ValueError: no such file, or one that asks for something else.
        """
        path = Path(folder) / "preprocessor_config.json"
        if not path.is_file():
            raise ValueError(f"{path} does not exist; it says how the network wants its frames, copy it too")
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        size = told.get("size", 224)
        if isinstance(size, dict):
            size = size.get("shortest_edge") or (size["height"], size["width"])
        crop = told.get("crop_size")
        if isinstance(crop, int):
            crop = {"height": crop, "width": crop}
        resample = told.get("resample", 2)
        scale = told.get("rescale_factor", 1 / 255)
        if resample not in _FILTERS or abs(scale * 255 - 1) > 1e-6 or not told.get("do_normalize", True):
            raise ValueError(
                f"{path} asks for resample {resample}, rescale_factor {scale}, do_normalize "
                f"{told.get('do_normalize', True)}; known are 2 or 3, 1/255 and true"
            )
        mean, std = (tuple(float(x) for x in told[name]) for name in ("image_mean", "image_std"))
        return cls(
            size=size,
            crop=(crop["height"], crop["width"]) if crop and told.get("do_center_crop", True) else None,
            filter=_FILTERS[resample],
            mean=cast("tuple[float, float, float]", mean),
            std=cast("tuple[float, float, float]", std),
        )

    def __call__(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) float32 of whole numbers, 0 to 255 -> (N, 3, H', W').

        Raises:
            ValueError: frames that are smaller than the crop after resizing.
        """
        height, width = frames.shape[-2:]
        if isinstance(self.size, int):
            short = min(height, width)
            size = (int(self.size * height / short), int(self.size * width / short))
        else:
            size = self.size
        if size != (height, width):
            frames = F.interpolate(frames, size=size, mode=self.filter, antialias=True)
        frames = frames.clamp(0, 255).round()
        if self.crop is not None:
            rows, columns = self.crop
            top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
            if top < 0 or left < 0:
                raise ValueError(f"frames of {size} cannot be cropped to {self.crop}; resize to more")
            frames = frames[..., top : top + rows, left : left + columns]
        return normalised(frames, self.mean, self.std)
