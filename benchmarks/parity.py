"""Our step rules against diffusers' schedulers and k-diffusion's samplers: `python benchmarks/parity.py`.

All are given the exact denoiser of the same data, a Gaussian and then a mixture, in float64, on the same levels, from
the same noise. The exact answer is known: for a deterministic rule the flow map to the clean video (largest absolute
distance), for a stochastic one the distribution of the data (Wasserstein-2 distance of each number, root mean square;
of the Gaussian from its mean and deviation, of the mixture from as many exact samples; the floors are printed).
diffusers keeps its tables in float32, so each of its rules is also run with them widened to float64. After the tables
come the numbers behind what docs/parity.md says of the rows that differ.

The environment: python -m venv --system-site-packages parity && parity/bin/pip install diffusers==0.42.1
k-diffusion, optional: git clone https://github.com/crowsonkb/k-diffusion, then --k-diffusion
k-diffusion/k_diffusion/sampling.py; only that file is loaded, and nothing that it depends on is needed.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from benchmarks import parity_notes
from benchmarks.parity_data import COUNT, SHAPE, Data, example, mixture_example
from benchmarks.parity_runs import noise, run_diffusers, run_ours, widen
from vdm_blocks.diffusion import KarrasSchedule
from vdm_blocks.interop.timesteps import TimestepSchedule
from vdm_blocks.sampling import (
    DDIM,
    Ancestral,
    DPMSolverPP2M,
    EDMHeun,
    StepRule,
    UniPC,
    trailing_times,
)

STEPS = 20
TRAINED = 1000
EQUAL = 1e-4  # below it two samples are the same but for float32


@dataclass(frozen=True, kw_only=True)
class Row:
    """One rule of theirs against ours; `wide` is the difference with their tables in float64."""

    rule: str
    difference: float
    wide: float | None
    theirs: float
    ours: float
    why: str

    @property
    def nearer(self) -> str:
        """Who is nearer the exact answer; nobody where the samples are equal but for float32."""
        if self.difference < EQUAL:
            return "equal"
        return "ours" if self.ours < self.theirs else "theirs"


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| theirs | difference | float64 tables | theirs to exact | ours to exact | nearer | why |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        wide = "" if row.wide is None else f"{row.wide:.1e}"
        numbers = f"{row.difference:.1e} | {wide} | {row.theirs:.5f} | {row.ours:.5f}"
        lines.append(f"| {row.rule} | {numbers} | {row.nearer} | {row.why} |")
    return "\n".join(lines)


def diffusers_rows(data: Data) -> list[Row]:
    """diffusers' schedulers, made for linear betas and 1000 timesteps."""
    import diffusers

    def row(
        name: str,
        rule: StepRule[Any],
        why: str,
        *,
        label: str = "",
        steps: int = STEPS,
        noisy: str = "",
        step: dict[str, Any] | None = None,
        **config: Any,
    ) -> Row:
        fixed: dict[str, Any] = {"beta_start": 1e-4, "beta_end": 0.02, "timestep_spacing": "trailing"}
        if name in ("DDIMScheduler", "DDPMScheduler"):
            fixed["clip_sample"] = False
        outcomes = []
        for wide in (False, True):
            scheduler = getattr(diffusers, name)(prediction_type="sample", **{**fixed, **config})
            scheduler.set_timesteps(steps)
            if wide:
                widen(scheduler)
            g = noise()

            def options(g: torch.Generator = g) -> dict[str, Any]:
                given = dict(step or {})
                if noisy == "generator":
                    given["generator"] = g
                elif noisy:
                    given[noisy] = torch.randn(COUNT, *SHAPE, dtype=torch.float64, generator=g)
                return given

            outcomes.append((run_diffusers(data, scheduler, options), scheduler.alphas_cumprod))
        (theirs, kept), (wider, _) = outcomes
        schedule = TimestepSchedule(alphas_cumprod=kept.double())
        times = trailing_times(steps, train_steps=TRAINED)
        ours = run_ours(data, rule, schedule, times)
        exact = (
            None
            if noisy
            else data.flow(data.start(*schedule.alpha_sigma(times[0])), *schedule.alpha_sigma(times[0]))
        )
        return compare(
            f"diffusers {name.removesuffix('Scheduler')}{label}", data, theirs, ours, exact, why, wider
        )

    same = "same definition"
    dpm = "DPMSolverMultistepScheduler"
    half = same + "; its step casts the sample to float32 whatever it is given"
    return [
        row("DDIMScheduler", DDIM(), same),
        row("DDIMScheduler", DDIM(eta=1), same, label=" eta 1", noisy="variance_noise", step={"eta": 1.0}),
        row(
            "DDIMScheduler",
            DDIM(),
            "it steps to k - 1000 // 30, a little short of the next entry of its grid: noise that makes up for some of "
            "the variance which first-order steps lose",
            label=", 30 steps",
            steps=30,
        ),
        row(
            "DDIMScheduler",
            DDIM(),
            "the same, where that noise is all that is left of the error; it grows with the number of steps",
            label=", 300 steps",
            steps=300,
        ),
        row(
            "DDIMScheduler",
            DDIM(),
            "the default grid, from 950 to 0, not from 999 to 49: its last evaluation is almost at the clean end; on "
            "it ours is equal",
            label=" leading",
            timestep_spacing="leading",
        ),
        row(
            "DDIMScheduler",
            DDIM(),
            "a default: x0 is clipped to [-1, 1], which these data leave",
            label=" clip_sample",
            clip_sample=True,
        ),
        row(dpm, DPMSolverPP2M(), half, label=" 2M"),
        row(
            dpm,
            DPMSolverPP2M(eta=1),
            half,
            label=" 2M SDE",
            noisy="variance_noise",
            algorithm_type="sde-dpmsolver++",
        ),
        row("UniPCMultistepScheduler", UniPC(order=2), same, label=" order 2"),
        row(
            "UniPCMultistepScheduler",
            UniPC(order=3),
            "its order falls to 2 one step before the last, ours does not; equal up to there, and the last step, which "
            "is the same, adds more than that",
            label=" order 3",
            solver_order=3,
        ),
        row("HeunDiscreteScheduler", EDMHeun(), same),
        row("DDPMScheduler", Ancestral(gamma=0), same, label=" fixed_small", noisy="generator"),
        row(
            "DDPMScheduler",
            Ancestral(gamma=1),
            "it leaves the noise out at timestep 0 only, and the last step here starts at 49: noise is added to x0",
            label=" fixed_large",
            noisy="generator",
            variance_type="fixed_large",
        ),
    ]


