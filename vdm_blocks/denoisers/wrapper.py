"""What all wrappers around a denoiser share: they are denoisers themselves."""

from __future__ import annotations

from torch import Tensor, nn

from vdm_blocks.diffusion.predictions import eps_of
from vdm_blocks.types import Conditioning, Denoised, Denoiser, Schedule, check_denoiser

__all__ = ["DenoiserWrapper", "with_x0"]


class DenoiserWrapper(nn.Module):
    """A denoiser around another; abstract.

    The inner one may be any callable that keeps to `Denoiser`. If it is a Module it is a submodule here, so
    that `.to()`, `.eval()` and `state_dict()` reach it.

    Raises:
        ValueError: a bare network instead of a denoiser.
    """

    denoiser: Denoiser

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        check_denoiser(denoiser)
        self.denoiser = denoiser

    @property
    def schedule(self) -> Schedule:
        """The inner denoiser's schedule."""
        return self.denoiser.schedule

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """Split z_t (B, C, T, H, W) at time t, of shape (), (B,) or (B, T), into x0 and eps."""
        raise NotImplementedError


def with_x0(schedule: Schedule, z_t: Tensor, t: Tensor, x0: Tensor) -> Denoised:
    """`x0` with the eps that belongs to it at `z_t`: (z_t - alpha x0) / sigma."""
    return Denoised(x0, eps_of(z_t, x0, *schedule.alpha_sigma(t)))
