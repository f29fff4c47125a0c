# %% [markdown]
# # From 64 steps to 2
#
# A small video model is trained on clips of a dot that flies, and then distilled: each student makes in one step what
# its teacher makes in two, and becomes the teacher of the next (arXiv 2202.00512). Every rung of the ladder is shown,
# from the same noise, beside what the undistilled model gives in as many steps. All of it takes two minutes on two
# cores.

# %%
import copy
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from safetensors.torch import load_file
from torch import Tensor

from vdm_blocks.denoisers import ModelDenoiser
from vdm_blocks.diffusion import KeyedNoise, LowDiscrepancyTimes
from vdm_blocks.distillation import distill, halvings
from vdm_blocks.models import LevelSpec, TemporalConvSpec, UNetSpec, VideoUNet
from vdm_blocks.sampling import DDIM, sample, uniform_times
from vdm_blocks.training import DiffusionLoss
from vdm_blocks.types import Conditioning, Denoiser

NOTHING = Conditioning()
SHAPE = (1, 4, 8, 8)  # channels, frames, height, width

# %% [markdown]
# ## The data
#
# A round dot starts somewhere and moves by up to a pixel a frame, around the edges of an 8 x 8 frame. A clip is
# determined by four numbers; there is a number for each batch of them, so that every run sees the same.


# %%
def clips(count: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    start = 8 * torch.rand(count, 1, 2, generator=draw)
    speed = 2 * torch.rand(count, 1, 2, generator=draw) - 1
    place = start + speed * torch.arange(4.0)[:, None]  # (count, frames, 2)
    away = (torch.arange(8.0) - place[..., None] + 4) % 8 - 4  # (count, frames, 2, 8), the shorter way round
    bump = torch.exp(-(away**2) / 2.5)
    return 2 * (bump[:, :, 0, :, None] * bump[:, :, 1, None, :])[:, None] - 1


def show(rows: dict[str, Tensor], title: str) -> None:
    """Three clips a row, their frames side by side, with a wider gap from clip to clip."""
    figure, axes = plt.subplots(len(rows), 1, figsize=(7, 0.75 * len(rows)), layout="constrained")
    for axis, (name, videos) in zip(axes, rows.items(), strict=True):
        frames = torch.nn.functional.pad(videos[:3, 0], (1, 0, 1, 1), value=0.3)
        strips = [torch.nn.functional.pad(torch.cat(list(clip), dim=1), (1, 2), value=0.3) for clip in frames]
        axis.imshow(torch.cat(strips, dim=1).clamp(-1, 1), cmap="gray", vmin=-1, vmax=1)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
    figure.suptitle(title)
    plt.show()


# %% [markdown]
# ## The teacher

# %%
torch.manual_seed(0)
spec = UNetSpec(
    levels=(
        LevelSpec(channels=32, temporal=TemporalConvSpec()),
        LevelSpec(channels=48, temporal=TemporalConvSpec()),
    ),
    channels=1,
    embedding=64,
    text_width=0,
    fold=2,
)
teacher = ModelDenoiser(VideoUNet(spec))
UPDATES, HALVING, BATCH = 1000, 150, 32

began = time.perf_counter()
optimizer = torch.optim.Adam(teacher.parameters(), 2e-3)
times, losses = LowDiscrepancyTimes(), []
for update in range(UPDATES):
    optimizer.param_groups[0]["lr"] = 2e-3 * (1 - update / UPDATES)
    noise = KeyedNoise(seeds=tuple(range(BATCH)), stage=f"teacher {update}")
    t = times.draw(BATCH, seed=0, step=update)
    loss = DiffusionLoss()(teacher, clips(BATCH, update), t, NOTHING, generator=noise).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(float(loss.detach()))
teacher.eval().requires_grad_(False)
print(f"{UPDATES} updates; the loss over the last 50 is {sum(losses[-50:]) / 50:.4f}")

# %% [markdown]
# ## The judge
#
# The energy distance between samples and clips that nobody was trained on, at four seeds: 0 where the two have the same
# distribution. The driver stops with a reason where a rung is worse than the teacher by more than so many of
# the teacher's standard deviations; here it shall go on to the end, to show where it breaks.


# %%
def energy_distance(a: Tensor, b: Tensor) -> float:
    a, b = a.flatten(1), b.flatten(1)

    def within(x: Tensor) -> Tensor:
        return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))

    return float(2 * torch.cdist(a, b).mean() - within(a) - within(b))


