"""Denoisers: a network made one, and the wrappers with a denoiser's own signature."""

from vdm_blocks.denoisers.model import ModelDenoiser

__all__ = ["ModelDenoiser"]
