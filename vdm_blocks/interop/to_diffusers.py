"""A denoiser of ours where a diffusers user expects a UNet."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vdm_blocks.diffusion.predictions import V
from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["DiffusersModel", "DiffusersOutput"]


@dataclass(frozen=True)
class DiffusersOutput:
    """What diffusers' networks return: the prediction under the name `sample`."""

    sample: Tensor


class DiffusersModel(nn.Module):
    """Any denoiser as `model(sample, timestep, encoder_hidden_states=text).sample`, a v prediction.

    Guidance and thresholding that wrap the denoiser come along. The scheduler to step with is

        DDIMScheduler(num_train_timesteps=N, trained_betas=betas_of(schedule, N).tolist(),
                      prediction_type="v_prediction", clip_sample=False, timestep_spacing="trailing")

    Args:
        denoiser: takes videos (B, C, T, H, W). Timestep k is time (k + 1) / N of its schedule, which must be
            variance-preserving, for such are diffusers' schedulers.
        count: N, the scheduler's `num_train_timesteps`.
        cond: what is told besides the text that a call brings.
    """

    def __init__(self, denoiser: Denoiser, *, count: int = 1000, cond: Conditioning | None = None) -> None:
        super().__init__()
        if count < 2:
            raise ValueError(f"count is {count}; it is the scheduler's num_train_timesteps, at least 2")
        self.denoiser = denoiser
        self.count = count
        self.cond = Conditioning() if cond is None else cond

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> DiffusersOutput:
        """v at `sample` (B, C, T, H, W) and `timestep`, one number or (B,); text (B, L, D), its mask (B, L).

        Raises:
            ValueError: a timestep outside 0 .. N - 1.
        """
        k = torch.as_tensor(timestep).to(
            device="cpu", dtype=torch.float64
        )  # one wait for a device, and no more
        if bool((k < 0).any()) or bool((k > self.count - 1).any()):
            raise ValueError(f"timestep is {k.tolist()}; it must be from 0 to {self.count - 1}")
        cond = self.cond
        if encoder_hidden_states is not None:
            shape = encoder_hidden_states.shape[:-1]
            everywhere = torch.ones(shape, dtype=torch.bool, device=encoder_hidden_states.device)
            mask = everywhere if encoder_attention_mask is None else encoder_attention_mask.bool()
            cond = replace(cond, text=encoder_hidden_states, text_mask=mask)
        t = (k + 1) / self.count
        split = self.denoiser(sample, t, cond)
        return DiffusersOutput(V.target(split.x0, split.eps, *self.denoiser.schedule.alpha_sigma(t)))
