# %% [markdown]
# # Reading metrics
#
# A number that says how good a video is can be read wrongly in more ways than rightly. Here each is computed on clips
# whose truth is known, and then fooled. Nothing is trained, and the whole runs in under a minute on one core.
#
# The clips are ray-cast: a red sphere passes behind a blue box.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from vdm_blocks import (
    Cameras,
    FeatureBank,
    Raster,
    SolidScene,
    bootstrap_interval,
    clip_score,
    color_mask,
    dynamic_degree,
    epipolar_residual,
    estimate_flow,
    feature_consistency,
    flicker,
    frechet_by_count,
    frechet_distance,
    frechet_extrapolated,
    kernel_distance,
    motion_degree,
    motion_direction,
    motion_smoothness,
    nearest_color,
    permanence,
    pieces,
    psnr,
    r_precision,
    render_solids,
    sight,
    solid_truth,
    ssim,
    track_error,
    warping_error,
)
from vdm_blocks.data.colors import COLORS
from vdm_blocks.data.solids import Camera, Solid
from vdm_blocks.metrics.damage import add_flicker, add_noise, blur, freeze, shuffle_frames

torch.set_num_threads(1)
raster = Raster(frames=16, height=36, width=60, fps=3.0)
ball = Solid(shape="sphere", color="red", size=0.5, y=1.6, dx=6.0)
scene = SolidScene(
    subject=ball,
    motion="moves right",
    other=Solid(shape="box", color="blue", size=0.9, y=-0.2),
    relation="behind",
    camera=Camera(elevation=0.15),
    sky=((0.62, 0.64, 0.70), (0.86, 0.87, 0.89)),
)
clean = render_solids(scene, raster)[None]
truth = solid_truth(scene, raster)


def show(video: Tensor, title: str, frames: tuple[int, ...] = (0, 4, 8, 11, 15)) -> None:
    strip = torch.cat([video[0, :, t] for t in frames], dim=2)
    plt.figure(figsize=(9, 1.6))
    plt.imshow((strip.permute(1, 2, 0) + 1).clamp(0, 2) / 2)
    plt.axis("off")
    plt.title(title, fontsize=9)
    plt.show()


show(clean, "truth")

# %% [markdown]
# ## Smoothness is perfect where nothing happens
#
# Measures of consistency are made of differences between frames. The smallest differences are those of a video that
# does not move. So the first thing to read beside any of them is how much the video moves, and `unless_frozen` gives
# the worst score to what does not. But amount of motion is fooled in its turn: noise and flicker are change as well.

# %%
videos = {
    "truth": clean,
    "frozen": freeze(clean, 1.0),
    "shuffled": shuffle_frames(clean, 1.0),
    "noise": add_noise(clean, 0.5),
    "flicker": add_flicker(clean, 1.0),
}
print(f"{'':10}  change  motion  unevenness")
for name, video in videos.items():
    flow = estimate_flow(video)
    numbers = [float(dynamic_degree(video)), float(motion_degree(flow)), float(motion_smoothness(flow))]
    print(f"{name:10}  {numbers[0]:6.3f}  {numbers[1]:6.2f}  {numbers[2]:10.2f}")

# %% [markdown]
# The frozen video is the smoothest of all. Noise "moves" more than the truth does. Only the pair tells: the truth
# moves *and* moves evenly. Read smoothness next to the same number of real videos; lower than the truth is as
# suspicious as higher.
#
# `flicker` is the trembling of a whole frame's brightness. Where one half of the picture brightens as the other darkens
# there is none of it, and the eye sees little else.

