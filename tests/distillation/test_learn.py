"""The one loop: roles that take turns, and an emphasis that knows what the student is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vdm_blocks.denoisers import ModelDenoiser
from vdm_blocks.diffusion import KeyedNoise
from vdm_blocks.diffusion.noise import NoiseSource
from vdm_blocks.distillation import (
    ConsistencyDistiller,
    Distiller,
    Emphasis,
    GuidanceDistiller,
    Lesson,
    MultistepConsistencyDistiller,
    ProgressiveDistiller,
    learn,
)
from vdm_blocks.sampling import uniform_times
from vdm_blocks.types import Conditioning


class Pair(nn.Module):
    """Two roles that learn."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.critic = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))


def turns(pair: Pair) -> Callable[[int], Distiller]:
    """The critic twice, then the student; each has its own draw of noise."""

    def at(update: int) -> Distiller:
        role = pair.student if update % 3 == 2 else pair.critic

        def loss(x0: Tensor, cond: Conditioning, *, generator: NoiseSource = None) -> Tensor:  # noqa: ARG001
            assert isinstance(generator, KeyedNoise)
            return (x0 * role + generator.normal((2, 3), step=0)).square().mean(1)

        return loss

    return at


def batches(number: int) -> tuple[Tensor, Conditioning]:
    return KeyedNoise(seeds=(0, 1), stage="data").normal((2, 3), step=number), Conditioning()


LESSON = Lesson(updates=7, rate=0.1)


def test_roles_take_turns_and_a_killed_lesson_ends_with_the_same_bits(tmp_path: Path) -> None:
    moved: list[tuple[bool, bool]] = []
    whole = Pair()
    before = [p.detach().clone() for p in whole.parameters()]

    def watch(_update: int, _loss: float) -> None:
        moved.append(tuple(not torch.equal(p, q) for p, q in zip(whole.parameters(), before, strict=True)))  # type: ignore[arg-type]
        before[:] = [p.detach().clone() for p in whole.parameters()]

    learn(whole, turns(whole), LESSON, batches, path=tmp_path / "a", key="k", on_update=watch)
    assert moved == [(i % 3 == 2, i % 3 != 2) for i in range(7)]

    def stop(update: int, _loss: float) -> None:
        if update == 5:
            raise KeyboardInterrupt

    broken = Pair()
    with pytest.raises(KeyboardInterrupt):
        learn(
            broken,
            turns(broken),
            LESSON,
            batches,
            path=tmp_path / "b",
            key="k",
            save_every=2,
            on_update=stop,
        )
    again = Pair()
    seen: list[int] = []
    learn(
        again,
        turns(again),
        LESSON,
        batches,
        path=tmp_path / "b",
        key="k",
        on_update=lambda n, _: seen.append(n),
    )
    assert seen == [5, 6, 7]
    assert all(torch.equal(p, q) for p, q in zip(again.parameters(), whole.parameters(), strict=True))
    with pytest.raises(ValueError, match="belongs to another run"):
        learn(Pair(), turns(again), LESSON, batches, path=tmp_path / "b", key="other")


def test_a_lesson_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="Lesson got updates=0"):
        Lesson(updates=0)
    with pytest.raises(ValueError, match="no parameters that require a gradient"):
        learn(Pair().requires_grad_(False), turns(Pair()), LESSON, batches, path="x", key="k")


class Net(nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG002
        return self.gain * z_t


@pytest.mark.parametrize("name", ["guidance", "progressive", "consistency", "multistep"])
def test_an_emphasis_multiplies_each_sample_s_loss(name: str) -> None:
    teacher, student = ModelDenoiser(Net(0.3)), ModelDenoiser(Net(0.5))
    heard: list[Tensor] = []

    def by_level(logsnr: Tensor, cond: Conditioning) -> Tensor:
        heard.append(logsnr)
        assert cond.aug_logsnr is not None
        return cond.aug_logsnr

    def make(emphasis: Emphasis | None) -> Distiller:
        made: dict[str, Callable[[], Distiller]] = {
            "guidance": lambda: GuidanceDistiller(teacher, student, emphasis=emphasis),
            "progressive": lambda: ProgressiveDistiller(teacher, student, 4, emphasis=emphasis),
            "consistency": lambda: ConsistencyDistiller(
                teacher, student, uniform_times(8), emphasis=emphasis
            ),
            "multistep": lambda: MultistepConsistencyDistiller(
                teacher, student, 2, steps=8, emphasis=emphasis
            ),
        }
        return made[name]()

    x0 = torch.randn(3, 3, 2, 2, 2)
    cond = Conditioning(
        text=torch.zeros(3, 1, 2),
        text_mask=torch.ones(3, 1, dtype=torch.bool),
        aug_logsnr=torch.tensor([1.0, 2.0, 5.0]),
    )
    keyed = KeyedNoise(seeds=(1, 2, 3), stage="a")
    plain = make(None)(x0, cond, generator=keyed)
    assert float(plain.detach().min()) > 0
    torch.testing.assert_close(
        make(by_level)(x0, cond, generator=keyed), plain * torch.tensor([1.0, 2.0, 5.0])
    )
    assert heard[0].shape == (3,)
