from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from course import descend
from safetensors.torch import load_file, save_file
from team import ALONE, Team
from torch import Tensor, nn

from vdm_blocks.training import EMA
from vdm_blocks.training.state import TrainingState

ROOT = Path(__file__).resolve().parents[2]
BATCH = torch.tensor([[1.0, 2.0], [-0.5, 0.25], [0.75, -1.0], [-2.0, 0.5]])
TWICE = torch.tensor([False, False, True, True])
"""Which samples go through the second layer as well: none of the first process's."""


class Branching(nn.Module):
    """A layer for all samples, one for a few, and one for none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.always, self.sometimes, self.never = (nn.Linear(2, 2) for _ in range(3))

    def forward(self, x: Tensor, twice: Tensor) -> Tensor:
        """The mean over samples, which never touches a layer that none of them needs."""
        y: Tensor = self.always(x)
        if bool(twice.any()):
            y = torch.where(twice[:, None], self.sometimes(y), y)
        return y.square().mean()


def two_steps(team: Team) -> dict[str, Tensor]:
    """The weights and the losses after two steps of decaying momentum on the team's part of the batch."""
    network = Branching()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    state = TrainingState(network, EMA(network, 0.5), optimizer)
    ours = team.part(len(BATCH))
    losses = [descend(state, network(BATCH[ours], TWICE[ours]), team) for _ in range(2)]
    return {**network.state_dict(), "losses": torch.tensor(losses)}


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "examples" / "cascade"))),
    }
    started = [
        subprocess.Popen([sys.executable, __file__, str(tmp_path)], env=shared | {"RANK": rank})
        for rank in ("0", "1")
    ]
    try:
        assert [process.wait(timeout=120) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    alone, first, second = two_steps(ALONE), *(load_file(tmp_path / name) for name in ("0", "1"))
    begun = Branching().state_dict()
    for name, value in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=1e-6, atol=1e-7)
        if name.startswith("never"):  # without a gradient there is no decay either
            assert torch.equal(first[name], begun[name])
        elif name != "losses":
            assert not torch.equal(first[name], begun[name])


def test_a_batch_is_dealt_out_evenly_or_not_at_all() -> None:
    whole = range(6)
    assert [list(whole[Team(rank=rank, size=3).part(6)]) for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert list(whole[ALONE.part(6)]) == list(whole)
    assert [Team(rank=rank, size=2).writes for rank in range(2)] == [True, False]
    with pytest.raises(ValueError, match=r"a batch of 6 cannot be dealt out to 4 processes; start a number"):
        Team(size=4).part(6)


if __name__ == "__main__":
    joined = Team.join(torch.device("cpu"))
    save_file(two_steps(joined), Path(sys.argv[1]) / str(joined.rank))
    torch.distributed.destroy_process_group()
