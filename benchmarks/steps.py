"""What a step costs beyond its bare arithmetic, and what the loop holds: `python benchmarks/steps.py`.

The network costs nothing here: it answers with videos that are there already. While one step of a rule runs, every
operation on something as large as the video is written down; replayed alone, with the numbers that the rule had found,
they are the bare arithmetic. The overhead is what the rule takes beyond that: schedules, scalars, Python. Both are
timed in turn, and the least of the rounds counts. The peak of memory is the loop's own, with a network that answers
with two new videos, in multiples of the bytes of z, which counts as one of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from vdm_blocks.diffusion import CosineSchedule
from vdm_blocks.sampling import (
    DDIM,
    Ancestral,
    DistilledStochastic,
    DPMSolverPP2M,
    EDMChurn,
    EDMHeun,
    Heun,
    LangevinCorrector,
    Restart,
    StepDraw,
    StepRule,
    UniPC,
    sample,
    uniform_times,
)
from vdm_blocks.types import Conditioning, Denoised

RULES: tuple[StepRule[Any], ...] = (
    DDIM(),
    DDIM(eta=1.0),
    Ancestral(),
    DistilledStochastic(),
    DPMSolverPP2M(),
    DPMSolverPP2M(eta=1.0),
    UniPC(),
    UniPC(order=3),
    Heun(),
    EDMHeun(),
    EDMChurn(),
    LangevinCorrector(rule=Ancestral()),
    Restart(rule=DDIM(), noisy_logsnr=-1.5, clean_logsnr=-0.5, steps=2),
)
SIZES = ((1, 3, 1, 16, 16), (1, 3, 16, 24, 40), (1, 3, 32, 48, 80))
TIMES = uniform_times(8)
STEP = 3  # of the grid; the restart lies in it, and the multistep rules have their history


@dataclass
class Answers:
    """A denoiser that answers with two videos, the same or new ones, and counts how often."""

    answer: Callable[[], Denoised]
    calls: int = 0
    schedule: CosineSchedule = field(default_factory=CosineSchedule)

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        self.calls += 1
        return self.answer()


class Recorder(TorchDispatchMode):
    """Writes down the operations on tensors of `size` numbers or more."""

    def __init__(self, size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = size
        self.made: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        leaves = tree_flatten((args, kwargs, out))[0]
        if any(isinstance(x, Tensor) and x.numel() >= self.size for x in leaves):
            self.made.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> Callable[[], Any]:
        """What was written down, to be done again on its own; it gives the last result."""
        slots: dict[int, int] = {id(out): i for i, (_, _, _, out) in enumerate(self.made)}
        plan = []
        for i, (func, args, kwargs, _) in enumerate(self.made):
            flat, spec = tree_flatten((args, kwargs))
            where = [(k, slots[id(x)]) for k, x in enumerate(flat) if slots.get(id(x), i) < i]
            plan.append((func, args, kwargs, where, flat, spec))

        def run() -> Any:
            out: list[Any] = []
            for func, args, kwargs, where, flat, spec in plan:
                if where:
                    flat = list(flat)
                    for k, slot in where:
                        flat[k] = out[slot]
                    args, kwargs = spec.unflatten(flat)
                out.append(func(*args, **kwargs))
            return out[-1]

        return run


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One rule at one size: evaluations, microseconds of a step and of its bare arithmetic."""

    evaluations: int
    step: float
    bare: float


def measure(rule: StepRule[Any], shape: tuple[int, ...], seconds: float) -> Measured:
    """One step in the middle of a chain."""
    x0, eps, z = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)).unbind()
    denoiser, generator, cond = Answers(lambda: Denoised(x0, eps)), torch.Generator(), Conditioning()
    state = rule.start(TIMES)
    with torch.no_grad():
        for i in range(STEP):
            draw = StepDraw(generator, i)
            result = rule(denoiser, z, TIMES[i], TIMES[i + 1], cond, state, draw)
            z, state = result.z, result.state

        def step() -> None:
            draw = StepDraw(generator, STEP)
            rule(denoiser, z, TIMES[STEP], TIMES[STEP + 1], cond, state, draw)

        denoiser.calls = 0
        with Recorder(z.numel()) as recorder:
            step()
        evaluations, bare = denoiser.calls, recorder.replay()
        best = [float("inf"), float("inf")]
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            for which, run in enumerate((step, bare)):
                begun = time.perf_counter()
                run()
                best[which] = min(best[which], time.perf_counter() - begun)
    return Measured(evaluations=evaluations, step=1e6 * best[0], bare=1e6 * best[1])


def peak(rule: StepRule[Any], shape: tuple[int, ...]) -> float:
    """The most that torch held during a whole chain, z included, in videos."""
    z = torch.zeros(shape)
    denoiser = Answers(lambda: Denoised(torch.zeros(shape), torch.zeros(shape)))
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        sample(denoiser, rule, TIMES, z, Conditioning())
    assert profiler.profiler is not None
    results = profiler.profiler.kineto_results
    assert results is not None
    held = most = 0
    for event in sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return 1 + most / (z.numel() * z.element_size())


def name(rule: StepRule[Any]) -> str:
    """Its class, and what it is told besides other rules' defaults."""
    inner = getattr(rule, "rule", None)
    if inner is not None:
        return f"{type(rule).__name__}({name(inner)})"
    return str(rule)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=0.4, help="for each rule and size")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; microseconds a step, least of many")
    sizes = ["x".join(str(n) for n in shape[1:]) for shape in SIZES]
    print(f"{'over the bare arithmetic (which alone), at z of':60}" + "".join(f"{s:>20}" for s in sizes))
    print(f"{'rule':36}{'evaluations':>12}{'peak / z':>12}")
    for rule in RULES:
        found = [measure(rule, shape, args.seconds) for shape in SIZES]
        cells = "".join(f"{one.step - one.bare:11.0f} ({one.bare:6.0f})" for one in found)
        print(f"{name(rule):36}{found[0].evaluations:12}{peak(rule, SIZES[2]):12.2f}{cells}", flush=True)


if __name__ == "__main__":
    main()
