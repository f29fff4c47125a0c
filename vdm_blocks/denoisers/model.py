"""A network, a noise schedule and a prediction: together a denoiser."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from vdm_blocks.diffusion.broadcast import level_of_batch
from vdm_blocks.diffusion.predictions import Prediction, V, check_prediction
from vdm_blocks.diffusion.schedules import CosineSchedule, NoiseSchedule, check_time
from vdm_blocks.diffusion.values import check_value
from vdm_blocks.types import Conditioning, Denoised, Network

__all__ = ["ModelDenoiser"]


class ModelDenoiser(nn.Module):
    """z_t and t to (x0, eps), through a network of any make.

    The network is called as `network(z_t, logsnr, cond)` with logsnr float32, (B,) or (B, T), and answers with a
    tensor of z_t's shape, which `prediction` reads.

    Args:
        network: an `nn.Module`, so that its parameters are found. What compiles or shards goes around it, not
            around the denoiser: losses call the network through `output`.
        schedule: what `t` means; a learned one is a Module and trains along.
        prediction: what the network puts out: V, X0, EPS, FLOW, SCORE or EDM.
        reuse_output: without gradients, write eps over the network's output, so that z_t, the output and one more
            video are all that is held. Not for networks that keep what they put out, in a cache for instance.

    Raises:
        ValueError: a network that is no Module, or a prediction from which x0 cannot be had at the end of the
            schedule; on a call, times outside [0, 1] on the CPU, levels or a conditioning that do not fit z_t, or
            an output of another shape.

    >>> class Nothing(nn.Module):
    ...     def forward(self, z_t, logsnr, cond):
    ...         return torch.zeros_like(z_t)
    >>> z_t = torch.ones(2, 3, 4, 8, 8)
    >>> ModelDenoiser(Nothing())(z_t, torch.tensor(0.5), Conditioning()).x0.mean()  # alpha z
    tensor(0.7071)
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule = CosineSchedule(),  # noqa: B008 - frozen
        prediction: Prediction = V,
        *,
        reuse_output: bool = False,
    ) -> None:
        super().__init__()
        check_value("network", network, nn.Module, "an nn.Module with forward(z_t, logsnr, cond)")
        check_prediction(prediction, schedule)
        self.network = network
        self.schedule = schedule
        self.prediction = prediction
        self.reuse_output = reuse_output

    def output(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """What the network itself says of `z_t` at `t`: the prediction, which losses compare with its target."""
        check_time(t)
        check_value("cond", cond, Conditioning, "a Conditioning, which may be empty: Conditioning()")
        cond.check_fits(z_t)
        logsnr = level_of_batch(self.schedule.logsnr(t), z_t)
        z_in = self.prediction.scale_input(z_t, *self.schedule.alpha_sigma(t))
        output = cast("Network", self.network)(z_in, logsnr, cond)
        if output.shape != z_t.shape:
            raise ValueError(
                f"the network answered with shape {tuple(output.shape)} to z_t of shape {tuple(z_t.shape)}; "
                "they must be equal: check its output channels and that its sizes divide the video's"
            )
        return output

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """Split z_t (B, C, T, H, W) at time t, of shape (), (B,) or (B, T), into x0 and eps."""
        output = self.output(z_t, t, cond)
        spare = self.reuse_output and not torch.is_grad_enabled()
        into_output = spare and output.dtype == z_t.dtype and output is not z_t
        alpha, sigma = self.schedule.alpha_sigma(t)
        return Denoised(*self.prediction.split(z_t, output, alpha, sigma, into_output=into_output))
