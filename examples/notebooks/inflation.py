# %% [markdown]
# # From pictures to films
#
# A network that was trained on pictures knows what the world looks like and nothing of how it moves. `inflate` puts
# layers over time between its blocks, which start as the identity: the network gives, to the bit, what it gave before,
# frame by frame. Then the new layers alone are trained on clips, and begin to use what the other frames say
# (arXiv 2304.08818). The training here is a matter of seconds, and so is its effect a beginning: it is measured below.

# %%
import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from vdm_blocks import (
    DDIM,
    Conditioning,
    DiffusionLoss,
    KeyedNoise,
    LogSNREmbedding,
    LowDiscrepancyTimes,
    ModelDenoiser,
    TemporalAttention,
    inflate,
    sample,
    uniform_times,
)

NOTHING = Conditioning()
SIDE, FRAMES, CHANNELS = 8, 5, 16

# %% [markdown]
# ## The data
#
# A round dot on a frame whose edges are joined, which goes up, down, left or right by a quarter of a pixel a frame. A
# picture is one frame of such a clip.


# %%
def clips(count: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    start = SIDE * torch.rand(count, 1, 2, generator=draw)
    angle = math.pi / 2 * torch.randint(4, (count, 1), generator=draw)
    speed = 0.25 * torch.stack([angle.sin(), angle.cos()], dim=2)
    place = start + speed * torch.arange(FRAMES)[:, None]  # (count, frames, 2)
    away = (torch.arange(SIDE) - place[..., None] + SIDE / 2) % SIDE - SIDE / 2
    bump = torch.exp(-(away**2) / 2)
    return 2 * (bump[:, :, 0, :, None] * bump[:, :, 1, None, :])[:, None] - 1


def steps_of(videos: Tensor) -> Tensor:
    """How far the dot goes from each frame to the next, in pixels: (count, frames - 1)."""
    light = (videos[:, 0].clamp(-1, 1) + 1) / 2
    turn = torch.exp(2j * math.pi * torch.arange(SIDE) / SIDE)
    place = torch.stack([(light.sum(3) * turn).sum(2), (light.sum(2) * turn).sum(2)], dim=2).angle()
    step = (place.diff(dim=1) + math.pi) % (2 * math.pi) - math.pi
    return step.norm(dim=2) * SIDE / (2 * math.pi)


def show(rows: dict[str, Tensor], title: str) -> None:
    """Three clips a row, their frames side by side."""
    figure, axes = plt.subplots(len(rows), 1, figsize=(8, 0.8 * len(rows)), layout="constrained")
    for axis, (name, videos) in zip(axes, rows.items(), strict=True):
        frames = nn.functional.pad(videos[:3, 0], (1, 1, 1, 1), value=1.0)
        axis.imshow(torch.cat(list(frames.flatten(0, 1)), dim=1).clamp(-1, 1), cmap="gray", vmin=-1, vmax=1)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
    figure.suptitle(title)
    plt.show()


# %% [markdown]
# ## A U-Net on pictures
#
# Ordinary 2-D layers, as anybody's image model has them; nothing in it knows of this library but the embedding of the
# noise level.


# %%
class Block(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, channels)
        self.first = nn.Conv2d(channels, out, 3, padding=1, padding_mode="circular")
        self.level = nn.Linear(64, out)
        self.second = nn.Conv2d(out, out, 3, padding=1, padding_mode="circular")
        self.skip = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.first(nn.functional.silu(self.norm(x))) + self.level(emb)[:, :, None, None]
        return self.skip(x) + self.second(nn.functional.silu(h))


class ImageUNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = LogSNREmbedding(64)
        self.stem = nn.Conv2d(4, CHANNELS, 1)
        self.fine, self.coarse = Block(CHANNELS, CHANNELS), Block(CHANNELS, 2 * CHANNELS)
        self.middle = Block(2 * CHANNELS, 2 * CHANNELS)
        self.merge = Block(3 * CHANNELS, CHANNELS)
        self.head = nn.Conv2d(CHANNELS, 4, 1)

    def forward(self, image: Tensor, logsnr: Tensor) -> Tensor:
        emb = self.emb(logsnr)
        fine = self.fine(self.stem(nn.functional.pixel_unshuffle(image, 2)), emb)
        coarse = self.middle(self.coarse(nn.functional.avg_pool2d(fine, 3, 1, 1), emb), emb)
        return nn.functional.pixel_shuffle(self.head(self.merge(torch.cat([fine, coarse], 1), emb)), 2)


class AsNetwork(nn.Module):
    """What a denoiser calls: network(z_t, logsnr, cond)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG002
        return self.inner(z_t, logsnr)


# %% [markdown]
# ## Inflation
#
# After each block, attention over the frames at each place. `inflate` runs the network once on an example to learn how
# many channels come out of each block, and reports what it did.

# %%
torch.manual_seed(0)
image_net = ImageUNet()
video_net, report = inflate(
    image_net,
    after=[Block],
    layer=lambda channels: TemporalAttention(channels, heads=4),
    example=(torch.zeros(1, 1, SIDE, SIDE), torch.zeros(1)),
)
print(report)

# %% [markdown]
# The image network is still one: called by itself it takes pictures. On a clip, the video network is its equal, to the
# bit.

# %%
clip, level = clips(2, 1), torch.tensor([0.0, 2.0])
folded = clip.transpose(1, 2).flatten(0, 1)
by_frame = image_net(folded, level.repeat_interleave(FRAMES)).unflatten(0, (2, FRAMES)).transpose(1, 2)
print("equal to the bit:", torch.equal(video_net(clip, level), by_frame))

# %% [markdown]
# ## Trained on pictures
#
# Pictures are clips of one frame. The layers over time take no part in this: on one frame they stay the identity.

# %%
denoiser = ModelDenoiser(AsNetwork(video_net))
times, everything = LowDiscrepancyTimes(), list(image_net.parameters())


def train(
    weights: list[nn.Parameter], updates: int, batch: int, *, pictures: bool, rate: float
) -> list[float]:
    optimizer, losses = torch.optim.Adam(weights, rate), []
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = rate * (1 - update / updates)
        x0 = clips(batch, update + 1000)
        x0 = x0[:, :, :1] if pictures else x0
        noise = KeyedNoise(seeds=tuple(range(batch)), stage=f"{pictures} {update}")
        loss = DiffusionLoss()(
            denoiser, x0, times.draw(batch, seed=0, step=update), NOTHING, generator=noise
        ).mean()
        for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = slope
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


on_pictures = train(everything, 400, 32, pictures=True, rate=4e-3)
print(f"pictures: the loss over the last 50 updates is {sum(on_pictures[-50:]) / 50:.4f}")


def films(count: int) -> Tensor:
    start = KeyedNoise(seeds=tuple(range(count)), stage="films").normal(
        (count, 1, FRAMES, SIDE, SIDE), step=0
    )
    with torch.no_grad():
        return sample(denoiser, DDIM(), uniform_times(12), start, NOTHING)


before = films(24)

# %% [markdown]
# ## Trained on clips
#
# Now the new layers, and they alone. The pictures' network is left as it was, so what it knew stays known.

# %%
kept = {name: weight.clone() for name, weight in image_net.state_dict().items()}
on_clips = train(list(video_net.temporal.parameters()), 300, 12, pictures=False, rate=1e-2)
print(f"clips: from {sum(on_clips[:20]) / 20:.4f} to {sum(on_clips[-50:]) / 50:.4f}")
print(
    "the image network is the same:", all(torch.equal(w, kept[n]) for n, w in image_net.state_dict().items())
)
after = films(24)

show({"data": clips(3, 0), "before": before, "after": after}, "Three clips each")

# %% [markdown]
# Before, the frames of a clip knew nothing of one another. Now the loss on clips is lower, with the image network as it
# was, and the brightest place wanders less from a frame to the next. After these few hundred updates it is still far
# from the data's quarter of a pixel; train longer, and all weights, for films.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
bins = torch.linspace(0, 6, 25).tolist()
for name, videos in {"data": clips(24, 0), "before": before, "after": after}.items():
    steps = steps_of(videos)
    left.hist(steps.flatten().tolist(), bins, histtype="step", label=name)
    print(f"{name:7} the dot goes {steps.mean():.2f} pixels a frame, with a spread of {steps.std():.2f}")
left.set(xlabel="pixels from a frame to the next", ylabel="how often")
left.legend()
smooth = torch.tensor(on_clips).unfold(0, 20, 10).mean(1)
right.plot(torch.arange(len(smooth)) * 10 + 10, smooth)
right.set(xlabel="updates of the new layers", ylabel="loss on clips", ylim=(0, None))
plt.show()

# %% [markdown]
# Position is seen, too: the same noisy frames in another order are not the same answer in another order.

# %%
order = torch.tensor([3, 0, 2, 4, 1])
with torch.no_grad():
    answer, shuffled = video_net(clip, level), video_net(clip[:, :, order], level)
print(
    f"of an answer of size {answer.std():.2f}, the order of frames moves {(shuffled - answer[:, :, order]).std():.2f}"
)
