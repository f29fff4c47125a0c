"""Gaussian noise from a `torch.Generator`, or by key: equal for any batch, order, process, device and resumption."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vdm_blocks.diffusion.values import check_value

__all__ = ["KeyedNoise", "NoiseSource", "draw_normal"]


@dataclass(frozen=True, kw_only=True)
class KeyedNoise:
    """Noise that depends only on (seed, stage, step) of each sample, not on who draws it, when, or beside whom.

    Sample i of a draw is a Philox stream (Salmon et al. 2011) under a 128-bit hash of its key, made on the
    CPU in float32 and moved; no state is kept. One sample at a time is drawn, so besides the result there is
    room for one. NumPy makes the stream, and promises it only within a version (its enhancement proposal 19).

    Attributes:
        seeds: one per sample; which of them share a batch does not matter.
        stage: whose noise it is; the stages of a cascade must differ, or they share their noise.

    Raises:
        ValueError: no seeds, or, on drawing, a batch size other than the number of seeds.

    >>> noise = KeyedNoise(seeds=(3, 5), stage="base")
    >>> both = noise.normal((2, 3, 4, 8, 8), step=0)
    >>> torch.equal(noise.select([1]).normal((1, 3, 4, 8, 8), step=0), both[1:])
    True
    """

    seeds: tuple[int, ...]
    stage: str

    def __post_init__(self) -> None:
        check_value("seeds", self.seeds, Sequence, "a tuple with one int per sample")
        if not self.seeds or not all(isinstance(seed, int) for seed in self.seeds):
            raise ValueError(f"KeyedNoise got seeds={self.seeds!r}; give a tuple with one int per sample")

    def at(self, stage: str) -> KeyedNoise:
        """The same samples at another stage."""
        return replace(self, stage=stage)

    def select(self, index: Sequence[int] | slice) -> KeyedNoise:
        """The noise of some of the samples."""
        chosen = self.seeds[index] if isinstance(index, slice) else tuple(self.seeds[i] for i in index)
        return replace(self, seeds=chosen)

    def _stream(self, seed: int, step: int | str) -> np.random.Generator:
        key = hashlib.blake2b(repr((seed, self.stage, step)).encode(), digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))

    def normal(
        self,
        shape: Sequence[int],
        *,
        step: int | str,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Standard normal noise of `shape`, whose first axis is the samples; `step` is the key of this draw.

        Raises:
            ValueError: another batch size than the number of seeds, or a dtype of whole numbers.
        """
        if not dtype.is_floating_point:
            raise ValueError(f"noise was asked for in {dtype}; ask for a floating-point dtype")
        if len(shape) == 0 or shape[0] != len(self.seeds):
            raise ValueError(
                f"a draw of shape {tuple(shape)} asks for {shape[0] if shape else 'no'} samples, but there "
                f"are {len(self.seeds)} seeds; give one seed per sample"
            )
        out = torch.empty(tuple(shape), device=device, dtype=dtype)
        direct = out.device.type == "cpu" and dtype == torch.float32
        buffer = None if direct else torch.empty(tuple(shape[1:]), dtype=torch.float32, device="cpu")
        for i, seed in enumerate(self.seeds):
            target = out[i] if buffer is None else buffer
            self._stream(seed, step).standard_normal(dtype=np.float32, out=target.numpy())
            if buffer is not None:
                out[i].copy_(buffer)
        return out


NoiseSource = torch.Generator | KeyedNoise | None


def draw_normal(
    source: NoiseSource,
    shape: Sequence[int],
    *,
    step: int | str,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise of `shape` from any source.

    Args:
        source: keyed noise; a generator, which draws on its own device; or None for torch's global one.
        step: the key of this draw, which must differ between the draws of one stage; a generator ignores it.

    Raises:
        ValueError: a source that is none of these, such as a seed alone.

    >>> draw_normal(torch.Generator().manual_seed(0), (1, 3, 2, 4, 4), step=0).shape
    torch.Size([1, 3, 2, 4, 4])
    """
    if isinstance(source, KeyedNoise):
        return source.normal(shape, step=step, device=device, dtype=dtype)
    if source is None:
        return torch.randn(tuple(shape), device=device, dtype=dtype)
    check_value("generator", source, torch.Generator, "torch.Generator().manual_seed(0), KeyedNoise or None")
    drawn = torch.randn(tuple(shape), generator=source, device=source.device, dtype=dtype)
    return drawn if device is None else drawn.to(device)