def judge(denoiser: Denoiser, steps: int) -> list[float]:
    distances = []
    for seed in range(4):
        start = KeyedNoise(seeds=tuple(range(64)), stage=f"judge {seed}").normal((64, *SHAPE), step=0)
        made = sample(denoiser, DDIM(), uniform_times(steps), start, NOTHING)
        distances.append(energy_distance(made, clips(512, 1_000_000 + seed)))
    return distances


# %% [markdown]
# ## Down the ladder
#
# The student starts from the teacher's weights. Were this killed, the same call would go on where it stood, and end
# with the same bits.

# %%
folder = Path(tempfile.mkdtemp())
student = copy.deepcopy(teacher).requires_grad_()
ladder = distill(
    teacher,
    student,
    halvings(64, 2, updates=HALVING, rate=1e-3),
    lambda update: (clips(BATCH, 100_000 + update), NOTHING),
    judge,
    folder=folder,
    teacher_steps=64,
    width=float("inf"),
)
print(ladder.table())
print(f"\n{time.perf_counter() - began:.0f} s")

# %% [markdown]
# The teacher, made to take as few steps, is the yardstick: this is what the rungs are better than. A dot that leaves
# through one edge comes back through the opposite one, so some frames show parts of it in the corners.

# %%
start = KeyedNoise(seeds=(1, 2, 3), stage="show").normal((3, *SHAPE), step=0)
counts = [64, *(result.rung.steps for result in ladder.rungs)]
plain = {n: sample(teacher, DDIM(), uniform_times(n), start, NOTHING) for n in counts}
reached = {64: plain[64]}
for result in ladder.rungs:
    rung = copy.deepcopy(teacher)
    rung.load_state_dict(load_file(folder / result.weights))
    reached[result.rung.steps] = sample(rung, DDIM(), uniform_times(result.rung.steps), start, NOTHING)

show({f"{n} steps": reached[n] for n in counts}, "distilled, from the same noise")
show({f"{n} steps": plain[n] for n in counts}, "the teacher, in as few steps")

# %%
away = {n: float((reached[n] - plain[64]).square().mean().sqrt()) for n in counts[1:]}
lost = {n: float((plain[n] - plain[64]).square().mean().sqrt()) for n in counts[1:]}
print("steps   distance to the teacher's 64 steps: distilled, undistilled")
for n in counts[1:]:
    print(f"{n:>5} {away[n]:>30.3f} {lost[n]:>14.3f}")

# %%
quality = [sum(r.quality) / 4 for r in ladder.rungs]
undistilled = [sum(judge(teacher, n)) / 4 for n in counts[1:]]
figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
axis.axhline(sum(ladder.teacher) / 4, color="0.6", label="teacher, 64 steps")
axis.plot(counts[1:], quality, "o-", label="distilled")
axis.plot(counts[1:], undistilled, "s--", label="the teacher, in as few steps")
axis.set_xscale("log", base=2)
axis.set_xticks(counts[1:], [str(n) for n in counts[1:]])
axis.set_yscale("symlog", linthresh=0.01)  # an unbiased estimate of 0 falls below it as often as not
axis.set(xlabel="steps", ylabel="energy distance, logarithmic above 0.01")
axis.legend()
plt.show()

# %% [markdown]
# Down to 16 steps there is nothing to gain: the teacher's own steps are short enough, and the rungs, trained for a few
# seconds each, are further from its 64 steps than it is itself in as few. At 8 steps both are even. In 4 and in 2 the
# rungs win, and still make dots where the teacher makes a haze.
