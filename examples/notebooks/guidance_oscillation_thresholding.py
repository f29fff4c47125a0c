# %% [markdown]
# # Guidance, oscillation and thresholding
#
# What does a large guidance scale do to a sample, and what do Imagen Video's two remedies do about it? Here a
# "video" has two pixels, so that one can look at all of it, and the data are two classes of Gaussians, so
# that the denoiser is exact: whatever goes wrong is the work of guidance and of nothing else.

# %%
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from vdm_blocks import (
    DDIM,
    ClassifierFreeGuidance,
    Conditioning,
    CosineSchedule,
    Denoised,
    Denoiser,
    DynamicThreshold,
    Interval,
    Oscillating,
    StaticThreshold,
    diffuse,
    sample,
    uniform_times,
)

Wrap = Callable[[Denoiser], Denoiser]
means = torch.tensor([[0.55, 0.30], [-0.30, -0.45]], dtype=torch.float64)
spread = torch.tensor([0.22, 0.30], dtype=torch.float64)


class TwoClasses:
    """The exact denoiser; text 0 or 1 names the class, text that is masked out means either."""

    def __init__(self) -> None:
        self.schedule, self.evaluations = CosineSchedule(), 0

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        self.evaluations += 1
        alpha, sigma = self.schedule.alpha_sigma(t)
        z = z_t.flatten(1)[:, None]
        variance = (alpha * spread) ** 2 + sigma**2
        away = z - alpha * means
        log_share = -away.square().sum(2) / (2 * variance) - variance.log()
        named = torch.nn.functional.one_hot(cond.text[:, 0, 0].long(), 2).bool()
        log_share = log_share.masked_fill(cond.text_mask & ~named, -torch.inf)
        each = means + (alpha * spread**2 / variance)[:, None] * away
        x0 = (log_share.softmax(1)[..., None] * each).sum(1).view_as(z_t)
        return Denoised(x0, (z_t - alpha * x0) / sigma)


COUNT, STEPS = 600, 48
times = uniform_times(STEPS)
noise = torch.randn(COUNT, 1, 1, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
cond = Conditioning(text=torch.zeros(COUNT, 1, 1), text_mask=torch.ones(COUNT, 1, dtype=torch.bool))


def draw(wrap: Wrap) -> tuple[Tensor, int]:
    """Samples of class 0 from a wrapped denoiser, and the evaluations that they took."""
    denoiser = TwoClasses()
    return sample(wrap(denoiser), DDIM(), times, noise, cond).view(COUNT, 2), denoiser.evaluations


def show(wraps: dict[str, Wrap]) -> None:
    """A panel for each, with the square that is the range of a pixel."""
    figure, panels = plt.subplots(1, len(wraps), figsize=(2.9 * len(wraps), 3.1), sharex=True, sharey=True)
    for panel, (name, wrap) in zip(panels, wraps.items(), strict=True):
        x, evaluations = draw(wrap)
        panel.plot([-1, 1, 1, -1, -1], [-1, -1, 1, 1, -1], color="grey", linewidth=0.8)
        panel.scatter(*x.T, s=3, alpha=0.5)
        panel.set(title=name, aspect="equal", xlim=(-1.6, 1.9), ylim=(-1.6, 1.9))
        outside = float((x.abs() > 1).any(1).double().mean())
        edge = float((x.abs() > 0.999).any(1).double().mean())
        print(
            f"{name:24} evaluations {evaluations:4}   deviation {float(x.std(0).mean()):.3f}   "
            f"outside {outside:6.1%}   at the edge or beyond {edge:6.1%}"
        )
    figure.tight_layout()


# %% [markdown]
# ## A constant scale
#
# Scale 1 is the class as it is. As the scale grows, the samples move away from the other class, out of the
# range of a pixel, and lose their variety. Both happen with an exact denoiser; see the page on guidance for
# why the second is not what the product of densities would do.

# %%
show({f"scale {s:g}": lambda d, s=s: ClassifierFreeGuidance(d, s) for s in (1.0, 3.0, 6.0, 15.0)})  # type: ignore[misc]

# %% [markdown]
# ## Not the product
#
# At every level by itself the guided score is that of p(z | c)^scale p(z)^(1 - scale). It is often said that
# the samples therefore come from the product of the data's densities, p(x | c)^scale p(x)^(1 - scale). Here is
# that product, as contours, under the samples. It hardly moves: where class 0 is near certain already, p(x | c)
# and p(x) are proportional, and no power of their ratio prefers one place to another. The samples move on: while
# there was much noise the two classes could not be told apart, and every step that was guided then has pushed
# them further.

# %%
side = torch.linspace(-1.6, 1.9, 240, dtype=torch.float64)
place = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1)
log_each = -((place[..., None, :] - means).square().sum(-1) / (2 * spread**2)) - 2 * spread.log()
figure, panels = plt.subplots(1, 3, figsize=(8.7, 3.1), sharex=True, sharey=True)
for panel, s in zip(panels, (1.0, 3.0, 15.0), strict=True):
    log_product = s * log_each[..., 0] + (1 - s) * (log_each.logsumexp(-1) - torch.tensor(2.0).log())
    product = (log_product - log_product.max()).exp()
    x, _ = draw(lambda d, s=s: ClassifierFreeGuidance(d, s))  # type: ignore[misc]
    panel.scatter(*x.T, s=3, alpha=0.4)
    panel.contour(side, side, product, levels=[0.01, 0.1, 0.5], colors="black", linewidths=0.8)
    panel.set(title=f"scale {s:g}", aspect="equal")
    weight = product / product.sum()
    middle = (weight[..., None] * place).sum((0, 1))
    deviation = (weight[..., None] * (place - middle).square()).sum((0, 1)).sqrt().mean()
    print(
        f"scale {s:4g}   mean of the samples {float(x.mean()):.3f}, of the product {float(middle.mean()):.3f}   "
        f"deviation {float(x.std(0).mean()):.3f}, {float(deviation):.3f}"
    )
