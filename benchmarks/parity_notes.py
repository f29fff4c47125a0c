"""Why the rows of `parity.py` that differ do: what its page says of them in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.parity_data import Data, DataDenoiser, Gaussian, example, mixture_example
from benchmarks.parity_runs import run_diffusers, run_ours, widen
from vdm_blocks.interop.timesteps import TimestepSchedule
from vdm_blocks.sampling import DDIM, Draw, StepResult, UniPC, sample, trailing_times, uniform_logsnr_times
from vdm_blocks.sampling.unipc import UniPCState
from vdm_blocks.types import Conditioning, Denoiser

TRAINED = 1000


def made(name: str, steps: int, **config: Any) -> tuple[Any, TimestepSchedule]:
    """A diffusers scheduler with its tables in float64, and the schedule that they are."""
    import diffusers

    fixed: dict[str, Any] = {"beta_start": 1e-4, "beta_end": 0.02, "timestep_spacing": "trailing"}
    scheduler = getattr(diffusers, name)(prediction_type="sample", **{**fixed, **config})
    scheduler.set_timesteps(steps)
    widen(scheduler)
    return scheduler, TimestepSchedule(alphas_cumprod=scheduler.alphas_cumprod)


def shares(data: Gaussian, steps: int) -> dict[str, tuple[float, float]]:
    """What DDIM's samples have of the data's smallest and of its largest deviation, ours and theirs."""
    scheduler, schedule = made("DDIMScheduler", steps, clip_sample=False)
    times = trailing_times(steps, train_steps=TRAINED)
    exact = data.flow(data.start(*schedule.alpha_sigma(times[0])), *schedule.alpha_sigma(times[0]))
    ours = run_ours(data, DDIM(), schedule, times)
    ends = [int(data.std.argmin()), int(data.std.argmax())]
    found = {}
    for whose, x in (("ours", ours), ("theirs", run_diffusers(data, scheduler))):
        small, large = (x.std(0) / exact.std(0)).flatten()[ends].tolist()
        found[whose] = (small, large)
    return found


def clean_ends(data: Data, steps: int) -> dict[str, tuple[float, float]]:
    """DDIM's distance to the flow, root mean square and largest, on grids that end differently."""
    scheduler, schedule = made("DDIMScheduler", steps, clip_sample=False, timestep_spacing="leading")
    zero = torch.zeros(1, dtype=torch.float64)
    leading = torch.cat([(scheduler.timesteps.double() + 1) / TRAINED, zero])
    trailing = trailing_times(steps, train_steps=TRAINED)
    finer = torch.cat([trailing[:-1], zero + 1 / TRAINED, zero])
    noisy = data.start(*schedule.alpha_sigma(trailing[0]))

    def distance(x: Tensor, start: Tensor, time: Tensor) -> tuple[float, float]:
        exact = data.flow(start, *schedule.alpha_sigma(time))
        away = x[: len(exact)] - exact
        return float(away.square().mean().sqrt()), float(away.abs().max())

    true = data.start(*schedule.alpha_sigma(leading[0]))
    theirs = run_diffusers(data, scheduler)
    same = theirs - sample(DataDenoiser(data, schedule), DDIM(), leading, noisy, Conditioning())
    return {
        "theirs, leading": distance(theirs, noisy, trailing[0]),
        "theirs less ours on its levels": (float(same.square().mean().sqrt()), float(same.abs().max())),
        "ours, leading, from a true z of its first level": distance(
            run_ours(data, DDIM(), schedule, leading), true, leading[0]
        ),
        "ours, trailing": distance(run_ours(data, DDIM(), schedule, trailing), noisy, trailing[0]),
        "ours, trailing and once more at 0": distance(
            run_ours(data, DDIM(), schedule, finer), noisy, trailing[0]
        ),
    }


@dataclass(frozen=True)
class FallingUniPC:
    """UniPC of order 3 that falls to order 2 for steps from `last` on, as diffusers' does one before its last."""

    last: float

    def start(self, times: Tensor) -> None:
        """Nothing is remembered yet."""

    def __call__(
        self,
        denoiser: Denoiser,
        z_t: Tensor,
        t: Tensor,
        s: Tensor,
        cond: Conditioning,
        state: UniPCState | None,
        draw: Draw,
    ) -> StepResult[UniPCState | None]:
        """A step of the order that it is at."""
        rule = UniPC(order=3 if float(t) > self.last else 2)
        return rule(denoiser, z_t, t, s, cond, state, draw)


