"""The networks under DDP and FSDP2, with activations recomputed: gloo, the CPU, one process and two."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from contract import BASE
from ranks import NETWORKS, X, gradients
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from vdm_blocks.models import VideoTransformer, VideoUNet

ROOT = Path(__file__).resolve().parents[2]
every = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
Make = Callable[[], VideoUNet | VideoTransformer]


@pytest.fixture
def _group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


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


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    """Each has one of the two samples; both ways of sharing the work give the mean over processes."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
    }
    team = [
        subprocess.Popen(
            [sys.executable, "-m", "ranks", str(rank), "2", str(tmp_path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=1200)[1] for process in team]
    assert [process.returncode for process in team] == [0, 0], said
    found = load_file(tmp_path / "gradients.safetensors")
    ways = {key.split("/")[0] for key in found}
    assert "ddp" in ways
    assert ("fsdp" in ways) == hasattr(pytest.importorskip("torch.distributed.fsdp"), "fully_shard")
    for name, make in NETWORKS.items():
        want = gradients(make())
        for way in ways:
            for i, exact in enumerate(want):
                away = (
                    found[f"{way}/{name}/{i}"] - exact / 2
                ).norm()  # two sums in float32, in another order
                assert away <= 1e-4 * exact.norm(), (way, name, i)
