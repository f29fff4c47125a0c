from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract import LOCAL, inputs
from torch import nn

from vdm_blocks.checkpoint import save_tensors
from vdm_blocks.models import VideoUNet
from vdm_blocks.training import EMA, ConstantDecay
from vdm_blocks.training.state import TrainingState

RUN = {"stage": "1-base", "seed": "0"}


def begin(seed: int = 0, width: int = 4) -> TrainingState:
    """A small run at step 0; another seed starts from other weights."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, 1))
    return TrainingState(net, EMA(net, ConstantDecay(decay=0.9)), torch.optim.AdamW(net.parameters(), lr=0.1))


def advance(state: TrainingState, upto: int) -> None:
    """Steps whose data depend on the step alone."""
    while state.step < upto:
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(state.step))
        (state.network(x) - x.sum(1, keepdim=True)).square().mean().backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.ema.update(state.network)
        state.step += 1


def assert_same(a: TrainingState, b: TrainingState) -> None:
    assert a.step == b.step
    for own, other in ((a.network, b.network), (a.ema, b.ema)):
        for name, value in own.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    slots, others = a.optimizer.state_dict()["state"], b.optimizer.state_dict()["state"]
    assert slots.keys() == others.keys()
    for index, slot in slots.items():
        assert all(torch.equal(value, others[index][key]) for key, value in slot.items())


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_run_that_was_killed_goes_on_to_the_bit(stop: int, tmp_path: Path) -> None:
    whole = begin()
    advance(whole, 6)
    killed = begin()
    advance(killed, stop)
    killed.save(tmp_path / "state", run=RUN)
    resumed = begin(seed=1)
    resumed.load(tmp_path / "state", run=RUN)
    assert_same(resumed, killed)
    advance(resumed, 6)
    assert_same(resumed, whole)


def test_a_video_network_goes_on_to_the_bit(tmp_path: Path) -> None:
    x = inputs(LOCAL, 1, 2, (4, 4), dtype=torch.float32)

    def step(state: TrainingState) -> None:
        (state.network(x.z_t, x.logsnr, x.cond) - x.z_t).square().mean().backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.ema.update(state.network)
        state.step += 1

    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = VideoUNet(LOCAL)
        states.append(TrainingState(net, EMA(net), torch.optim.Adam(net.parameters(), lr=0.01)))
    first, second = states
    step(first)
    step(first)
    first.save(tmp_path / "state")
    second.load(tmp_path / "state")
    step(first)
    step(second)
    assert_same(first, second)


def test_the_file_of_another_run_is_refused(tmp_path: Path) -> None:
    begin().save(tmp_path / "state", run=RUN)
    with pytest.raises(ValueError, match="belongs to another run"):
        begin().load(tmp_path / "state", run={**RUN, "seed": "1"})
    begin().load(tmp_path / "state")  # no identity asked for, none compared


def test_the_file_of_another_network_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    begin(width=5).save(tmp_path / "state", run=RUN)
    state = begin()
    with pytest.raises(ValueError, match="another network's state"):
        state.load(tmp_path / "state", run=RUN)
    assert_same(state, begin())


def test_the_state_of_another_optimizer_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    state = begin()
    advance(state, 2)
    state.save(tmp_path / "state")
    other = begin(seed=1)
    other.optimizer = torch.optim.SGD(other.network.parameters(), lr=0.1)
    before = {name: x.clone() for name, x in other.network.state_dict().items()}
    with pytest.raises(ValueError, match="holds the state of AdamW, and this run's optimizer is SGD"):
        other.load(tmp_path / "state")
    assert other.step == 0
    for name, x in other.network.state_dict().items():
        assert torch.equal(x, before[name])


@pytest.mark.parametrize("length", [0, 9, 100, -1])
def test_a_truncated_file_is_refused_and_changes_nothing(length: int, tmp_path: Path) -> None:
    state = begin()
    advance(state, 2)
    state.save(tmp_path / "state")
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:length])
    fresh = begin()
    with pytest.raises(ValueError, match="cannot be read as a training state"):
        fresh.load(tmp_path / "state")
    assert_same(fresh, begin())


def test_no_file_and_a_strangers_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read as a training state"):
        begin().load(tmp_path / "none")
    save_tensors(tmp_path / "other", {"a": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="not a training state of this version"):
        begin().load(tmp_path / "other")
