"""VideoMAE as a feature extractor, out of a local folder, through the package transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from vdm_blocks.metrics.extractor import byte_frames, digest_of
from vdm_blocks.metrics.frame_input import FrameInput

__all__ = ["VideoMAEFeatures"]


class VideoMAEFeatures:
    """The mean over all tokens of VideoMAE's last layer (arXiv 2203.12602), of whole videos.

    Distances over it answer to motion more than I3D's do (arXiv 2404.12391, which takes a VideoMAE-v2 of its own, so
    its numbers are others). Frames are prepared as `preprocessor_config.json` in the folder says: for the published
    weights the shorter side to 224 (bilinear, antialiased), the middle 224 x 224, and ImageNet's mean and deviation.
    """

    def __init__(
        self, network: nn.Module, prepare: FrameInput, *, frames: int, width: int, digest: str
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.prepare = prepare
        self.frames = frames
        self.width = width
        self.name = f"VideoMAE/{digest[:12]}"

    @classmethod
    def load(cls, folder: str | Path, *, device: torch.device | str = "cpu") -> VideoMAEFeatures:
        """Reads config.json, preprocessor_config.json and model.safetensors; nothing is fetched.

        Raises:
            ValueError: a file is missing.
            ModuleNotFoundError: the package transformers is missing.
        """
        root = Path(folder)
        prepare, digest = FrameInput.load(root), digest_of(root / "model.safetensors")
        try:
            from transformers import VideoMAEModel
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "VideoMAEFeatures needs the package transformers: pip install 'vdm-blocks[t5]'"
            ) from error
        model = VideoMAEModel.from_pretrained(root, local_files_only=True, use_safetensors=True)
        return cls(
            model.to(device),
            prepare,
            frames=int(model.config.num_frames),
            width=int(model.config.hidden_size),
            digest=digest,
        )

    @torch.no_grad()
    def __call__(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) with the network's own T (16 in the published weights) -> (B, D).

        Raises:
            ValueError: no such video, or another number of frames.
        """
        frames = byte_frames(video)
        if frames.shape[1] != self.frames:
            raise ValueError(
                f"this VideoMAE reads {self.frames} frames and got {frames.shape[1]}; cut or skip frames first"
            )
        ready = self.prepare(frames.flatten(0, 1).to(next(self.network.parameters()).device))
        states = self.network(pixel_values=ready.unflatten(0, frames.shape[:2])).last_hidden_state
        features: Tensor = states.mean(1).float().cpu()
        return features
