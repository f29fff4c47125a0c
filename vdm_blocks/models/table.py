"""What a network costs, found on the meta device: `python -m vdm_blocks.models.table`.

No weight is drawn and no number computed, so a network of any size is measured in seconds.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from vdm_blocks.models.presets import Preset, imagen, imagen_video, vdm
from vdm_blocks.models.unet import VideoUNet
from vdm_blocks.nn.heads import use_attend
from vdm_blocks.types import Conditioning

__all__ = ["Cost", "cost_of"]

_TOKENS = 128


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one evaluation of a network on one clip costs.

    Attributes:
        parameters: number of them.
        operations: of convolutions and matrix products, a multiplication and an addition counted as two.
        weight_bytes: of the parameters.
        activation_bytes: the most that tensors hold at once without a gradient, eager, the weights not counted.
    """

    parameters: int
    operations: int
    weight_bytes: int
    activation_bytes: int


def cost_of(preset: Preset, *, dtype: torch.dtype = torch.bfloat16) -> Cost:
    """The cost of `preset`'s network on its own grid, with weights and activations as `dtype`."""
    spec = preset.spec
    with torch.device("meta"):
        network = VideoUNet(spec).to(dtype)
        grid = (preset.frames, preset.height, preset.width)
        z_t = torch.empty(1, spec.channels, *grid, dtype=dtype)
        logsnr = torch.empty(1)
        cond = Conditioning(
            text=torch.empty(1, _TOKENS, spec.text_width, dtype=dtype) if spec.text_width else None,
            text_mask=torch.ones(1, _TOKENS, dtype=torch.bool) if spec.text_width else None,
            video=torch.empty(1, spec.cond_channels, *grid, dtype=dtype) if spec.cond_channels else None,
            aug_logsnr=torch.empty(1) if spec.cond_channels else None,
        )
        use_attend(network, _fused)
        operations = FlopCounterMode(display=False)
        with torch.no_grad(), _Peak() as memory, operations:
            network(z_t, logsnr, cond)
    parameters = list(network.parameters())
    return Cost(
        parameters=sum(p.numel() for p in parameters),
        operations=operations.get_total_flops(),
        weight_bytes=sum(p.numel() * p.element_size() for p in parameters),
        activation_bytes=memory.peak,
    )


def _fused(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001
    """Attention as a device's fused kernel costs it: on the meta device torch itself would store all weights."""
    out: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, False)[0]
    return out


class _Peak(TorchDispatchMode):
    """The most bytes held at once by storages that came to be while it was on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.held = self.peak = 0
        self.known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {t.untyped_storage() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage not in self.known and storage not in before:
                    self.known.add(storage)
                    self.held += storage.nbytes()
                    weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.held)
        return out

    def _free(self, size: int) -> None:
        self.held -= size


def rows(presets: Sequence[Preset], dtype: torch.dtype, tflops: float) -> list[str]:
    """The table's lines."""
    heads = ("parameters", "published", "operations", "weights", "activations", "time")
    lines = [f"{'network':15}{'grid':>15}" + "".join(f"{head:>13}" for head in heads)]
    for preset in presets:
        cost = cost_of(preset, dtype=dtype)
        published = "-" if preset.published is None else f"{preset.published / 1e6:,.0f}M"
        cells = (
            f"{cost.parameters / 1e6:,.0f}M",
            published,
            f"{cost.operations / 1e12:,.2f} T",
            f"{cost.weight_bytes / 2**30:.2f} GiB",
            f"{cost.activation_bytes / 2**30:.2f} GiB",
            f"{cost.operations / tflops / 1e12:.2f} s",
        )
        grid = f"{preset.frames}x{preset.height}x{preset.width}"
        lines.append(f"{preset.name:15}{grid:>15}" + "".join(f"{cell:>13}" for cell in cells))
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m vdm_blocks.models.table", description=__doc__)
    parser.add_argument("which", nargs="?", choices=["imagen-video", "imagen", "vdm"], default="imagen-video")
    parser.add_argument(
        "--float32", action="store_true", help="weights and activations of four bytes, not two"
    )
    parser.add_argument(
        "--tflops",
        type=float,
        default=400.0,
        help="what the device reaches, in 1e12 operations a second (400)",
    )
    chosen = parser.parse_args(arguments)
    presets = {"imagen-video": imagen_video, "imagen": imagen, "vdm": vdm}[chosen.which]()
    dtype = torch.float32 if chosen.float32 else torch.bfloat16
    sys.stdout.write("\n".join(rows(presets, dtype, chosen.tflops)) + "\n")
    sys.stdout.write(
        f"One evaluation on one clip; the time is operations / {chosen.tflops:g}e12, with nothing lost to memory.\n"
    )


if __name__ == "__main__":
    main()
