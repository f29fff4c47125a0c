"""A student on disk: one safetensors file, with its network's spec and what its scale adapter was made from."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import torch

from vdm_blocks.checkpoint import load_into, read_info, read_tensors, write_network
from vdm_blocks.distillation.scale import ScaleRange
from vdm_blocks.distillation.scale_adapter import ScaleAdapter
from vdm_blocks.models.spec import UNetSpec
from vdm_blocks.models.unet import VideoUNet

__all__ = ["load_student", "save_student"]

_OLD_ANGLE = 1000.0
"""Of the files that do not say theirs."""


def save_student(
    path: str | os.PathLike[str],
    network: VideoUNet | ScaleAdapter,
    *,
    notes: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Writes a student as `save_unet` writes a network: told the guidance scale, or a plain `VideoUNet`.

    Args:
        path: of the file, usually ending in .safetensors.
        network: a `ScaleAdapter` around a `VideoUNet`, or a `VideoUNet`.
        notes: short strings to keep beside the weights.
        dtype: of floating-point weights on disk.

    Raises:
        ValueError: an adapter around another network, a weight that `dtype` cannot hold, or a file that cannot be
            written.
    """
    if isinstance(network, VideoUNet):
        write_network(path, network, network.spec, notes=notes, dtype=dtype)
        return
    inner = network.network
    if not isinstance(inner, VideoUNet):
        raise ValueError(
            f"save_student got an adapter around {type(inner).__name__}; it writes those around a VideoUNet, whose "
            "spec it can store. Write others with save_tensors(path, network.state_dict(), {})"
        )
    adapter = {
        "at": network.at,
        "width": network.width,
        "scales": [network.scales.low, network.scales.high],
        "features": network.embedding.features,
        "hidden": network.hidden,
        "head": network.head,
        "knots": network.knots,
        "angle": network.angle,
        "context": network.context,
        "bend": None if math.isinf(network.bend) else network.bend,
    }
    write_network(path, network, inner.spec, notes=notes, dtype=dtype, adapter=adapter)


def load_student(
    path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32
) -> VideoUNet | ScaleAdapter:
    """What `save_student` or `save_unet` wrote, in evaluation mode on the CPU.

    Raises:
        ValueError: as `load_unet`; or an adapter that this version cannot make.
    """
    info = read_info(path)
    if not isinstance(info.spec, UNetSpec):
        raise ValueError(
            f"{path} holds a VideoTransformer, and students are U-Nets; load it with load_network"
        )
    with torch.device("meta"):
        network: VideoUNet | ScaleAdapter = VideoUNet(info.spec)
        if info.adapter is not None:
            try:
                low, high = info.adapter["scales"]
                network = ScaleAdapter(
                    network,
                    at=info.adapter["at"],
                    width=info.adapter["width"],
                    scales=ScaleRange(low=low, high=high),
                    features=info.adapter["features"],
                    hidden=info.adapter["hidden"],
                    head=info.adapter.get("head"),
                    knots=info.adapter.get("knots", 1),
                    angle=info.adapter.get("angle", _OLD_ANGLE),
                    context=info.adapter.get("context"),
                    bend=info.adapter.get("bend") or math.inf,
                )
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path} holds an adapter that this version cannot make: {error}") from error
    load_into(network, read_tensors(path, dtype), what=str(path))
    return network.eval()