def compare(
    rule: str,
    data: Data,
    theirs: Tensor,
    ours: Tensor,
    exact: Tensor | None,
    why: str,
    wider: Tensor | None,
) -> Row:
    """A row; `exact` None means a stochastic rule, judged by its moments."""

    def distance(x: Tensor) -> float:
        return data.distance(x) if exact is None else float((x[: len(exact)] - exact).abs().max())

    return Row(
        rule=rule,
        difference=float((theirs - ours).abs().max()),
        wide=None if wider is None else float((wider - ours).abs().max()),
        theirs=distance(theirs),
        ours=distance(ours),
        why=why,
    )


def load_k_diffusion(path: Path) -> ModuleType:
    """k-diffusion's sampling.py alone; what it imports is stood in for by the little that we call.

    Raises:
        ValueError: no file there.
    """
    if not path.is_file():
        raise ValueError(f"--k-diffusion is {path}, which is no file; give a clone's k_diffusion/sampling.py")
    stubs = {
        name: ModuleType(name)
        for name in (
            "k_diffusion",
            "k_diffusion.utils",
            "scipy",
            "torchdiffeq",
            "torchsde",
            "tqdm",
            "tqdm.auto",
        )
    }
    given: dict[str, dict[str, Any]] = {
        "k_diffusion": {"__path__": [], "utils": stubs["k_diffusion.utils"]},
        "k_diffusion.utils": {"append_dims": lambda x, ndim: x.reshape(x.shape + (1,) * (ndim - x.ndim))},
        "scipy": {"integrate": None},
        "torchdiffeq": {"odeint": None},
        "tqdm.auto": {"trange": lambda count, disable=None: range(count), "tqdm": None},  # noqa: ARG005
    }
    for name, members in given.items():
        vars(stubs[name]).update(members)
    spec = importlib.util.spec_from_file_location("k_diffusion.sampling", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with patch.dict(sys.modules, stubs):
        spec.loader.exec_module(module)
    return module


def k_diffusion_rows(data: Data, theirs: Any) -> list[Row]:
    """k-diffusion's samplers on Karras levels from 80 to 0.002, then 0."""
    sigmas = theirs.get_sigmas_karras(STEPS, 0.002, 80.0).double()
    schedule = KarrasSchedule(sigma_min=0.001)
    times = schedule.time(-2 * sigmas[:-1].log()).clamp(max=1)
    times = torch.cat([times, torch.zeros(1, dtype=torch.float64)])
    one = torch.ones((), dtype=torch.float64)
    z = data.start(one, sigmas[0])

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        return data.denoise(x, one, sigma[0])

    def row(name: str, rule: StepRule[Any], why: str, *, noisy: bool = False) -> Row:
        g = noise()

        def draw(*_: Tensor) -> Tensor:
            return torch.randn(COUNT, *SHAPE, dtype=torch.float64, generator=g)

        options = {"noise_sampler": draw} if noisy else {}
        x = getattr(theirs, f"sample_{name}")(model, z, sigmas, **options)
        exact = None if noisy else data.flow(z, one, sigmas[0])
        return compare(
            f"k-diffusion {name}", data, x, run_ours(data, rule, schedule, times), exact, why, None
        )

    same = "same definition"
    return [
        row("euler", DDIM(), same),
        row("euler_ancestral", Ancestral(gamma=0), same, noisy=True),
        row("heun", EDMHeun(), same),
        row("dpmpp_2m", DPMSolverPP2M(), same),
        row("dpmpp_2m_sde", DPMSolverPP2M(eta=1), same, noisy=True),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--k-diffusion", type=Path, help="a clone's k_diffusion/sampling.py")
    args = parser.parse_args()
    if importlib.util.find_spec("diffusers") is None:
        parser.error(
            "diffusers is not installed here; pip install diffusers==0.42.1 in an environment of its own"
        )
    import diffusers

    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}, {STEPS} steps, {COUNT} samples")
    for name, data in (("one Gaussian", example()), ("a mixture of three", mixture_example())):
        floor = data.distance(data.start(one, zero))
        print(f"\n{name}; exact samples are {floor:.5f} from the exact distribution\n")
        rows = diffusers_rows(data)
        if args.k_diffusion is not None:
            rows += k_diffusion_rows(data, load_k_diffusion(args.k_diffusion))
        print(table(rows), flush=True)
    parity_notes.report()


if __name__ == "__main__":
    main()
