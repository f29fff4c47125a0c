"""Sampling what is missing of a video, or above its resolution, with a model that was not trained for it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vdm_blocks.denoisers.wrapper import DenoiserWrapper, with_x0
from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.types import Conditioning, Denoised, Denoiser

__all__ = ["ReconstructionGuidance", "Replacement"]


class Replacement(DenoiserWrapper):
    """x0 is `video` where it is `known`, and what the denoiser says elsewhere; eps follows.

    With an ancestral rule the known part of z then runs through draws from its own q(z_s | z_t, x0), which is the
    replacement method (arXiv 2204.03458, section 3.1, and 2011.13456, appendix I.2). By itself it does not make the
    unknown part agree with the known one: put it around `ReconstructionGuidance`.

    Args:
        denoiser: the denoiser.
        video: (B, C, T, H, W); what it holds where it is not known does not matter.
        known: bool, a shape that broadcasts to the video's; (1, 1, T, 1, 1) says which frames are known.

    Raises:
        ValueError: a mask that is not bool or does not broadcast.
    """

    video: Tensor
    known: Tensor

    def __init__(self, denoiser: Denoiser, video: Tensor, known: Tensor) -> None:
        super().__init__(denoiser)
        _check_known(video, known)
        self.register_buffer("video", video, persistent=False)
        self.register_buffer("known", known, persistent=False)

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """The split of z_t at t, of shape (), (B,) or (B, T)."""
        x0 = self.denoiser(z_t, t, cond).x0
        return with_x0(self.schedule, z_t, t, torch.where(self.known, self.video.to(x0.dtype), x0))


class ReconstructionGuidance(DenoiserWrapper):
    """x0 <- x0 - (weight alpha_t / 2) grad_z ||measured - measure(x0(z_t))||^2 (arXiv 2204.03458, eq. 7 and 8).

    To extend a clip or fill in frames, measure those that are known and wrap `Replacement` around it; to
    super-resolve with an unconditional model, `measure` is the downsampling. The norm is a sum over each sample;
    weight 1 takes what is measured for a Gaussian of deviation sigma / alpha around the estimate. Needs a denoiser
    that can be differentiated, and the memory for it, under `torch.no_grad` too. Several may be nested, one around the
    other.

    Args:
        denoiser: the denoiser.
        measured: what is known of the video, `measure`'s value at it.
        measure: a differentiable map from x0 (B, C, T, H, W) to a tensor of `measured`'s shape.
        weight: w_r; 50 on BAIR and 9 on Kinetics there.

    Raises:
        ValueError: a negative weight; on a call, a measurement of another shape.
    """

    measured: Tensor

    def __init__(
        self, denoiser: Denoiser, measured: Tensor, measure: Callable[[Tensor], Tensor], weight: float
    ) -> None:
        super().__init__(denoiser)
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight is {weight}; it must be finite, and 0, off, or more")
        self.register_buffer("measured", measured, persistent=False)
        self.measure = measure
        self.weight = weight

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """The guided split of z_t at t, of shape (), (B,) or (B, T)."""
        if self.weight == 0:
            return self.denoiser(z_t, t, cond)
        nested = torch.is_grad_enabled() and z_t.requires_grad  # somebody differentiates through this
        with torch.enable_grad():
            z = z_t if nested else z_t.detach().requires_grad_()
            x0 = self.denoiser(z, t, cond).x0
            got = self.measure(x0)
            if got.shape != self.measured.shape:
                raise ValueError(
                    f"measure gave shape {tuple(got.shape)}, but measured has {tuple(self.measured.shape)}; the two "
                    "are compared element by element and must be equal"
                )
            loss = (self.measured.to(got.dtype) - got).square().sum()
            (gradient,) = torch.autograd.grad(loss, z, create_graph=nested)
        alpha, _ = self.schedule.alpha_sigma(t)
        x0 = x0 if nested else x0.detach()
        return with_x0(self.schedule, z_t, t, x0 - expand_level(self.weight * alpha / 2, z_t) * gradient)


def _check_known(video: Tensor, known: Tensor) -> None:
    if known.dtype != torch.bool:
        raise ValueError(f"known is {known.dtype}; it must be torch.bool, True where the video is known")
    try:
        fits = torch.broadcast_shapes(video.shape, known.shape) == video.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"known has shape {tuple(known.shape)}, which does not broadcast to the video's {tuple(video.shape)}; "
            "for known frames give (1, 1, T, 1, 1)"
        )
