"""The networks under DDP and FSDP2, with activations recomputed: one process, gloo, the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from contract import BASE, awaken, inputs
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from vdm_blocks.models import FactorizedSpec, TransformerSpec, VideoTransformer, VideoUNet

X = inputs(BASE, 2, 3, (4, 8), dtype=torch.float32)
TRANSFORMER = TransformerSpec(
    width=12, depth=2, heads=2, mixing=FactorizedSpec(), embedding=8, text_width=BASE.text_width
)


def unet() -> VideoUNet:
    net = awaken(VideoUNet(BASE))
    assert isinstance(net, VideoUNet)
    net.checkpoint_levels(1)
    return net


def transformer() -> VideoTransformer:
    net = awaken(VideoTransformer(TRANSFORMER))
    assert isinstance(net, VideoTransformer)
    net.checkpoint_blocks(0)
    return net


every = pytest.mark.parametrize("make", [unet, transformer])
Make = Callable[[], VideoUNet | VideoTransformer]


@pytest.fixture
def _group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def gradients(net: nn.Module) -> list[Tensor]:
    net(X.z_t, X.logsnr, X.cond).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    return [p.grad for p in net.parameters() if p.grad is not None]


@every
def test_units_are_disjoint_and_hold_nearly_all_weights(make: Make) -> None:
    net = make()
    units = list(net.units())
    inside = [p for unit in units for p in unit.parameters()]
    assert len(inside) == len({id(p) for p in inside})
    ran: list[nn.Module] = []
    for unit in units:
        unit.register_forward_pre_hook(lambda module, _: ran.append(module))
    with torch.no_grad():
        net(X.z_t, X.logsnr, X.cond)
    assert ran == units
    if isinstance(net, VideoUNet):
        assert len(units) == 2 * sum(level.blocks for level in BASE.levels)


@every
@pytest.mark.usefixtures("_group")
def test_data_parallel_has_the_same_gradients(make: Make) -> None:
    net = make()
    want = gradients(copy.deepcopy(net))
    parallel = nn.parallel.DistributedDataParallel(net)
    for got, exact in zip(gradients(parallel), want, strict=True):
        torch.testing.assert_close(got, exact)


@every
@pytest.mark.usefixtures("_group")
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view tensor:UserWarning")
def test_fully_sharded_has_the_same_gradients_and_loads_the_same_state(make: Make) -> None:
    fully_shard = getattr(pytest.importorskip("torch.distributed.fsdp"), "fully_shard", None)
    if fully_shard is None:
        pytest.skip("fully_shard came with torch 2.6")
    net, mesh = make(), init_device_mesh("cpu", (1,))
    want, names = gradients(copy.deepcopy(net)), list(net.state_dict())
    for unit in (*net.units(), net):
        fully_shard(unit, mesh=mesh)
    assert list(net.state_dict()) == names
    for got, exact in zip(gradients(net), want, strict=True):
        assert isinstance(got, DTensor)
        torch.testing.assert_close(got.full_tensor(), exact)
