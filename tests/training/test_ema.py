from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from vdm_blocks.training import EMA, ConstantDecay, Decay, PowerDecay, Snapshot, WarmedDecay, reconstruct


class Net(nn.Module):
    """Parameters, a tied one, a buffer that counts and one that is a statistic, and dots in the names."""

    count: Tensor
    statistic: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.tied = self.inner[0].weight
        self.register_buffer("statistic", torch.zeros(3))
        self.register_buffer("count", torch.tensor(0), persistent=False)


@torch.no_grad()
def walk(net: Net, seed: int = 0) -> None:
    """A training step, as far as averages can tell."""
    g = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.add_(torch.randn(p.shape, generator=g))
    net.count.add_(1)
    net.statistic.add_(0.5)


@pytest.mark.parametrize("decay", [ConstantDecay(decay=0.9), WarmedDecay(decay=0.95), PowerDecay(gamma=6.94)])
def test_average_is_the_weighted_sum_of_the_past(decay: Decay) -> None:
    net = Net()
    start = {n: p.detach().double().clone() for n, p in net.named_parameters()}
    ema, expected = EMA(net, decay), start
    for step in range(1, 30):
        walk(net, seed=step)
        ema.update(net)
        d = decay(step)
        expected = {n: d * expected[n] + (1 - d) * p.detach().double() for n, p in net.named_parameters()}
    other = Net()
    ema.copy_to(other)
    for name, p in other.named_parameters():
        assert torch.allclose(p.double(), expected[name], atol=1e-5)
    assert other.count == 29
    assert torch.equal(other.statistic, net.statistic)


def test_warm_up_forgets_the_start() -> None:
    assert [round(WarmedDecay(decay=0.9999)(step), 4) for step in (1, 10, 90)] == [0.1818, 0.55, 0.91]
    assert WarmedDecay(decay=0.5)(10**6) == 0.5


def test_short_dtypes_are_averaged_in_float32() -> None:
    net = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.zeros_(net.weight)
    ema = EMA(net, 0.999)
    nn.init.ones_(net.weight)
    for _ in range(1000):
        ema.update(net)
    assert ema.state_dict()["average.weight"].dtype == torch.float32
    assert abs(float(ema.state_dict()["average.weight"]) - (1 - 0.999**1000)) < 1e-4
    ema.copy_to(net)
    assert net.weight.dtype == torch.bfloat16


def test_the_trained_weights_come_back_even_after_an_error() -> None:
    net = Net()
    ema = EMA(net, 0.5)
    walk(net)
    ema.update(net)
    trained = {n: x.clone() for n, x in itertools.chain(net.named_parameters(), net.named_buffers())}
    with ema.applied(net):
        assert not torch.equal(net.inner[0].weight, trained["tied"])  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="evaluation"), ema.applied(net):
        raise RuntimeError("evaluation failed")
    for name, x in itertools.chain(net.named_parameters(), net.named_buffers()):
        assert torch.equal(x, trained[name])


def test_state_is_tensors_and_goes_on_to_the_bit() -> None:
    net, copy = Net(), Net()
    copy.load_state_dict(net.state_dict())
    ema = EMA(net, WarmedDecay(decay=0.9))
    walk(net)
    ema.update(net)
    state = {name: x.clone() for name, x in ema.state_dict().items()}
    assert all(isinstance(x, Tensor) for x in state.values())
    resumed = EMA(copy, WarmedDecay(decay=0.9))
    resumed.load_state_dict(state)
    walk(net, seed=5)
    ema.update(net)
    resumed.update(net)
    assert resumed.step == ema.step == 2
    assert all(torch.equal(x, resumed.state_dict()[name]) for name, x in ema.state_dict().items())


def test_the_module_is_neither_kept_nor_changed() -> None:
    net = nn.Linear(2, 2)
    before = net.weight.detach().clone()
    ema = EMA(net, 0.5)
    ema.state_dict()["average.weight"].add_(1)
    ema.update(net)
    assert torch.equal(net.weight, before)


