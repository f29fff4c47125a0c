"""CLIP behind one small protocol: texts and frames in, embeddings of one space out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vdm_blocks.metrics.extractor import byte_frames, digest_of
from vdm_blocks.metrics.frame_input import FrameInput

__all__ = ["CLIPEncoder", "TextFrameEncoder"]


class TextFrameEncoder(Protocol):
    """What `clip_score` and `r_precision` take their embeddings from. `name` tells the weights."""

    @property
    def name(self) -> str:
        """Network and the first digits of the weights' sha256."""
        ...

    def encode_texts(self, prompts: Sequence[str]) -> Tensor:
        """N prompts -> (N, D)."""
        ...

    def encode_frames(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) in [-1, 1] -> (B, T, D)."""
        ...


class CLIPEncoder:
    """A CLIP (arXiv 2103.00020) that `save_pretrained` of transformers wrote; embeddings are not normalised.

    Frames are prepared as `preprocessor_config.json` in the folder says: for the published weights the shorter side
    to 224 (bicubic), the middle 224 x 224, and CLIP's own mean and deviation. Imagen Video's CLIP score is frame by
    frame too (arXiv 2210.02303, section 3.4); the mean of `encode_frames` over T stands for a video in `r_precision`.
    """

    def __init__(self, network: nn.Module, tokenizer: Any, prepare: FrameInput, *, digest: str) -> None:
        self.network: Any = network.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.prepare = prepare
        self.name = f"CLIP/{digest[:12]}"

    @classmethod
    def load(cls, folder: str | Path, *, device: torch.device | str = "cpu") -> CLIPEncoder:
        """Reads config, tokenizer, preprocessor_config.json and model.safetensors; nothing is fetched.

        Raises:
            ValueError: a file is missing.
            ModuleNotFoundError: the package transformers is missing.
        """
        root = Path(folder)
        prepare, digest = FrameInput.load(root), digest_of(root / "model.safetensors")
        try:
            from transformers import AutoTokenizer, CLIPModel
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "CLIPEncoder needs the package transformers: pip install 'vdm-blocks[t5]'"
            ) from error
        tokenizer = AutoTokenizer.from_pretrained(root, local_files_only=True)
        model = CLIPModel.from_pretrained(root, local_files_only=True, use_safetensors=True)
        return cls(model.to(device), tokenizer, prepare, digest=digest)

    @torch.no_grad()
    def encode_texts(self, prompts: Sequence[str]) -> Tensor:
        """N prompts -> (N, D).

        Raises:
            ValueError: no prompts, or one that is longer than the network reads (77 tokens in the published weights).
        """
        longest = int(self.network.config.text_config.max_position_embeddings)
        check_prompts(prompts, longest, lambda prompt: len(self.tokenizer(prompt).input_ids))
        tokens = self.tokenizer(list(prompts), padding=True, return_tensors="pt").to(self.network.device)
        pooled = self.network.text_model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        ).pooler_output
        found: Tensor = self.network.text_projection(pooled).float().cpu()
        return found

    @torch.no_grad()
    def encode_frames(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) in [-1, 1] -> (B, T, D).

        Raises:
            ValueError: no such video.
        """

        def embed(ready: Tensor) -> Tensor:
            pooled = self.network.vision_model(pixel_values=ready).pooler_output
            found: Tensor = self.network.visual_projection(pooled)
            return found

        return frame_by_frame(embed, video, self.prepare, self.network.device)


def check_prompts(prompts: Sequence[str], longest: int, count: Callable[[str], int]) -> None:
    """Refuses no prompts, and one of more tokens, as `count` counts them, than the network reads."""
    if not prompts:
        raise ValueError("there are no prompts to encode")
    for prompt in prompts:
        if count(prompt) > longest:
            raise ValueError(
                f"a prompt of {count(prompt)} tokens, and CLIP reads {longest}: {prompt[:60]!r}..."
            )


def frame_by_frame(
    embed: Callable[[Tensor], Tensor], video: Tensor, prepare: FrameInput, device: torch.device
) -> Tensor:
    """What `embed` makes of each prepared frame: (B, 3, T, H, W) in [-1, 1] -> (B, T, D), float32 on the CPU."""
    frames = byte_frames(video)
    found = embed(prepare(frames.flatten(0, 1).to(device))).float().cpu()
    every: Tensor = found.unflatten(0, frames.shape[:2])
    return every
