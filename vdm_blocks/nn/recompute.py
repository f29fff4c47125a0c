"""Less memory in training: what is cheap to compute is computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["Recomputing", "recompute_activations"]


class Recomputing(nn.Module):
    """A layer some parts of which may be computed twice rather than remembered.

    Attributes:
        recomputes: whether they are; False until `recompute_activations` says otherwise.
    """

    recomputes: bool = False

    def part(self, run: Callable[..., Tensor], *args: Tensor) -> Tensor:
        """`run(*args)`, of which the backward pass remembers `args` alone where this layer recomputes.

        A part that ends with a convolution or a linear map costs no second one: the recomputation stops once
        all that was to be remembered is there, and a map remembers what it is given, not what it gives.
        """
        if self.recomputes and torch.is_grad_enabled():
            out: Tensor = checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False)
            return out
        return run(*args)


def recompute_activations(module: nn.Module, on: bool = True) -> None:
    """Has every layer within `module` compute norms, modulations, SiLUs and GELUs again in the backward pass.

    What convolutions, projections and attention give is kept, and none of them runs twice;
    `VideoUNet.checkpoint_levels` computes everything again and keeps less still. Training the 35M U-Net of the
    benchmarks held 232 MiB instead of 358 and took 1.10 times as long (16x24x40, one thread of an AMD EPYC). Gradients
    are the same to the bit. It is off at the start, because `torch.func`'s transforms cannot look through it.

    >>> from vdm_blocks.nn import ResidualBlock, recompute_activations
    >>> block = ResidualBlock(8, 8, 4)
    >>> recompute_activations(block)
    >>> block.recomputes
    True
    """
    for layer in module.modules():
        if isinstance(layer, Recomputing):
            layer.recomputes = on
