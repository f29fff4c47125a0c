"""CLIP as open_clip keeps it: the published LAION and DataComp weights, from a local folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vdm_blocks.metrics.clip import check_prompts, frame_by_frame
from vdm_blocks.metrics.extractor import digest_of
from vdm_blocks.metrics.frame_input import Filter, FrameInput

__all__ = ["OpenCLIPEncoder"]

_CONFIG, _WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class OpenCLIPEncoder:
    """A CLIP (arXiv 2103.00020, 2212.07143) in open_clip's own files; embeddings are not normalised.

    The folder is that of a model on the hub, copied: `open_clip_config.json`, which says the towers' sizes and how
    frames are prepared, and `open_clip_model.safetensors`. The network is built by the package open_clip; nothing is
    fetched, so towers that have to be fetched by name are refused: those of timm with weights of their own, and text
    towers or tokenizers of transformers. Of open_clip's tokenizers that leaves CLIP's, whose vocabulary lies in the
    package.

    Args:
        network: with `encode_text` and `encode_image`.
        tokenizer: `encode(prompt)` -> token numbers, and `(prompts, context_length=)` -> (N, L).
        prepare: of the frames.
        longest: L, the tokens that the network reads, first and last included.
        digest: of the weights.
    """

    def __init__(
        self, network: nn.Module, tokenizer: Any, prepare: FrameInput, *, longest: int, digest: str
    ) -> None:
        self.network: Any = network.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.prepare = prepare
        self.longest = longest
        self.name = f"OpenCLIP/{digest[:12]}"

    @classmethod
    def load(cls, folder: str | Path, *, device: torch.device | str = "cpu") -> OpenCLIPEncoder:
        """Reads both files; nothing is fetched.

        Raises:
            ValueError: a file is missing, or the configuration asks for what would have to be fetched.
            ModuleNotFoundError: the package open_clip is missing.
        """
        root = Path(folder)
        if not (root / _CONFIG).is_file():
            raise ValueError(f"{root / _CONFIG} does not exist; copy the model's whole folder")
        told: dict[str, Any] = json.loads((root / _CONFIG).read_text(encoding="utf-8"))
        model = dict(told["model_cfg"])
        _require_local(model, root / _CONFIG)
        prepare = _frame_input(model["vision_cfg"], told.get("preprocess_cfg", {}), root / _CONFIG)
        digest = digest_of(root / _WEIGHTS)
        try:
            from open_clip import CLIP, CustomTextCLIP
            from open_clip.tokenizer import SimpleTokenizer
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "OpenCLIPEncoder needs the package open_clip: pip install open-clip-torch"
            ) from error
        longest = int(model["text_cfg"].get("context_length", 77))
        network = (CustomTextCLIP if model.pop("custom_text", False) else CLIP)(**model)
        network.load_state_dict(load_file(root / _WEIGHTS))
        tokenizer = SimpleTokenizer(context_length=longest)
        return cls(network.float().to(device), tokenizer, prepare, longest=longest, digest=digest)

    @torch.no_grad()
    def encode_texts(self, prompts: Sequence[str]) -> Tensor:
        """N prompts -> (N, D).

        Raises:
            ValueError: no prompts, or one that is longer than the network reads (77 tokens in the published weights).
        """
        check_prompts(prompts, self.longest, lambda prompt: len(self.tokenizer.encode(prompt)) + 2)
        tokens = self.tokenizer(list(prompts), context_length=self.longest)
        found: Tensor = self.network.encode_text(tokens.to(self._device())).float().cpu()
        return found

    @torch.no_grad()
    def encode_frames(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) in [-1, 1] -> (B, T, D).

        Raises:
            ValueError: no such video.
        """
        return frame_by_frame(self.network.encode_image, video, self.prepare, self._device())

    def _device(self) -> torch.device:
        return cast("nn.Module", self.network).get_parameter("logit_scale").device


def _require_local(model: dict[str, Any], path: Path) -> None:
    """Refuses what open_clip would look for on the hub, before anything is built."""
    vision, text = model["vision_cfg"], model["text_cfg"]
    wanted = [key for key in ("hf_model_name", "hf_tokenizer_name") if text.get(key)]
    if vision.get("timm_model_pretrained"):
        wanted.append("timm_model_pretrained")
    if "multimodal_cfg" in model:
        wanted.append("multimodal_cfg")
    if wanted:
        raise ValueError(
            f"{path} asks for {', '.join(wanted)}, which this reader does not build without a network; take a model "
            "whose towers are open_clip's own, or transformers' files of the same model with CLIPEncoder"
        )


def _frame_input(vision: dict[str, Any], told: dict[str, Any], path: Path) -> FrameInput:
    """What `preprocess_cfg` says, or open_clip's defaults: the shorter side, bicubic, CLIP's mean and deviation."""
    size = vision.get("image_size", 224)
    side = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    mode, filter_ = told.get("resize_mode", "shortest"), told.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash") or filter_ not in ("bicubic", "bilinear"):
        raise ValueError(
            f"{path} asks for resize_mode {mode!r} and interpolation {filter_!r}; known are shortest or squash, and "
            "bicubic or bilinear"
        )
    if mode == "shortest" and side[0] != side[1]:
        raise ValueError(f"{path} asks for resize_mode 'shortest' and pictures of {side}; known are squares")
    mean, std = (tuple(float(x) for x in told.get(k, v)) for k, v in (("mean", _MEAN), ("std", _STD)))
    return FrameInput(
        size=side if mode == "squash" else side[0],
        crop=None if mode == "squash" else side,
        filter=cast("Filter", filter_),
        mean=cast("tuple[float, float, float]", mean),
        std=cast("tuple[float, float, float]", std),
    )
