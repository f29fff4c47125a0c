"""Each block against its naive form, with the same weights and the same result: `python -m benchmarks.blocks`.

The naive form is what one writes first: contiguous video, `nn.Conv3d`, rearranged copies, `nn.Linear`, norms from
means. Both are checked to agree, then timed in one process in interleaved rounds, forward and forward with backward.
`--quick` takes small shapes and few rounds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from benchmarks.pairs import Function, Pair, comparison
from benchmarks.timing import setting, write_section
from vdm_blocks.nn import (
    ChannelNorm,
    FrameGroupNorm,
    Pointwise,
    RMSNorm,
    SpatialAttention,
    SpatialConv,
    SpatialDownsample,
    TemporalAttention,
    TemporalConv,
    attend_by_products,
    attend_fused,
    channels_last,
    from_last,
    to_last,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small shapes, few rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=0, help="of timing (9, quick 2)")
    parser.add_argument("--write", type=Path, help="a page whose section is written anew")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    shape = (1, 16, 4, 6, 10) if args.quick else (1, 128, 16, 24, 40)
    print(setting(), file=sys.stderr)
    text = section(shape, args.rounds or (2 if args.quick else 9))
    print(text)
    if args.write:
        write_section(args.write, "blocks", text)


def section(shape: tuple[int, int, int, int, int], rounds: int) -> str:
    """The page's part."""
    return f"""## Blocks

```console
$ python -m benchmarks.blocks --write docs/benchmarks.md
```

{setting()}, {rounds} rounds, a video {shape}. Milliseconds of CPU time of each block and of its naive form
with the same weights: contiguous video, `nn.Conv3d`, rearranged copies, `nn.Linear`, norms from means. The last column
says what ours does, and when.

{comparison(pairs(shape), rounds=rounds)}"""


