"""A super-resolution network that only has to say what its two inputs do not."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.types import Conditioning, Network

__all__ = ["ResidualNetwork"]


class ResidualNetwork(nn.Module):
    """v = linear(z_t, y') + network(z_t, logsnr, cond) / sqrt(D), where `linear` is the best linear estimate.

    A super-resolution stage sees the video twice: z = alpha x + sigma eps, and the upsampled, augmented video of the
    stage before, y' = alpha' (x - d) + sigma' eps', which lacks the detail d. For x ~ N(0, data_std^2) and
    d ~ N(0, detail_std^2) at each pixel, all variance preserving, the posterior mean of v = alpha eps - sigma x is

        linear = (alpha sigma (R - 1) z - sigma k y') / D,    D = alpha^2 + sigma^2 R,
        k = alpha' / (sigma'^2 + alpha'^2 detail_std^2),      R = 1 / data_std^2 + alpha' k,

    and 1 / D its variance, so the network's target has unit variance at every pair of levels (the idea of
    arXiv 2206.00364, appendix B.6, with a second observation). A network whose last layer starts at zero then starts
    as that estimate, rather than learning to copy y'. Without `cond.video`, and with data_std = 1, it is the plain
    network.

    Args:
        network: of any make, trained as a v-prediction through this wrapper, and to be sampled through it.
        data_std: of the video's values, around 0.5 for what lies in [-1, 1].
        detail_std: of what the upsampled video lacks.

    Shape: as the network's. The first channels of `cond.video` are the video; more, such as a mask, may follow.

    Raises:
        ValueError: a standard deviation outside [1e-6, 1e6]; on a call, a video without `aug_logsnr`.
    """

    def __init__(self, network: nn.Module, *, data_std: float = 0.5, detail_std: float = 0.1) -> None:
        super().__init__()
        if not (1e-6 <= data_std <= 1e6 and 1e-6 <= detail_std <= 1e6):
            raise ValueError(
                f"data_std is {data_std} and detail_std {detail_std}; deviations must be positive, from 1e-6 to 1e6, "
                "for example 0.5 and 0.1"
            )
        self.network = network
        self.data_std = data_std
        self.detail_std = detail_std

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """The v-prediction at `logsnr`, (B,) or (B, T)."""
        out = cast("Network", self.network)(z_t, logsnr, cond)
        alpha, sigma, k, r, d = self._levels(logsnr, cond)
        out = out * _level(d.rsqrt(), z_t) + _level(alpha * sigma * (r - 1) / d, z_t) * z_t
        if cond.video is None:
            return out
        return out - _level(sigma * k / d, z_t) * cond.video[:, : z_t.shape[1]].to(z_t.dtype)

    def precision(self, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """D, of logsnr's shape: one over the variance that the linear estimate leaves in v.

        A v loss weighted with it is the plain loss of the network's own output, so that no pair of levels drowns
        the others; unweighted, the ones at which the stage is sampled count for a hundredth of the total.
        """
        return self._levels(logsnr, cond)[-1].to(logsnr.dtype)

    def _levels(self, logsnr: Tensor, cond: Conditioning) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Alpha, sigma, k, R and D of the formula."""
        logsnr = logsnr.double()
        alpha, sigma = torch.sigmoid(logsnr).sqrt(), torch.sigmoid(-logsnr).sqrt()
        k = aug_alpha = torch.zeros_like(logsnr)
        if cond.video is not None:
            if cond.aug_logsnr is None:
                raise ValueError(
                    "cond.video comes without aug_logsnr; say at which log-SNR it was noised (20 for not at all)"
                )
            aug = cond.aug_logsnr.double()
            aug = aug[:, None] if logsnr.ndim == 2 and aug.ndim == 1 else aug
            aug_alpha = torch.sigmoid(aug).sqrt()
            k = aug_alpha / (torch.sigmoid(-aug) + aug_alpha.square() * self.detail_std**2)
        r = 1 / self.data_std**2 + aug_alpha * k
        return alpha, sigma, k, r, alpha.square() + sigma.square() * r


def _level(level: Tensor, like: Tensor) -> Tensor:
    return expand_level(level, like).to(like.dtype)
