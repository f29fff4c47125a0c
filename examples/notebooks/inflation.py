# %% [markdown]
# # From pictures to films
#
# A network that was trained on pictures knows what the world looks like and nothing of how it moves. `inflate` puts
# layers over time between its blocks, which start as the identity: the network gives, to the bit, what it gave before,
# frame by frame. Then the new layers alone are trained on clips, and use what the other frames say (arXiv 2304.08818).
# The task is one that no image network can do: a frame that is all noise has to be found from the others. It takes
# half a minute, and what it brings is measured below.

# %%
import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from vdm_blocks import (
    Conditioning,
    DiffusionLoss,
    KeyedNoise,
    LogSNREmbedding,
    LowDiscrepancyTimes,
    ModelDenoiser,
    TemporalConv,
    diffuse,
    inflate,
)

NOTHING = Conditioning()
SIDE, FRAMES, CHANNELS = 8, 5, 16

# %% [markdown]
# ## The data
#
# A round dot on a frame whose edges are joined, which goes up, down, left or right by half a pixel a frame. A picture
# is one frame of such a clip.


# %%
def clips(count: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    start = SIDE * torch.rand(count, 1, 2, generator=draw)
    angle = math.pi / 2 * torch.randint(4, (count, 1), generator=draw)
    speed = 0.5 * torch.stack([angle.sin(), angle.cos()], dim=2)
    place = start + speed * torch.arange(FRAMES)[:, None]  # (count, frames, 2)
    away = (torch.arange(SIDE) - place[..., None] + SIDE / 2) % SIDE - SIDE / 2
    bump = torch.exp(-(away**2) / 2)
    return 2 * (bump[:, :, 0, :, None] * bump[:, :, 1, None, :])[:, None] - 1


def show(rows: dict[str, Tensor], title: str) -> None:
    """Four clips a row, their frames side by side."""
    figure, axes = plt.subplots(len(rows), 1, figsize=(8, 0.8 * len(rows)), layout="constrained")
    for axis, (name, videos) in zip(axes, rows.items(), strict=True):
        frames = nn.functional.pad(videos[:4, 0], (1, 1, 1, 1), value=1.0)
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
        emb = self.emb(logsnr.flatten())
        fine = self.fine(self.stem(nn.functional.pixel_unshuffle(image, 2)), emb)
        coarse = self.middle(self.coarse(nn.functional.avg_pool2d(fine, 3, 1, 1), emb), emb)
        return nn.functional.pixel_shuffle(self.head(self.merge(torch.cat([fine, coarse], 1), emb)), 2)


class AsNetwork(nn.Module):
    """What a denoiser calls: network(z_t, logsnr, cond); a level of each frame's own goes with its frame."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG002
        own = logsnr if logsnr.ndim == 2 else logsnr[:, None].expand(-1, z_t.shape[2])
        return self.inner(z_t, own[:, None, :, None, None])


# %% [markdown]
# ## Inflation
#
# After each block, a convolution over five frames at each place. `inflate` runs the network once on an example to learn
# how many channels come out of each block, and reports what it did.

# %%
torch.manual_seed(0)
image_net = ImageUNet()
video_net, report = inflate(
    image_net,
    after=[Block],
    layer=lambda channels: TemporalConv(channels, 5),
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
laws, everything = LowDiscrepancyTimes(), list(image_net.parameters())


def train(
    weights: list[nn.Parameter], updates: int, batch: int, *, pictures: bool, rate: float
) -> list[float]:
    optimizer, losses = torch.optim.Adam(weights, rate), []
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = rate * (1 - update / updates)
        x0 = clips(batch, update + 1000)
        t = laws.draw(batch, seed=0, step=update)
        mask = None
        if pictures:
            x0 = x0[:, :, :1]
        else:
            which = torch.randint(FRAMES, (batch,), generator=torch.Generator().manual_seed(update))
            t, mask = one_hidden(t, which), torch.arange(FRAMES) == which[:, None]
        noise = KeyedNoise(seeds=tuple(range(batch)), stage=f"{pictures} {update}")
        loss = DiffusionLoss()(denoiser, x0, t, NOTHING, generator=noise, mask=mask).mean()
        for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = slope
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def one_hidden(t: Tensor, which: Tensor) -> Tensor:
    """A time for every frame, (B, T): one of each clip is nearly all noise, the others are nearly clean."""
    hidden = torch.arange(FRAMES) == which[:, None]
    return torch.where(hidden, 0.9 + t[:, None] / 10, torch.tensor(0.02))


on_pictures = train(everything, 300, 32, pictures=True, rate=4e-3)
print(f"pictures: the loss over the last 50 updates is {sum(on_pictures[-50:]) / 50:.4f}")

# %% [markdown]
# ## A frame that cannot be seen
#
# The middle frame of fresh clips is noise alone. How far is what the network finds there from the truth? Beside it:
# the frame before in its place, and the mean of the frames before and after it.

# %%
truth = clips(64, 0)
MIDDLE = FRAMES // 2
hidden_times = one_hidden(torch.ones(64), torch.full((64,), MIDDLE))
eps = KeyedNoise(seeds=tuple(range(64)), stage="look").normal(truth.shape, step=0)
noisy = diffuse(truth, eps, hidden_times, denoiser.schedule)


def found() -> Tensor:
    with torch.no_grad():
        return denoiser(noisy, hidden_times, NOTHING).x0


def error(video: Tensor) -> float:
    """Mean square over that of guessing the mean of all pictures."""
    rest = (video - truth)[:, :, MIDDLE].square().mean()
    return float(rest / (truth - truth.mean((0, 2), keepdim=True))[:, :, MIDDLE].square().mean())


before = found()
copied, blended = truth.roll(1, 2), (truth.roll(1, 2) + truth.roll(-1, 2)) / 2

# %% [markdown]
# ## Trained on clips
#
# Now the new layers, and they alone. The pictures' network is left as it was, so what it knew stays known. Then all
# weights, for a little longer.

# %%
kept = {name: weight.clone() for name, weight in image_net.state_dict().items()}
new_layers = list(video_net.temporal.parameters())
on_clips = train(new_layers, 400, 16, pictures=False, rate=1e-2)
print(f"clips: from {sum(on_clips[:20]) / 20:.4f} to {sum(on_clips[-50:]) / 50:.4f}")
print(
    "the image network is the same:", all(torch.equal(w, kept[n]) for n, w in image_net.state_dict().items())
)
after = found()
train(new_layers + everything, 250, 16, pictures=False, rate=4e-3)
after_all = found()

rows = {
    "the frame before": copied,
    "mean of both sides": blended,
    "image network": before,
    "new layers trained": after,
    "then all weights": after_all,
}
for name, video in rows.items():
    print(f"{name:20} error of the hidden frame {error(video):.3f}")
show({"truth": truth, "given": noisy, "before": before, "after": after, "all": after_all}, "Four clips each")

# %% [markdown]
# An image network can only guess: its error is that of the mean of all pictures, or above it. With the new layers it
# sees where the dot came from and where it went, and does better than the frame before; so little did the frozen rest
# stand in the way that training all of it adds next to nothing.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.barh(list(rows), [error(video) for video in rows.values()])
left.invert_yaxis()
left.set(xlabel="error of the hidden frame")
smooth = torch.tensor(on_clips).unfold(0, 20, 10).mean(1)
right.plot(torch.arange(len(smooth)) * 10 + 10, smooth)
right.set(xlabel="updates of the new layers", ylabel="loss on clips", ylim=(0, None))
plt.show()

# %% [markdown]
# The order of frames is seen, too. With the frames around it in another order, the dot seems to come from elsewhere.

# %%
order = torch.tensor([3, 0, 2, 4, 1])
with torch.no_grad():
    shuffled = denoiser(noisy[:, :, order], hidden_times, NOTHING).x0
print(f"frames shuffled      error of the hidden frame {error(shuffled[:, :, order.argsort()]):.3f}")
