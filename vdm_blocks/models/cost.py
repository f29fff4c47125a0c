"""What a network costs, found on the meta device: no weight is drawn and no number computed."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vdm_blocks.diffusion.values import check_numbers
from vdm_blocks.models.presets import Preset
from vdm_blocks.models.unet import VideoUNet
from vdm_blocks.nn.heads import use_attend
from vdm_blocks.types import Conditioning

__all__ = ["Cost", "DeviceSpeed", "cost_of"]

_TOKENS = 128


@dataclass(frozen=True, kw_only=True)
class DeviceSpeed:
    """What a device reaches, not what its maker prints; the defaults are a large GPU's of 2024 in bfloat16.

    Attributes:
        tflops: of convolutions and matrix products, in 1e12 operations a second.
        bandwidth: of its memory, in 1e9 bytes a second.

    Raises:
        ValueError: one that is not a positive number.
    """

    tflops: float = 400.0
    bandwidth: float = 3000.0

    def __post_init__(self) -> None:
        check_numbers(self)
        if not (self.tflops > 0 and self.bandwidth > 0):
            raise ValueError(f"a device reaches more than nothing; got {self}")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one evaluation of a network on one clip costs.

    Attributes:
        parameters: number of them.
        operations: of convolutions and matrix products, a multiplication and an addition counted as two.
        weight_bytes: of the parameters.
        activation_bytes: the most that tensors hold at once without a gradient, eager, the weights not counted.
        kernels: (operations, bytes read and written) of every kernel that runs, eager; views are none.
    """

    parameters: int
    operations: int
    weight_bytes: int
    activation_bytes: int
    kernels: tuple[tuple[int, int], ...] = field(repr=False)

    def seconds(self, device: DeviceSpeed) -> float:
        """The sum over kernels of max(operations / tflops, bytes / bandwidth): none is faster than either allows.

        Eager: a compiled network spares most of the memory of what stands between convolutions and products.
        """
        return sum(
            max(operations / device.tflops / 1e12, moved / device.bandwidth / 1e9)
            for operations, moved in self.kernels
        )


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
        with torch.no_grad(), _Watch() as watch:
            network(z_t, logsnr, cond)
    parameters = list(network.parameters())
    return Cost(
        parameters=sum(p.numel() for p in parameters),
        operations=sum(operations for operations, _ in watch.kernels),
        weight_bytes=sum(p.numel() * p.element_size() for p in parameters),
        activation_bytes=watch.peak,
        kernels=tuple(watch.kernels),
    )


def _fused(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001
    """Attention as a device's fused kernel costs it: on the meta device torch itself would store all weights."""
    out: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, False)[0]
    return out


class _Watch(TorchDispatchMode):
    """The kernels that ran while it was on, and the most bytes held at once by storages that came to be."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        from torch.utils.flop_counter import flop_registry  # slow to import, and nobody else needs it

        self.formulas = flop_registry
        self.held = self.peak = 0
        self.known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self.kernels: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        before = {t.untyped_storage() for t in given}
        out = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        for tensor in made:
            storage = tensor.untyped_storage()
            if storage not in self.known and storage not in before:
                self.known.add(storage)
                self.held += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.held)
        if any(tensor.untyped_storage() not in before for tensor in made):
            count = self.formulas.get(func._overloadpacket)
            operations = 0 if count is None else int(count(*args, **(kwargs or {}), out_val=out))
            self.kernels.append((operations, sum(map(_bytes, (*given, *made)))))
        return out

    def _free(self, size: int) -> None:
        self.held -= size


def _bytes(tensor: Tensor) -> int:
    """Of a tensor; one that repeats its memory counts once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