# %%
sign = 1 - 2 * (torch.arange(raster.frames) % 2).view(1, 1, -1, 1, 1)
sides = torch.where(torch.arange(raster.width) < raster.width // 2, 0.1, -0.1)
for name, video in {
    "truth": clean,
    "flicker": videos["flicker"],
    "half against half": clean + sign * sides,
}.items():
    print(f"{name:17}  flicker {float(flicker(video)):.4f}")

# %% [markdown]
# ## Warped along which motion?
#
# The warping error fetches each frame back along a motion and compares. Along the *true* motion, which a renderer
# knows, the frozen video is found out. Along the motion that is estimated from the video itself, which is how it is
# mostly printed, it is perfect. And a blur is forgiven by both: what has no detail cannot tear.

# %%
known = Cameras(
    eye=truth.eye, axes=truth.axes, slope=scene.camera.slope, height=raster.height, width=raster.width
)
where = torch.stack([one.centre(raster.times(), duration=scene.duration) for one in scene.solids], dim=1)
true_flow, seen_twice = known.flow(truth.depth, truth.ids, centres=where)
everywhere = torch.ones_like(seen_twice)
for name, video in {**videos, "blurred": blur(clean, 1.0)}.items():
    true = float(warping_error(video, true_flow, seen_twice))
    own = float(warping_error(video, estimate_flow(video), everywhere))
    print(f"{name:10}  along the true motion {true:.5f}, along its own {own:.5f}")

# %% [markdown]
# ## Fidelity forgives what the eye does not
#
# PSNR and SSIM compare with a reference, pixel by pixel. A sphere that comes out from behind the box in another colour
# is a small part of the picture, so both rank it far above a blur that leaves everything in its place.

# %%
half = raster.frames // 2
other = replace(scene, subject=replace(ball, color="orange", size=0.65))
swapped = render_solids((scene,) * half + (other,) * half, raster)[None]
soft = blur(clean, 1.0)
show(swapped, "another ball comes out")
show(soft, "blur")
for name, video in {"swapped": swapped, "blurred": soft}.items():
    print(
        f"{name}: PSNR {float(psnr(video, clean).clamp(max=60).mean()):.1f}, "
        f"SSIM {float(ssim(video, clean).mean()):.3f}"
    )

# %% [markdown]
# `permanence` asks the other question: is what comes out what went in? It follows the thing by its hue (any warm hue
# here, so that a swap is followed too) and compares the two sides.


# %%
def warm(video: Tensor) -> Tensor:
    return color_mask(video, COLORS["red"], least=0.25) | color_mask(video, COLORS["orange"], least=0.25)


visible = truth.visible[None, :, 0]
for name, video in {"truth": clean, "swapped": swapped, "blurred": soft}.items():
    found = permanence(video, warm(video), visible)
    numbers = ", ".join(f"{key} {float(value):.2f}" for key, value in found._asdict().items())
    print(f"{name}: {numbers}; kept: {bool(found.kept())}")

# %% [markdown]
# It is fooled, too. In a video that freezes on its first frame the ball is "seen whole" all the time, so `returned` is
# perfect, and colour, size and shape have not changed. Its speed is not a number, so it is not `kept`; and against
# the true track it is nowhere near.

# %%
still = freeze(clean, 1.0)
found = permanence(still, warm(still), visible)
print({key: round(float(value), 3) for key, value in found._asdict().items()}, "kept:", bool(found.kept()))
away = track_error(sight(still, warm(still)), truth.tracks[None, :, 0], visible > 0.97, height=raster.height)
print(f"distance from the true track: {float(away.distance):.2f} of the picture's height")

# %% [markdown]
# ## Space is asked along lines
#
# A camera that moves fixes for every point of a still world a line on which it is seen next. `epipolar_residual` is how
# far matches are off their lines. Here a camera goes around a still scene; then the sphere, which ought to stand still,
# slides sideways, as the lines run. It moves by pixels a frame, and the residual hardly knows.

# %%
orbit = Raster(frames=6, height=36, width=60, fps=3.0)
around = SolidScene(
    subject=Solid(shape="sphere", color="red", size=0.6, x=-0.6),
    motion="stays still",
    other=Solid(shape="box", color="green", size=0.7, x=1.0, y=1.0, yaw=0.5),
    relation="next to",
    camera=Camera(orbit=1.2, elevation=0.35),
)
place = solid_truth(around, orbit)
seen_from = Cameras(
    eye=place.eye, axes=place.axes, slope=around.camera.slope, height=orbit.height, width=orbit.width
)
sliding = replace(around, subject=replace(around.subject, dx=3.0), motion="moves right")
still_clip, sliding_clip = render_solids(around, orbit), render_solids(sliding, orbit)
moved = (solid_truth(sliding, orbit).tracks - place.tracks)[:, 0].diff(dim=0).norm(dim=1)
for name, video in {
    "truth": still_clip,
    "frozen": still_clip[:, :1].expand_as(still_clip),
    "sphere slides": sliding_clip,
}.items():
    print(f"{name:13}  epipolar residual {float(epipolar_residual(video, seen_from)):.3f} pixels")
print(f"the sphere slides by {float(moved.mean()):.1f} pixels a frame")

# %% [markdown]
# So the true track is read beside it, as above.
#
# ## What was not asked is not seen
#
# Attributes are read one by one, against what is true. All that the prompt names may be there, and the thing another.

# %%
cone = render_solids(replace(scene, subject=replace(ball, shape="cone")), raster)[None]
palette = {name: COLORS[name] for name in ("red", "orange", "yellow", "green", "blue", "purple")}
show(cone, "a cone, of the right colour, on the right way")
for name, video in {"truth": clean, "cone": cone}.items():
    mask = color_mask(video, COLORS["red"], least=0.25)
    found = sight(video, mask)
    color = nearest_color(found.color[0, :3].mean(0, keepdim=True), palette)[0]
    way = motion_direction(found, height=raster.height)[0]
    print(f"{name}: colour {color}, moves {way}, how many {int(pieces(mask)[0, 0])}")

# %% [markdown]
# ## Like the first frame, or like its neighbours
#
# Consistency of features is a mean of cosines, of each frame with the first and with the one before, and these two see
# different faults. Here the features are the colours of the ball itself. In one video another ball comes out; in the
# other the balls of both take turns.


# %%
def ball_colors(video: Tensor) -> Tensor:
    """(1, T', 3): the chroma of what is seen of the ball, frame by frame."""
    seen = sight(video, warm(video)).color
    seen = seen[:, seen[0].isfinite().all(1)]
    return seen - seen.mean(2, keepdim=True)


turns = torch.where(
    (torch.arange(raster.frames) % 2 == 0).view(-1, 1, 1), clean, render_solids(other, raster)[None]
)
for name, video in {"truth": clean, "swapped": swapped, "in turns": turns}.items():
    one, two = (float(feature_consistency(ball_colors(video), first=first)) for first in (1.0, 0.0))
    print(f"{name:8}: like the first frame {one:.3f}, like the neighbours {two:.3f}")

# %% [markdown]
# The neighbours of the swapped ball are all alike but for one pair, so that mean hardly falls, and in a longer video it
# would fall less. The usual half-and-half mean of both hides which fault it was: print the two.
#
# ## A Frechet distance is a number of samples
#
# Below, both sets come from one distribution: the right answer is 0. What is printed depends on how many samples
# there are, and a model measured on 100 looks five times worse than the same model measured on 500.

# %%
draw = torch.Generator().manual_seed(0)


def bank(count: int, shift: float = 0.0) -> FeatureBank:
    made = FeatureBank(16, extractor="made up")
    made.update(torch.randn(count, 16, generator=draw) + shift)
    return made


reference = bank(20_000).stats()
same, worse = bank(1600), bank(1600, shift=0.1)
counts = [25, 50, 100, 200, 400, 800, 1600]
points = frechet_by_count(same, reference, counts=counts)
plt.figure(figsize=(5, 3))
plt.loglog(counts, [value for _, value in points], "o-", label="the same distribution")
plt.loglog(
    counts,
    [value for _, value in frechet_by_count(worse, reference, counts=counts)],
    "o-",
    label="moved by 0.1",
)
plt.xlabel("samples")
plt.ylabel("Frechet distance")
plt.legend()
plt.show()
print(
    f"at 1600: {frechet_distance(same.stats(), reference):.4f}, "
    f"extrapolated {frechet_extrapolated(same, reference):.4f}"
)
print(f"kernel distance of 200: {kernel_distance(bank(200), bank(200)):.4f} (no bias, so it may be negative)")
hundred = bank(100)
low, high = bootstrap_interval(hundred, reference)
print(f"of 100: {frechet_distance(hundred.stats(), reference):.3f}, resampled {low:.3f} to {high:.3f}")

# %% [markdown]
# With 100 samples the bias is far larger than the difference between the two; with 1600 it is smaller. Compare only
# sets of one size, print that size, and look at this curve. An interval from resampling shows the spread and keeps the
# bias: its width is to be read, not its place. And a Frechet distance sees nothing but a mean and a covariance: of two
# sets with the same ones, one may be of two clusters where the other is one cloud. A model that gives back what it was
# trained on fools it and the kernel distance alike: half of it, twice, is nearer than new samples are.

# %%
two = FeatureBank(16, extractor="made up")
cloud = torch.randn(1600, 16, generator=draw)
cloud[:, 0] = torch.randint(2, (1600,), generator=draw) * 2.0 - 1  # deviation 1, mean 0: two clusters
two.update(cloud)
print(
    f"one cloud: {frechet_distance(same.stats(), reference):.3f}, "
    f"two clusters: {frechet_distance(two.stats(), reference):.3f}"
)
training, fresh, copied = bank(800), bank(800), FeatureBank(16, extractor="made up")
copied.update(training.features[:400].repeat(2, 1))
for name, made in {"new samples": fresh, "half of the training set, twice": copied}.items():
    frechet = frechet_distance(made.stats(), training.stats())
    print(f"{name}: Frechet {frechet:.3f}, kernel {kernel_distance(made, training):+.4f}")

# %% [markdown]
# ## A text score reads what its network reads
#
# CLIP score is a cosine, frame by frame. Nothing in it knows the order of frames: a frozen or a shuffled video scores
# as the true one does, so it says nothing about motion. R-precision depends on the pool: the same embeddings look good
# or poor by its size, so a number without pool, R and protocol says little.

# %%
texts = torch.randn(200, 32, generator=draw)
frames = texts[:, None] + 2.5 * torch.randn(200, 8, 32, generator=draw)
print(
    f"CLIP score {float(clip_score(texts, frames).mean()):.2f}, "
    f"frames reversed {float(clip_score(texts, frames.flip(1)).mean()):.2f}"
)
for pool in (2, 10, 100, 200):
    one = float(r_precision(texts, frames[:, 0], pool=pool).mean())
    print(f"R-precision of one frame, pool {pool:3}: {one:.2f} (by chance {1 / pool:.2f})")

# %% [markdown]
# ## So
#
# 1. Every number next to the same number of real videos and of a trivial baseline: a frozen frame, a random text.
# 2. Smoothness with the amount of motion; amount of motion with noise and flicker.
# 3. Distances between sets with the number of samples, of one network with one preparation, and an interval.
# 4. Consistency with the first frame and with the neighbours apart; they see different faults.
# 5. What must not change (identity, place, geometry) asked directly, with the truth where it is known.
# 6. What each metric was seen to notice, in the table of [Metrics](../metrics.md), before it is believed.
