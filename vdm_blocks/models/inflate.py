"""Image networks as video networks: frames folded into the batch, layers over time put after chosen blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vdm_blocks.models.spec import TemporalAttentionSpec, TemporalConvSpec
from vdm_blocks.models.unet import VideoUNet
from vdm_blocks.nn.axes import check_video, fold_frames, unfold_frames

__all__ = ["Inflated", "Inflation", "inflate", "inflate_unet"]


@dataclass(frozen=True, kw_only=True)
class Inflation:
    """What was put where.

    Attributes:
        put: (path of the block, its type, channels of the layer over time after it).
        left: paths of the modules with weights of their own that stand in none of those blocks.
    """

    put: tuple[tuple[str, str, int], ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        """One line a block, then one for the rest."""
        lines = [
            f"after {path} ({kind}): a layer over time of {channels} channels"
            for path, kind, channels in self.put
        ]
        return "\n".join([*lines, f"left alone: {', '.join(self.left) or 'nothing'}"])


class _Clip:
    """How many frames the batch now holds of each clip; None while the image network runs by itself."""

    frames: int | None = None
    images: Tensor | None = None


class _After:
    """The hook that runs `layer` on a block's output; an object, so that a deep copy takes it along."""

    def __init__(self, clip: _Clip, layer: nn.Module) -> None:
        self.clip = clip
        self.layer = layer

    def __call__(self, module: nn.Module, args: object, output: object) -> object:  # noqa: ARG002
        if self.clip.frames is None:
            return None
        if isinstance(output, tuple):
            return (self._mix(output[0], self.clip.frames), *output[1:])
        assert isinstance(output, Tensor)
        return self._mix(output, self.clip.frames)

    def _mix(self, x: Tensor, frames: int) -> Tensor:
        image = _as_image(x)
        mixed = fold_frames(self.layer(unfold_frames(image, frames), self.clip.images))
        if x.ndim == 3:
            mixed = mixed.flatten(2).transpose(1, 2)
        # The next layer must find the layout that it would without us, or it may round in another way.
        return mixed if mixed.stride() == x.stride() else torch.empty_like(x).copy_(mixed)


