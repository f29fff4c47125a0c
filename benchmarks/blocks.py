"""Each block against its naive form, with the same weights and the same result: `python benchmarks/blocks.py`.

The naive form is what one writes first: contiguous video, `nn.Conv3d`, rearranged copies, `nn.Linear`, norms from
means. Both are checked to agree, then timed in one process in shuffled rounds; a row gives the least process CPU time
of each and their ratio, forward and forward with backward. `--quick` takes small shapes and few rounds.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vdm_blocks.nn import (
    ChannelNorm,
    FrameGroupNorm,
    Pointwise,
    RMSNorm,
    SpatialAttention,
    SpatialConv,
    TemporalAttention,
    TemporalConv,
    attend_by_products,
    attend_fused,
    channels_last,
    from_last,
    to_last,
)

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A block, its naive form, and what each is given."""

    name: str
    ours: Function
    naive: Function
    x: Tensor
    naive_x: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small shapes, few rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=0, help="of timing (15, quick 3)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    shape = (1, 16, 4, 6, 10) if args.quick else (1, 128, 16, 24, 40)
    rounds = args.rounds or (3 if args.quick else 15)
    print(
        f"torch {torch.__version__}, {args.threads} threads, video {shape}, least of {rounds} rounds, CPU ms"
    )
    print(f"{'':34}{'forward':>24}{'forward and backward':>30}")
    print(f"{'block':34}{'ours':>8}{'naive':>8}{'ratio':>8}{'ours':>14}{'naive':>8}{'ratio':>8}")
    for pair in pairs(shape):
        torch.testing.assert_close(pair.ours(pair.x), pair.naive(pair.naive_x), rtol=1e-3, atol=1e-4)
        forward, both = (timed(pair, rounds, backward=backward) for backward in (False, True))
        cells = "".join(
            f"{1e3 * ours:{width}.2f}{1e3 * naive:8.2f}{naive / ours:7.2f}x"
            for width, (ours, naive) in ((8, forward), (14, both))
        )
        print(f"{pair.name:34}{cells}")


def timed(pair: Pair, rounds: int, *, backward: bool) -> tuple[float, float]:
    """The least process CPU seconds of the block and of its naive form."""
    least = {True: float("inf"), False: float("inf")}
    order = [True, False] * rounds
    random.Random(0).shuffle(order)
    for ours in (True, False, *order):
        function, x = (pair.ours, pair.x) if ours else (pair.naive, pair.naive_x)
        start = time.process_time()
        if backward:
            leaf = x.detach().requires_grad_()
            out = function(leaf)
            out.backward(torch.ones_like(out))
        else:
            with torch.no_grad():
                function(x)
        least[ours] = min(least[ours], time.process_time() - start)
    return least[True], least[False]


def pairs(shape: tuple[int, int, int, int, int]) -> Iterator[Pair]:
    """What is compared, on a video of `shape`."""
    _, c, t, h, w = shape
    heads = c // 16
    x = torch.randn(shape)
    last = channels_last(x)

    spatial = SpatialConv(c, c)
    conv3d = nn.Conv3d(c, c, (1, 3, 3), padding=(0, 1, 1))
    copy(conv3d, spatial.conv.weight[:, :, None], spatial.conv.bias)
    yield Pair(name="SpatialConv / Conv3d", ours=spatial, naive=conv3d, x=last, naive_x=x)

    temporal = TemporalConv(c)
    nn.init.normal_(temporal.conv.weight, std=0.02)
    conv1d = nn.Conv1d(c, c, 3, padding=1)
    copy(conv1d, temporal.conv.weight[..., 0], temporal.conv.bias)

    def by_rearranging(video: Tensor) -> Tensor:
        y = conv1d(rearrange(video, "b c t h w -> (b h w) c t"))
        out: Tensor = video + rearrange(y, "(b h w) c t -> b c t h w", h=h, w=w)
        return out

    yield Pair(
        name="TemporalConv / rearrange, Conv1d", ours=temporal, naive=by_rearranging, x=last, naive_x=x
    )

    pointwise = Pointwise(c, 3 * c)
    yield Pair(
        name="Pointwise / linear",
        ours=lambda v: pointwise(to_last(v)),
        naive=lambda v: F.linear(to_last(v), pointwise.weight, pointwise.bias),
        x=last,
        naive_x=last,
    )

    channel, root = ChannelNorm(c), RMSNorm(c)

    def by_moments(video: Tensor) -> Tensor:
        mean, var = video.mean(1, keepdim=True), video.var(1, correction=0, keepdim=True)
        return (video - mean) * (var + channel.eps).rsqrt() * channel.gain.view(-1, 1, 1, 1)

    yield Pair(name="ChannelNorm / mean and variance", ours=channel, naive=by_moments, x=last, naive_x=x)
    yield Pair(
        name="RMSNorm / F.normalize",
        ours=root,
        naive=lambda v: F.normalize(v, dim=1) * c**0.5 * root.gain.view(-1, 1, 1, 1),
        x=last,
        naive_x=x,
    )
    group = FrameGroupNorm(4, c)
    yield Pair(
        name="FrameGroupNorm / a loop",
        ours=group,
        naive=lambda v: torch.stack([nn.GroupNorm.forward(group, frame) for frame in v.unbind(2)], dim=2),
        x=last,
        naive_x=x,
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
        )

    for length in (t, 4 * t):
        q = torch.randn(max(h * w * t // length, 1), heads, length, c // heads)
        yield Pair(
            name=f"attend, {length} tokens: products / SDPA",
            ours=lambda v: attend_by_products(v, v, v),
            naive=lambda v: attend_fused(v, v, v),
            x=q,
            naive_x=q,
        )


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
