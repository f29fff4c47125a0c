"""One of several processes that train a network together: `python -m ranks RANK COUNT FOLDER`.

It takes its share of the samples through both networks, under DDP and under FSDP2, and the first process writes the
gradients down.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from contract import BASE, Inputs, awaken, inputs
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed import fsdp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from vdm_blocks.models import FactorizedSpec, TransformerSpec, VideoTransformer, VideoUNet

X = inputs(BASE, 2, 3, (4, 8), dtype=torch.float32)
TRANSFORMER = TransformerSpec(
    width=12, depth=2, heads=2, mixing=FactorizedSpec(), embedding=8, text_width=BASE.text_width
)


def unet() -> VideoUNet:
    torch.manual_seed(0)
    net = awaken(VideoUNet(BASE))
    assert isinstance(net, VideoUNet)
    net.checkpoint_levels(1)
    return net


def transformer() -> VideoTransformer:
    torch.manual_seed(0)
    net = awaken(VideoTransformer(TRANSFORMER))
    assert isinstance(net, VideoTransformer)
    net.checkpoint_blocks(0)
    return net


NETWORKS: dict[str, Callable[[], VideoUNet | VideoTransformer]] = {"unet": unet, "transformer": transformer}


def gradients(net: nn.Module, x: Inputs = X) -> list[Tensor]:
    net(x.z_t, x.logsnr, x.cond).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    return [p.grad for p in net.parameters() if p.grad is not None]


def part(rank: int) -> Inputs:
    """The sample of this rank."""
    return X.map(lambda value: value[rank : rank + 1])


def main(rank: int, count: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=count)
    found: dict[str, Tensor] = {}
    for name, make in NETWORKS.items():
        net = nn.parallel.DistributedDataParallel(make())
        found |= {f"ddp/{name}/{i}": g for i, g in enumerate(gradients(net, part(rank)))}
        fully_shard = getattr(fsdp, "fully_shard", None)  # since torch 2.6
        if fully_shard is not None:
            sharded, mesh = make(), init_device_mesh("cpu", (count,))
            for unit in (*sharded.units(), sharded):
                fully_shard(unit, mesh=mesh)
            for i, g in enumerate(gradients(sharded, part(rank))):
                assert isinstance(g, DTensor)
                found[f"fsdp/{name}/{i}"] = g.full_tensor()
    if rank == 0:
        save_file({key: value.contiguous() for key, value in found.items()}, folder / "gradients.safetensors")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
