"""Networks and schedules of diffusers, in our own signatures.

schedule, prediction = read_scheduler(scheduler)
denoiser = ModelDenoiser(DiffusersVideoUNet(unet, schedule), schedule, prediction)
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from vdm_blocks.diffusion.predictions import EPS, X0, Prediction, V
from vdm_blocks.interop.timesteps import TimestepSchedule
from vdm_blocks.types import Conditioning

__all__ = ["DiffusersImageUNet", "DiffusersVideoUNet", "read_scheduler"]

_PREDICTIONS: dict[str, Prediction] = {"epsilon": EPS, "v_prediction": V, "sample": X0}


def read_scheduler(scheduler: Any) -> tuple[TimestepSchedule, Prediction]:
    """What a diffusers scheduler says of the model it was made for: its noise levels and what it predicts.

    Any scheduler with numbered timesteps will do: DDPM, DDIM, DPM-Solver, UniPC, PNDM. Which step rule it is
    does not matter; take one of ours.

    Raises:
        ValueError: a scheduler without `alphas_cumprod`, or with a prediction type that is not known.
    """
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None:
        raise ValueError(
            f"{type(scheduler).__name__} has no alphas_cumprod, so its timesteps are not noise levels of a "
            "variance-preserving process; give the model's DDPMScheduler or DDIMScheduler"
        )
    kind = scheduler.config.prediction_type
    if kind not in _PREDICTIONS:
        raise ValueError(f"prediction_type is {kind!r}; known are {sorted(_PREDICTIONS)}")
    return TimestepSchedule(alphas_cumprod=table), _PREDICTIONS[kind]


class DiffusersVideoUNet(nn.Module):
    """A diffusers network on (B, C, T, H, W), such as UNet3DConditionModel, as a `Network`.

    Such networks take no text mask: they read every state in `Conditioning.text`, padding as well, as they did
    in training. A sample whose text is masked out altogether gets `null_text` instead.

    Args:
        unet: called as unet(z_t, timestep, encoder_hidden_states=text).sample.
        schedule: turns a log-SNR into the timestep that the network knows.
        null_text: (L, D) states of the empty prompt, for guidance.

    Raises:
        ValueError: on a call, no text, masked-out text without `null_text`, or one noise level a frame.
    """

    null_text: Tensor | None

    def __init__(self, unet: nn.Module, schedule: TimestepSchedule, null_text: Tensor | None = None) -> None:
        super().__init__()
        self.unet = unet
        self.schedule = schedule
        self.register_buffer("null_text", null_text, persistent=False)

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """`z_t` (B, C, T, H, W) and `logsnr` (B,) to the network's own prediction."""
        if logsnr.ndim != 1:
            raise ValueError(
                f"logsnr has shape {tuple(logsnr.shape)}; this network takes one level a sample, (B,)"
            )
        timestep = self.schedule.timestep(self.schedule.time(logsnr))
        out: Tensor = self.unet(z_t, timestep, encoder_hidden_states=self._text(cond)).sample
        return out

    def _text(self, cond: Conditioning) -> Tensor:
        if cond.text is None or cond.text_mask is None or cond.text.ndim != 3:
            raise ValueError("this network needs text (B, L, D); give Conditioning(text=..., text_mask=...)")
        null = self.null_text
        if null is None:
            if not bool(cond.text_mask.any(1).all()):
                raise ValueError(
                    "a sample's text is masked out; give null_text, the states of the empty prompt"
                )
            return cond.text
        if null.shape != cond.text.shape[1:]:
            raise ValueError(
                f"null_text has shape {tuple(null.shape)} and text {tuple(cond.text.shape)}; pad both to one length"
            )
        return torch.where(cond.text_mask.any(1)[:, None, None], cond.text, null.to(cond.text))


class DiffusersImageUNet(nn.Module):
    """A diffusers network on pictures, such as UNet2DConditionModel, as a `Network` that sees each frame alone.

    A starting point for inflation, and a baseline without any idea of time. The text mask is passed on.

    Args:
        unet: called as unet(frames, timestep, encoder_hidden_states=text, encoder_attention_mask=mask).sample.
        schedule: turns a log-SNR into the timestep that the network knows.

    Raises:
        ValueError: on a call, no text.
    """

    def __init__(self, unet: nn.Module, schedule: TimestepSchedule) -> None:
        super().__init__()
        self.unet = unet
        self.schedule = schedule

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """`z_t` (B, C, T, H, W), `logsnr` (B,) or (B, T), text (B, L, D) or (B, T, L, D)."""
        if cond.text is None or cond.text_mask is None:
            raise ValueError("this network needs text; give Conditioning(text=..., text_mask=...)")
        batch, frames = z_t.shape[0], z_t.shape[2]
        levels = logsnr if logsnr.ndim == 2 else repeat(logsnr, "b -> b t", t=frames)
        text, mask = cond.text, cond.text_mask
        if text.ndim == 3:
            text, mask = repeat(text, "b l d -> b t l d", t=frames), repeat(mask, "b l -> b t l", t=frames)
        out: Tensor = self.unet(
            rearrange(z_t, "b c t h w -> (b t) c h w"),
            self.schedule.timestep(self.schedule.time(levels.flatten())),
            encoder_hidden_states=rearrange(text, "b t l d -> (b t) l d"),
            encoder_attention_mask=rearrange(mask, "b t l -> (b t) l"),
        ).sample
        video: Tensor = rearrange(out, "(b t) c h w -> b c t h w", b=batch)
        return video