def ends_of_unipc(data: Data, steps: int) -> dict[str, tuple[float, float]]:
    """UniPC of order 3, falling or not, on the trailing grid and on two with a short last step, from timestep 0."""
    scheduler, schedule = made("UniPCMultistepScheduler", steps, solver_order=3)
    trailing = trailing_times(steps, train_steps=TRAINED)
    zero = torch.zeros(1, dtype=torch.float64)
    exact = data.flow(data.start(*schedule.alpha_sigma(trailing[0])), *schedule.alpha_sigma(trailing[0]))
    noisy, clean = (float(schedule.logsnr(t)) for t in (trailing[0], zero[0] + 1 / TRAINED))
    even = uniform_logsnr_times(steps, schedule, logsnr_min=noisy, logsnr_max=clean)
    found = {}
    for name, times in (
        ("trailing", trailing),
        ("and once more at 0", torch.cat([trailing[:-1], zero + 1 / TRAINED, zero])),
        ("even in log-SNR, down to 0", even),
    ):
        for kind, rule in (("staying", UniPC(order=3)), ("falling", FallingUniPC(float(times[-3])))):
            x = run_ours(data, rule, schedule, times)
            away = x[: len(exact)] - exact
            found[f"{name}, {kind}"] = (float(away.square().mean().sqrt()), float(away.abs().max()))
            if name == "trailing" and kind == "falling":
                same = run_diffusers(data, scheduler) - x
                found["theirs less ours, falling"] = (
                    float(same.square().mean().sqrt()),
                    float(same.abs().max()),
                )
    return found


def carried(data: Data, steps: int) -> list[tuple[int, dict[str, tuple[float, float]]]]:
    """The errors of UniPC of order 3 that the exact flow would leave from each of the last levels.

    The z after a step is carried to the clean video by the exact flow, and compared with where the flow ends from the
    start: root mean square, then largest. What is gained from one level to the next, that step adds.
    """
    scheduler, schedule = made("UniPCMultistepScheduler", steps, solver_order=3)
    times = trailing_times(steps, train_steps=TRAINED)
    reached: dict[str, list[Tensor]] = {"ours": [], "theirs": []}
    run_ours(data, UniPC(order=3), schedule, times, reached["ours"].append)
    run_diffusers(data, scheduler, told=reached["theirs"].append)
    exact = data.flow(data.start(*schedule.alpha_sigma(times[0])), *schedule.alpha_sigma(times[0]))
    rows = []
    for i in range(steps - 3, steps + 1):
        row = {}
        for whose, z in reached.items():
            at = z[i - 1][: len(exact)]
            away = (at if i == steps else data.flow(at, *schedule.alpha_sigma(times[i]))) - exact
            row[whose] = (float(away.square().mean().sqrt()), float(away.abs().max()))
        rows.append((i, row))
    return rows


def report() -> None:
    """Print all of it."""
    data = example()
    print("\nDDIM's samples of one Gaussian: their share of its smallest and of its largest deviation")
    for steps in (20, 30, 300, 600):
        found = shares(data, steps)
        print(f"  {steps} steps: " + "; ".join(f"{who} {a:.2f} and {b:.2f}" for who, (a, b) in found.items()))
    print("\nDDIM on one Gaussian, 20 steps: the distance to the flow, root mean square (and largest)")
    for where, (rms, most) in clean_ends(data, 20).items():
        print(f"  {where}: {rms:.3g} ({most:.3g})")
    for name, each in (("one Gaussian", data), ("a mixture of three", mixture_example())):
        print(
            f"\nUniPC of order 3 on {name}, 20 steps: the distance to the flow, root mean square (and largest)"
        )
        for where, (rms, most) in ends_of_unipc(each, 20).items():
            print(f"  {where}: {rms:.2g} ({most:.2g})")
        for steps in (20, 100):
            print(
                f"\nUniPC of order 3 on {name}, {steps} steps: the same, if the flow were exact from there on"
            )
            for i, row in carried(each, steps):
                print(
                    f"  after step {i}: "
                    + "; ".join(f"{who} {a:.4f} ({b:.4f})" for who, (a, b) in row.items())
                )
