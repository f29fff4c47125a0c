"""A network as the Hugging Face Hub keeps models: a folder of weights, a config and a card.

    model.safetensors   the weights with their spec, all that `load_hub_folder` reads
    config.json         the spec again, for people and for the Hub
    README.md           the model card

Nothing here reaches the network but `download_from_hub`, and that only when it is called.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from vdm_blocks.checkpoint import load_network, save_network
from vdm_blocks.models.plain import to_plain
from vdm_blocks.models.transformer import VideoTransformer
from vdm_blocks.models.unet import VideoUNet

__all__ = ["download_from_hub", "load_hub_folder", "save_hub_folder"]

_WEIGHTS = "model.safetensors"


def save_hub_folder(
    folder: str | os.PathLike[str],
    network: VideoUNet | VideoTransformer,
    *,
    title: str,
    license: str,  # noqa: A002 - the Hub's name for it
    description: str,
    tags: Sequence[str] = ("text-to-video",),
    notes: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write weights, config and card into `folder`, made if it is not there; its parent must exist.

    Raises:
        ValueError: an empty title or description, a folder that cannot be made, or what `save_network` refuses.
    """
    if not title.strip() or not description.strip():
        raise ValueError(
            "title and description are empty; a model card says what the model is and what it is for"
        )
    root = Path(folder)
    try:
        root.mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot make {root}: {error.strerror}; give a new folder in one that is there"
        ) from error
    save_network(root / _WEIGHTS, network, notes=notes, dtype=dtype)
    config = {
        "architecture": f"vdm_blocks.{type(network).__name__}",
        "spec": to_plain(network.spec),
        "notes": dict(notes or {}),
    }
    (root / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    head = ["---", f"license: {license}", "library_name: vdm_blocks", "pipeline_tag: text-to-video", "tags:"]
    head += [f"- {json.dumps(tag)}" for tag in tags] + ["---", "", f"# {title}", "", description, ""]
    use = [
        "```python",
        "from vdm_blocks.interop.hub import load_hub_folder",
        "",
        'network = load_hub_folder("…")',
        "```",
        "",
    ]
    (root / "README.md").write_text("\n".join(head + use), encoding="utf-8")


def load_hub_folder(
    folder: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32
) -> VideoUNet | VideoTransformer:
    """The network in `folder`, in evaluation mode on the CPU.

    Raises:
        ValueError: what `load_network` refuses: no such file, or one that is not ours.
    """
    return load_network(Path(folder) / _WEIGHTS, dtype=dtype)


def download_from_hub(
    repo: str,
    *,
    revision: str,
    cache: str | os.PathLike[str] | None = None,
    local_only: bool = False,
) -> Path:
    """Fetch a repository's weights, config and card from the Hub, and return the folder for `load_hub_folder`.

    Args:
        repo: "owner/name".
        revision: a commit; with a branch the weights may change under you.
        cache: where the Hub's client keeps its files; None is its own default.
        local_only: take what the cache holds and do not ask the network.

    Raises:
        ModuleNotFoundError: the package huggingface_hub is missing.
        FileNotFoundError: `local_only`, and the cache does not hold this revision.
    """
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "download_from_hub needs huggingface_hub: pip install 'vdm-blocks[hub]'"
        ) from error
    wanted = [_WEIGHTS, "config.json", "README.md"]
    path = snapshot_download(
        repo, revision=revision, cache_dir=cache, local_files_only=local_only, allow_patterns=wanted
    )
    return Path(path)