def pairs(shape: tuple[int, int, int, int, int]) -> Iterator[Pair]:
    """What is compared, on a video of `shape`."""
    _, c, t, h, w = shape
    heads = c // 16
    x = torch.randn(shape)
    last = channels_last(x)

    spatial = SpatialConv(c, c)
    spatial.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    conv3d = nn.Conv3d(c, c, (1, 3, 3), padding=(0, 1, 1))
    copy(conv3d, spatial.conv.weight[:, :, None], spatial.conv.bias)
    yield Pair(
        name="SpatialConv / Conv3d",
        ours=spatial,
        naive=conv3d,
        x=last,
        naive_x=x,
        chosen="always: frames as a batch of views, conv2d; here with the weights channels-last too",
    )

    temporal = TemporalConv(c)
    nn.init.normal_(temporal.conv.weight, std=0.02)
    conv1d = nn.Conv1d(c, c, 3, padding=1)
    copy(conv1d, temporal.conv.weight[..., 0], temporal.conv.bias)

    def by_rearranging(video: Tensor) -> Tensor:
        y = conv1d(rearrange(video, "b c t h w -> (b h w) c t"))
        out: Tensor = video + rearrange(y, "(b h w) c t -> b c t h w", h=h, w=w)
        return out

    yield Pair(
        name="TemporalConv / rearrange, Conv1d",
        ours=temporal,
        naive=by_rearranging,
        x=last,
        naive_x=x,
        chosen="always: pixels as one axis, a (3, 1) conv2d on the view",
    )

    pointwise = Pointwise(c, 3 * c)
    yield Pair(
        name="Pointwise / linear",
        ours=lambda v: pointwise(to_last(v)),
        naive=lambda v: F.linear(to_last(v), pointwise.weight, pointwise.bias),
        x=last,
        naive_x=last,
        chosen="float32 on a CPU, 128 rows and 6 million products or more: a 1x1 conv2d; otherwise `linear`",
    )

    down = SpatialDownsample(c, c)
    yield Pair(
        name="SpatialDownsample / patches, linear",
        ours=down,
        naive=lambda v: from_last(F.linear(patches(v), down.map.weight, down.map.bias)),
        x=last,
        naive_x=x,
        chosen="always: conv2d with a stride of 2",
    )

    channel, root = ChannelNorm(c), RMSNorm(c)

    def by_moments(video: Tensor) -> Tensor:
        mean, var = video.mean(1, keepdim=True), video.var(1, correction=0, keepdim=True)
        return (video - mean) * (var + channel.eps).rsqrt() * channel.gain.view(-1, 1, 1, 1)

    yield Pair(
        name="ChannelNorm / mean and variance",
        ours=channel,
        naive=by_moments,
        x=last,
        naive_x=x,
        chosen="always: the fused layer norm on the channels-last view",
    )
    yield Pair(
        name="RMSNorm / F.normalize",
        ours=root,
        naive=lambda v: F.normalize(v, dim=1) * c**0.5 * root.gain.view(-1, 1, 1, 1),
        x=last,
        naive_x=x,
        chosen="always: the length of each position's channels, then products",
    )
    group = FrameGroupNorm(4, c)
    yield Pair(
        name="FrameGroupNorm / a loop",
        ours=group,
        naive=lambda v: torch.stack([nn.GroupNorm.forward(group, frame) for frame in v.unbind(2)], dim=2),
        x=last,
        naive_x=x,
        chosen="always: frames as a batch of views",
    )

    for name, layer, fold in (
        ("TemporalAttention", TemporalAttention(c, heads), "(b h w) t c"),
        ("SpatialAttention", SpatialAttention(c, heads), "(b t) (h w) c"),
    ):
        nn.init.normal_(layer.out.weight, std=0.02)
        yield Pair(
            name=f"{name} / rearrange, SDPA",
            ours=layer,
            naive=naive_attention(layer, fold, t, h, w),
            x=last,
            naive_x=x,
            chosen="views, 1x1 conv2d, then as `attend`",
        )

    for length in (t, 4 * t):
        q = torch.randn(max(h * w * t // length, 1), heads, length, c // heads)
        yield Pair(
            name=f"attend, {length} tokens: products / SDPA",
            ours=lambda v: attend_by_products(v, v, v),
            naive=lambda v: attend_fused(v, v, v),
            x=q,
            naive_x=q,
            chosen="products up to 32 tokens on a CPU (256 in half precision), SDPA beyond and elsewhere",
        )


def patches(video: Tensor) -> Tensor:
    """Each 2 x 2 patch of pixels as the channels of one position, channels last."""
    return rearrange(video, "b c t (h p) (w q) -> b t h w (c p q)", p=2, q=2)


def naive_attention(
    layer: TemporalAttention | SpatialAttention, fold: str, t: int, h: int, w: int
) -> Function:
    """`layer` with copies into sequences, `nn.Linear`'s kernel and torch's fused attention."""

    def attention(video: Tensor) -> Tensor:
        normed = from_last(
            F.layer_norm(to_last(video), (layer.channels,), layer.norm.gain, None, layer.norm.eps)
        )
        tokens = rearrange(normed, f"b c t h w -> {fold}").contiguous()
        q, k, v = F.linear(tokens, layer.qkv.weight).chunk(3, dim=-1)
        q, k, v = (rearrange(part, "n s (a d) -> n a s d", a=layer.heads).contiguous() for part in (q, k, v))
        bias = layer.bias(t) if isinstance(layer, TemporalAttention) and layer.bias is not None else None
        y = rearrange(F.scaled_dot_product_attention(q, k, v, attn_mask=bias), "n a s d -> n s (a d)")
        y = F.linear(y, layer.out.weight, layer.out.bias)
        return video + rearrange(y, f"{fold} -> b c t h w", t=t, h=h, w=w)

    return attention


def copy(conv: nn.Conv3d | nn.Conv1d, weight: Tensor, bias: Tensor | None) -> None:
    """Gives `conv` these weights."""
    assert conv.bias is not None
    assert bias is not None
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)


if __name__ == "__main__":
    main()