def test_another_module_is_refused() -> None:
    ema = EMA(nn.Linear(2, 2), 0.5)
    for other in (nn.Linear(2, 3), nn.Linear(2, 2, bias=False), Net()):
        for use in (ema.update, ema.copy_to):
            with pytest.raises(ValueError, match="not the one that this EMA averages"):
                use(other)
        with pytest.raises(ValueError, match="not the one"), ema.applied(other):
            pass
        with pytest.raises(ValueError, match="the state is not the one"):
            ema.load_state_dict(EMA(other, 0.5).state_dict())
    for bad in (-0.1, 1.0, 2.0):
        with pytest.raises(ValueError, match="below 1"):
            EMA(nn.Linear(2, 2), bad)
        with pytest.raises(ValueError, match="below 1"):
            WarmedDecay(decay=bad)


def test_widths_are_those_of_the_paper() -> None:
    assert abs(PowerDecay.of_width(0.05).gamma - 16.97) < 0.005
    assert abs(PowerDecay.of_width(0.10).gamma - 6.94) < 0.005
    for bad in (0.0, 0.3, -1.0):
        with pytest.raises(ValueError, match="a width lies"):
            PowerDecay.of_width(bad)
    with pytest.raises(ValueError, match="above -1"):
        PowerDecay(gamma=-1.0)


@pytest.mark.parametrize("width", [0.05, 0.1, 0.2])
def test_a_power_profile_has_its_width(width: float) -> None:
    """The weights of the past, by averaging unit vectors: their standard deviation over training is the width."""
    steps, decay = 2000, PowerDecay.of_width(width)
    weights = torch.zeros(steps, dtype=torch.float64)
    for step in range(1, steps + 1):
        weights *= decay(step)
        weights[step - 1] += 1 - decay(step)
    tau = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    mean = (weights * tau).sum()
    assert abs(float(weights.sum()) - 1) < 1e-12
    assert abs(float((weights * (tau - mean) ** 2).sum().sqrt()) - width) < 2e-3


@pytest.mark.parametrize("width", [0.06, 0.08, 0.13])
def test_a_profile_never_tracked_is_reconstructed(width: float) -> None:
    """A random walk of the weights, two tracked averages with 16 snapshots: relative error below 1 in 1000."""
    net = nn.Linear(16, 16)
    tracked = {std: EMA(net, PowerDecay.of_width(std)) for std in (0.05, 0.10)}
    hidden = EMA(net, PowerDecay.of_width(width))
    g, snapshots, steps = torch.Generator().manual_seed(0), [], 1024
    held: Tensor | None = None
    for step in range(1, steps + 1):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=g))
        for ema in (*tracked.values(), hidden):
            ema.update(net)
        if step % 64 == 0:
            for std, ema in tracked.items():
                average = {name: x.clone() for name, x in ema.state_dict().items()}
                snapshots.append(Snapshot(decay=PowerDecay.of_width(std), step=step, average=average))
        if step == 768:
            held = hidden.state_dict()["average.weight"].clone()
    assert held is not None
    for at, truth in ((None, hidden.state_dict()["average.weight"]), (768, held)):
        found = reconstruct(snapshots, PowerDecay.of_width(width), at)
        error = (found["average.weight"] - truth).norm() / truth.norm()
        assert error < 1e-3, (at, float(error))
    assert reconstruct(snapshots, PowerDecay.of_width(width))["step"] == steps


def test_a_tracked_profile_is_reconstructed_exactly() -> None:
    average = {"average.weight": torch.tensor([1.0, 2.0]), "step": torch.tensor(100)}
    other = {"average.weight": torch.tensor([5.0, 9.0]), "step": torch.tensor(50)}
    decay = PowerDecay.of_width(0.1)
    snapshots = [
        Snapshot(decay=decay, step=100, average=average),
        Snapshot(decay=decay, step=50, average=other),
    ]
    assert torch.allclose(
        reconstruct(snapshots, decay)["average.weight"], average["average.weight"], atol=1e-6
    )


def test_snapshots_that_do_not_belong_together_are_refused() -> None:
    decay = PowerDecay.of_width(0.1)
    one = Snapshot(decay=decay, step=10, average={"average.a": torch.zeros(1)})
    with pytest.raises(ValueError, match="given none"):
        reconstruct([], decay)
    with pytest.raises(ValueError, match="same tensors"):
        reconstruct([one, Snapshot(decay=decay, step=20, average={"average.b": torch.zeros(1)})], decay)
    with pytest.raises(ValueError, match="between 1 and that"):
        reconstruct([one], decay, 11)