figure.tight_layout()

# %% [markdown]
# ## Oscillation
#
# Imagen Video guides the base and the first two super-resolution models with a high scale for some first
# steps, which settle what is in the picture, and then with high and low in turn: each low step pulls back
# what the high one overdid. At scale 1 the second evaluation is saved. The paper gives the scales, 15 and 1;
# how many steps come first and which of the two follows is not published, so both are arguments.

# %%
scale = Oscillating(high=15.0, low=1.0, times=times, constant=0.1)
between = torch.linspace(1, 0.001, 2000, dtype=torch.float64)
plt.figure(figsize=(8, 2.2))
plt.plot(between, scale(between, between), linewidth=0.8)
plt.gca().invert_xaxis()
plt.xlabel("time, from noise to clean")
plt.ylabel("scale")

# %%
show(
    {
        "constant 15": lambda d: ClassifierFreeGuidance(d, 15.0),
        "constant 6": lambda d: ClassifierFreeGuidance(d, 6.0),
        "oscillating 15, 1": lambda d: ClassifierFreeGuidance(d, scale),
        "15, middle levels only": lambda d: ClassifierFreeGuidance(
            d, Interval(scale=15.0, low_logsnr=-1.0, high_logsnr=2.0)
        ),
    }
)

# %% [markdown]
# ## Thresholding
#
# A guided estimate of x0 is far outside the square while there is much noise. Clipping it sends nearly every
# sample to the same corner, where both pixels are saturated and nothing is left to see. Dynamic thresholding
# divides by a high quantile of the clip's own pixels instead, so that the *ratio* of the two survives. Here
# are the estimates at one noise level, before a single step is taken.

# %%
t = torch.tensor(0.7, dtype=torch.float64)
z_t = diffuse(draw(lambda d: d)[0].view(noise.shape), noise, t, CosineSchedule())
guided = ClassifierFreeGuidance(TwoClasses(), 15.0)
figure, panels = plt.subplots(1, 3, figsize=(9, 3.1))
estimates = {"guided": guided, "static": StaticThreshold(guided), "dynamic": DynamicThreshold(guided)}
for panel, (name, denoiser) in zip(panels, estimates.items(), strict=True):
    x0 = denoiser(z_t, t, cond).x0.view(COUNT, 2)
    panel.plot([-1, 1, 1, -1, -1], [-1, -1, 1, 1, -1], color="grey", linewidth=0.8)
    panel.scatter(*x0.T, s=3, alpha=0.5)
    panel.set(title=name, aspect="equal")
    print(
        f"{name:10} both pixels at the edge or beyond: {float((x0.abs() > 0.999).all(1).double().mean()):6.1%}"
    )
figure.tight_layout()

# %% [markdown]
# Over a whole chain, either keeps the samples in the square: each estimate is put right before the next step
# builds on it, and the noise estimate is computed anew from the x0 that is kept. With an exact denoiser on
# two pixels the chain forgets by its end which of the two it was; what is left to see is the share of samples
# at the edge.

# %%
show(
    {
        "15, none": lambda d: ClassifierFreeGuidance(d, 15.0),
        "15, static": lambda d: StaticThreshold(ClassifierFreeGuidance(d, 15.0)),
        "15, dynamic": lambda d: DynamicThreshold(ClassifierFreeGuidance(d, 15.0)),
        "oscillating, dynamic": lambda d: DynamicThreshold(ClassifierFreeGuidance(d, scale)),
    }
)
