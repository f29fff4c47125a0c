"""What a video is worth: fidelity to a reference, distances between sets, consistency over time."""

from vdm_blocks.metrics.quality import psnr, ssim

__all__ = ["psnr", "ssim"]
