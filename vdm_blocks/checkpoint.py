"""Weights on disk: one safetensors file, with the network's spec and any notes as its metadata."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vdm_blocks.models.build import build_network
from vdm_blocks.models.plain import from_plain, to_plain
from vdm_blocks.models.spec import UNetSpec
from vdm_blocks.models.transformer import VideoTransformer
from vdm_blocks.models.transformer_spec import TransformerSpec
from vdm_blocks.models.unet import VideoUNet

__all__ = [
    "CheckpointInfo",
    "file_hash",
    "load_network",
    "load_unet",
    "read_info",
    "save_network",
    "save_tensors",
    "save_unet",
]

_UNET, _TRANSFORMER = "vdm_blocks.unet.1", "vdm_blocks.transformer.1"


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What a checkpoint says of itself.

    Attributes:
        spec: the network's plan.
        notes: what its maker wrote beside it, such as the stage, the seed and the steps.
        adapter: what a student's `ScaleAdapter` was made from; None for a plain network.
    """

    spec: UNetSpec | TransformerSpec
    notes: Mapping[str, str]
    adapter: Mapping[str, Any] | None = None


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file whole or not at all: under another name first, then renamed.

    Others may read it as they may any new file of the user's; some versions of safetensors alone let nobody else.

    Raises:
        ValueError: a folder that does not exist or cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: the folder {path.parent} does not exist; make it first")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        save_file(
            {name: x.detach().cpu().contiguous() for name, x in tensors.items()}, partial, dict(metadata)
        )
        partial.chmod(mode)
        _order_header(partial)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot write {path}: {error}; choose a folder that you may write to") from error
    finally:
        partial.unlink(missing_ok=True)


def _order_header(path: Path) -> None:
    """Sorts the metadata in a safetensors header, which comes in any order: equal contents are then equal bytes."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(ordered) <= length
        file.seek(8)
        file.write(ordered.ljust(length))
        file.flush()
        os.fsync(file.fileno())


def save_unet(
    path: str | os.PathLike[str],
    network: VideoUNet,
    *,
    notes: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Writes `network` with its spec; floating-point weights are stored as `dtype`.

    Args:
        path: of the file, usually ending in .safetensors.
        network: a `VideoUNet`.
        notes: short strings to keep beside the weights.
        dtype: float16 keeps three more bits of a weight than bfloat16 at the same size.

    Raises:
        ValueError: a weight that `dtype` cannot hold, or a file that cannot be written.
    """
    write_network(path, network, network.spec, notes=notes, dtype=dtype)


def save_network(
    path: str | os.PathLike[str],
    network: VideoUNet | VideoTransformer,
    *,
    notes: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """`save_unet` for a `VideoTransformer` as well: a U-Net's file is the same, to the byte.

    Raises:
        ValueError: as `save_unet`.
    """
    write_network(path, network, network.spec, notes=notes, dtype=dtype)


def write_network(
    path: str | os.PathLike[str],
    network: nn.Module,
    spec: UNetSpec | TransformerSpec,
    *,
    notes: Mapping[str, str] | None,
    dtype: torch.dtype,
    adapter: Mapping[str, Any] | None = None,
) -> None:
    """What `save_unet` does, for a Module that may hold more than the network of `spec`."""
    tensors = {name: x.detach().to(dtype) for name, x in network.state_dict().items()}
    lost = sorted(name for name, x in tensors.items() if not torch.isfinite(x).all())
    if lost:
        raise ValueError(
            f"{lost[0]} and {len(lost) - 1} others are not finite as {dtype}; store them as torch.float32"
        )
    metadata = {
        "format": _UNET if isinstance(spec, UNetSpec) else _TRANSFORMER,
        "spec": json.dumps(to_plain(spec)),
        "notes": json.dumps(dict(notes or {})),
    }
    if adapter is not None:
        metadata["adapter"] = json.dumps(dict(adapter))
    save_tensors(path, tensors, metadata)


def read_info(path: str | os.PathLike[str]) -> CheckpointInfo:
    """What `path` says of itself, without reading the weights.

    Raises:
        ValueError: a file that is missing, truncated, no safetensors, or not ours.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no checkpoint at {path}; train one, or give the path of another")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as safetensors ({error}); it may be truncated: copy or train it again"
        ) from error
    if metadata.get("format") not in (_UNET, _TRANSFORMER):
        raise ValueError(
            f"{path} was not written by save_unet (its format is {metadata.get('format', 'not stated')!r}, "
            f"this version reads {_UNET!r} and {_TRANSFORMER!r}); load it with safetensors and build the network "
            "yourself"
        )
    try:
        plain = json.loads(metadata["spec"])
        return CheckpointInfo(
            spec=from_plain(UNetSpec, plain)
            if metadata["format"] == _UNET
            else from_plain(TransformerSpec, plain),
            notes=json.loads(metadata["notes"]),
            adapter=json.loads(metadata["adapter"]) if "adapter" in metadata else None,
        )
    except (KeyError, json.JSONDecodeError, ValueError) as error:
        raise ValueError(f"{path} holds a spec that this version cannot read: {error}") from error


def load_unet(path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32) -> VideoUNet:
    """The U-Net at `path`, in evaluation mode on the CPU, its weights as `dtype`.

    Raises:
        ValueError: as `load_network`, or a file that holds a transformer.
    """
    if not isinstance(read_info(path).spec, UNetSpec):
        raise ValueError(f"{path} holds a VideoTransformer; load it with load_network")
    network = load_network(path, dtype=dtype)
    assert isinstance(network, VideoUNet)
    return network


def load_network(
    path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32
) -> VideoUNet | VideoTransformer:
    """The network at `path`, in evaluation mode on the CPU, its weights as `dtype`.

    Raises:
        ValueError: as `read_info`; weights that do not fit the spec beside them; or a student's file.
    """
    info = read_info(path)
    if info.adapter is not None:
        raise ValueError(f"{path} holds a student that is told the guidance scale; load it with load_student")
    with torch.device("meta"):
        network = build_network(info.spec)
    load_into(network, read_tensors(path, dtype), what=str(path))
    return network.eval()


def read_tensors(path: str | os.PathLike[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """All tensors of a file, as `dtype`.

    Raises:
        ValueError: a file that breaks off.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).to(dtype) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} breaks off ({error}); copy or train it again") from error


def load_into(network: nn.Module, tensors: Mapping[str, Tensor], *, what: str) -> None:
    """Puts `tensors` in the place of the network's own, all of them or none.

    Raises:
        ValueError: names or shapes that differ; it lists the first few.
    """
    own = network.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in tensors]
    wrong += [f"{name} is not the network's" for name in tensors if name not in own]
    wrong += [
        f"{name} is {tuple(tensors[name].shape)}, the network's {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if wrong:
        raise ValueError(
            f"{what} does not fit this network: {'; '.join(wrong[:3])} ({len(wrong)} differences)"
        )
    network.load_state_dict(dict(tensors), assign=True)


def file_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