class Inflated(nn.Module):
    """`network`, which takes images, on video; `inflate` makes it.

    Attributes:
        network: the image network; called by itself it still is one.
        temporal: the layers over time, in the order of the blocks that they follow.
    """

    def __init__(self, network: nn.Module, blocks: Sequence[nn.Module], layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.network = network
        self.temporal = nn.ModuleList(layers)
        self._clip = _Clip()
        for block, layer in zip(blocks, layers, strict=True):
            block.register_forward_hook(_After(self._clip, layer))

    def forward(self, video: Tensor, *args: object, images: Tensor | None = None) -> Tensor:
        """The image network on every frame, with the layers over time between its blocks.

        Args:
            video: (B, C, T, H, W).
            args: what else the network takes, in its order, such as timesteps and a caption's states. A tensor
                (B, ...) is given to each of the sample's frames, a video (B, C', T, H', W') frame by frame, a mapping
                entry by entry, anything else as it is.
            images: bool, (B,) or (B, T); frames that are independent pictures, for layers that take such a mask.

        Returns:
            (B, C', T, H', W').

        Raises:
            ValueError: no video, or a network that answers with something other than images.
        """
        check_video(video)
        batch, frames = video.shape[0], video.shape[2]

        def fold(value: object) -> object:
            if isinstance(value, Mapping):
                return {name: fold(entry) for name, entry in value.items()}
            if not isinstance(value, Tensor) or value.ndim == 0 or value.shape[0] != batch:
                return value
            if value.ndim == 5 and value.shape[2] == frames:
                return fold_frames(value)
            return value.repeat_interleave(frames, dim=0)

        self._clip.frames, self._clip.images = frames, images
        try:
            out = self.network(fold_frames(video), *map(fold, args))
        finally:
            self._clip.frames = self._clip.images = None
        answer = out
        if isinstance(out, Mapping):
            out = next(iter(out.values()), None)
        elif isinstance(out, (tuple, list)):
            out = next(iter(out), None)
        if not isinstance(out, Tensor) or out.ndim != 4:
            raise ValueError(
                f"the network answered with {type(answer).__name__}; it must be a tensor of images, or a tuple or "
                "mapping that begins with one: wrap the network so that it is"
            )
        return unfold_frames(out, frames)


def inflate(
    network: nn.Module,
    *,
    after: Sequence[str | type[nn.Module]],
    layer: Callable[[int], nn.Module],
    example: Sequence[object],
) -> tuple[Inflated, Inflation]:
    """A video network of the image network and a layer over time after each block that `after` names.

    Layers that start as the identity, as `TemporalConv` and `TemporalAttention` do, leave the network's answer to
    the bit what it was, frame by frame (arXiv 2212.11565, section 3; 2304.08818, section 3.1). Train `.temporal` of
    the result alone, or all of it. It takes networks of diffusers as they are: `UNet2DModel`, and
    `UNet2DConditionModel`, whose caption (B, L, D) each frame of the sample reads.

    Args:
        network: takes images (B, C, H, W); it gets hooks and is otherwise untouched.
        after: paths as `named_modules` gives them, or types: all modules of that type. A block's output must be
            (B, C, H, W), (B, S, C), or a tuple that begins with one.
        layer: from a number of channels to a layer on (B, C, T, H, W) that is called with a mask of images or None.
        example: arguments for one call of `network`, from which the channels are read.

    Returns:
        The video network, and a report of what was put where.

    Raises:
        ValueError: a name that no block has, or a block that cannot be followed by a layer over time.
    """
    blocks = _named(network, after)
    shapes: dict[str, torch.Size] = {}
    handles = [block.register_forward_hook(_recorder(path, shapes)) for path, block in blocks.items()]
    training = [module for module in network.modules() if module.training]
    try:
        with torch.no_grad():
            network.eval()(*example)  # so that no running statistics move
    finally:
        for module in training:
            module.training = True
        for handle in handles:
            handle.remove()
    unused = [path for path in blocks if path not in shapes]
    if unused:
        raise ValueError(
            f"{', '.join(unused)} did not run on the example, or gave no images; name other blocks"
        )
    # Built in the order of the network, whatever that of the names.
    channels = {path: shape[1] if len(shape) == 4 else shape[2] for path, shape in shapes.items()}
    reference = next(network.parameters())
    layers = [layer(channels[path]).to(reference.device, reference.dtype) for path in blocks]
    inside = tuple(path + "." for path in blocks)
    left = tuple(
        path
        for path, module in network.named_modules()
        if path not in blocks
        and not path.startswith(inside)
        and next(module.parameters(recurse=False), None) is not None
    )
    put = tuple((path, type(block).__name__, channels[path]) for path, block in blocks.items())
    return Inflated(network, list(blocks.values()), layers), Inflation(put=put, left=left)


def inflate_unet(
    network: VideoUNet, temporal: TemporalConvSpec | TemporalAttentionSpec
) -> tuple[VideoUNet, Inflation]:
    """A `VideoUNet` that mixes frames by `temporal` at every level that did not, with `network`'s weights.

    What mixes frames starts as the identity, so the answer is `network`'s to the bit.

    Raises:
        ValueError: a network that mixes frames at all levels already.
    """
    chosen = [i for i, level in enumerate(network.spec.levels) if level.temporal is None]
    if not chosen:
        raise ValueError("every level of this network mixes frames already; there is nothing to inflate")
    levels = tuple(replace(level, temporal=level.temporal or temporal) for level in network.spec.levels)
    video = VideoUNet(replace(network.spec, levels=levels))
    reference = next(network.parameters())
    video.to(reference.device, reference.dtype)
    video.load_state_dict(video.state_dict() | network.state_dict())
    put = tuple((f"levels.{i}", type(temporal).__name__, network.spec.levels[i].channels) for i in chosen)
    left = tuple(f"levels.{i}" for i in range(len(levels)) if i not in chosen)
    return video, Inflation(put=put, left=left)


def _named(network: nn.Module, after: Sequence[str | type[nn.Module]]) -> dict[str, nn.Module]:
    """The blocks that `after` names, in the network's order."""
    modules = {path: module for path, module in network.named_modules() if path}
    for name in after:
        if isinstance(name, str) and name not in modules:
            like = [path for path in modules if path.startswith(name.split(".")[0])][:8] or list(modules)[:8]
            raise ValueError(f"the network has no module {name!r}; it has {', '.join(like)}, among others")
        if isinstance(name, type) and not any(isinstance(module, name) for module in modules.values()):
            raise ValueError(f"the network has no {name.__name__}; name a type that it is made of")
    if not after:
        raise ValueError("after names no block; give paths or types, such as the network's residual blocks")
    kinds = tuple(name for name in after if isinstance(name, type))
    return {path: m for path, m in modules.items() if path in after or isinstance(m, kinds)}


def _recorder(path: str, shapes: dict[str, torch.Size]) -> Callable[[nn.Module, object, object], None]:
    def record(module: nn.Module, args: object, output: object) -> None:  # noqa: ARG001
        first = output[0] if isinstance(output, tuple) and output else output
        if isinstance(first, Tensor) and first.ndim in (3, 4):
            shapes[path] = first.shape

    return record


def _as_image(x: Tensor) -> Tensor:
    """(N, C, H, W) as it is, tokens (N, S, C) as (N, C, S, 1)."""
    return x if x.ndim == 4 else x.transpose(1, 2).unsqueeze(3)
