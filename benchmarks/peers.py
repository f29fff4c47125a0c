"""Other libraries' video U-Nets, built at about the same parameters, and loaded without what they do not need here.

imagen-pytorch and video-diffusion-pytorch import torchvision, transformers and more for their text encoders and
trainers; the networks alone need none of it, so those imports are answered by empty modules while theirs run.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

Grid = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A library's network: how to build it at a size, and how to call it on a video."""

    name: str
    package: str
    build: Callable[[str], nn.Module]
    call: Callable[[nn.Module, Tensor], Tensor]

    def label(self) -> str:
        """Its name and version."""
        return f"{self.name} {version(self.name)}"


def installed() -> list[Peer]:
    """The peers that this environment has."""
    return [peer for peer in PEERS if importlib.util.find_spec(peer.package) is not None]


def imagen_unet(size: str) -> nn.Module:
    """`Unet3D` without text, its other defaults kept; heads of 32 as ours."""
    dim, mults = {"tiny": (8, (1, 2)), "10M": (32, (1, 2, 4, 6)), "35M": (64, (1, 2, 4, 6))}[size]
    net: nn.Module = imagen().Unet3D(
        dim=dim, dim_mults=mults, cond_on_text=False, attn_pool_text=False, attn_heads=8, attn_dim_head=32
    )
    return net


def vdp_unet(size: str) -> nn.Module:
    """`Unet3D` with its defaults."""
    dim, mults = {"tiny": (8, (1, 2)), "10M": (32, (1, 2, 4, 8)), "35M": (64, (1, 2, 4, 8))}[size]
    net: nn.Module = video_diffusion().Unet3D(dim=dim, dim_mults=mults)
    return net


def diffusers_unet(size: str) -> nn.Module:
    """`UNet3DConditionModel`; no attention within frames at the finest level, where it would cost the most."""
    from diffusers import UNet3DConditionModel

    widths = {"tiny": (16, 16), "10M": (32, 64, 128, 128), "35M": (64, 128, 192, 240)}[size]
    deeper = len(widths) - 1
    net: nn.Module = UNet3DConditionModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=widths,
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=32,
        attention_head_dim=8,
        down_block_types=("DownBlock3D", *["CrossAttnDownBlock3D"] * deeper),
        up_block_types=(*["CrossAttnUpBlock3D"] * deeper, "UpBlock3D"),
    )
    return net


def call_lucidrains(net: nn.Module, z_t: Tensor) -> Tensor:
    """Both libraries' networks take a video and a time."""
    out: Tensor = net(z_t, torch.zeros(1))
    return out


def call_diffusers(net: nn.Module, z_t: Tensor) -> Tensor:
    """Under a caption of one token, which it must have."""
    text = torch.zeros(1, 1, 32)
    out: Tensor = net(z_t, torch.tensor(5), encoder_hidden_states=text, return_dict=False)[0]
    return out


PEERS = (
    Peer(name="imagen-pytorch", package="imagen_pytorch", build=imagen_unet, call=call_lucidrains),
    Peer(
        name="video-diffusion-pytorch",
        package="video_diffusion_pytorch",
        build=vdp_unet,
        call=call_lucidrains,
    ),
    Peer(name="diffusers", package="diffusers", build=diffusers_unet, call=call_diffusers),
)


def imagen() -> Any:
    """imagen-pytorch's module of video networks."""
    t5 = {"t5_encode_text": None, "get_encoded_dim": lambda _: 768, "DEFAULT_T5_NAME": ""}
    with empty_modules({"imagen_pytorch.t5": t5}):
        return from_package("imagen_pytorch", "imagen_video")


def video_diffusion() -> Any:
    """video-diffusion-pytorch's module of networks."""
    names = {"ToTensor": lambda: None, "ToPILImage": lambda: None}
    text = {"tokenize": None, "bert_embed": None, "BERT_MODEL_DIM": 768}
    stubs: dict[str, Mapping[str, object]] = {
        "torchvision": {"transforms": module("torchvision.transforms", names), "utils": None},
        "video_diffusion_pytorch.text": text,
    }
    with empty_modules(stubs):
        return from_package("video_diffusion_pytorch", "video_diffusion_pytorch")


def from_package(package: str, name: str) -> ModuleType:
    """`package.name`, without running the package's own __init__."""
    whole = f"{package}.{name}"
    if whole not in sys.modules:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        bare = ModuleType(package)
        bare.__path__ = list(spec.submodule_search_locations or ())
        with empty_modules({package: vars(bare)}):
            return importlib.import_module(whole)
    return sys.modules[whole]


def module(name: str, names: Mapping[str, object]) -> ModuleType:
    """A module that holds `names`."""
    made = ModuleType(name)
    vars(made).update(names)
    return made


@contextmanager
def empty_modules(stubs: Mapping[str, Mapping[str, object]]) -> Iterator[None]:
    """Stands modules with these contents in for the real ones, and takes them away again."""
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update({name: module(name, names) for name, names in stubs.items()})
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old
