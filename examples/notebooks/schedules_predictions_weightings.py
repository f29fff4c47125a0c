# %% [markdown]
# # Schedules, predictions and weightings
#
# Three choices of a diffusion model that are often tangled up, one at a time: *when* each noise level comes
# (the schedule), *what* the network puts out (the prediction), and *how much* an error at each level counts
# (the weighting). The log-SNR, λ = log(α²/σ²), is the axis that they have in common.
#
# Nothing is trained here. The data are a mixture of clips, whose best denoiser has a closed form.

# %%
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from vdm_blocks import (
    EDM,
    EPS,
    EPS_MSE,
    FLOW,
    V_MSE,
    X0,
    X0_MSE,
    CosineSchedule,
    LinearBetaSchedule,
    LinearLogSNRSchedule,
    MinSNR,
    RectifiedFlowSchedule,
    ShiftedSchedule,
    SigmoidSchedule,
    SigmoidWeighting,
    TruncatedSNR,
    V,
    alpha_sigma_vp,
    logsnr_slope,
)

torch.manual_seed(0)
SHAPE, SPREAD = (1, 4, 4, 4), 0.1
means = torch.randn(5, *SHAPE, dtype=torch.float64).clamp(-1, 1)


def best_x0(z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """E[x0 | z_t] for clips `means`, equally likely, with noise of deviation SPREAD on them."""
    variance = (alpha * SPREAD) ** 2 + sigma**2
    away = (z_t[:, None] - alpha * means).flatten(2)
    share = (-away.square().sum(2) / (2 * variance)).softmax(1)
    residual = z_t - alpha * torch.einsum("bk,k...->b...", share, means)
    return (z_t - residual) / alpha + alpha * SPREAD**2 / variance * residual


# %% [markdown]
# ## Schedules: how time is spent
#
# All of these pass through the same levels; they differ in how much of the time, and so of the steps and of
# the training samples, each level gets. `ShiftedSchedule` moves the cosine for videos of 256 pixels instead
# of 64: more pixels hide more, so the same picture needs more noise.

# %%
schedules = {
    "cosine": CosineSchedule(),
    "cosine, shifted to 256": ShiftedSchedule(base=CosineSchedule(), resolution=256),
    "straight in log-SNR": LinearLogSNRSchedule(),
    "linear beta": LinearBetaSchedule(),
    "sigmoid": SigmoidSchedule(),
    "rectified flow": RectifiedFlowSchedule(),
}
t = torch.linspace(0.001, 0.999, 500, dtype=torch.float64)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6))
for name, schedule in schedules.items():
    logsnr = schedule.logsnr(t)
    left.plot(t, logsnr, label=name)
    right.plot(logsnr, -1 / logsnr_slope(schedule, t))
left.set(xlabel="time t", ylabel="log-SNR", ylim=(-15, 15))
left.legend(fontsize=8, loc="upper right")
right.set(xlabel="log-SNR", ylabel="share of time per unit", xlim=(-15, 15))
figure.tight_layout()

# %% [markdown]
# ## Where there is something to learn
#
# The error that even the best denoiser makes, at each level. At the left end z is noise and the estimate is
# the mean clip; at the right end z shows everything. Between them, over a few units of log-SNR, it is decided
# which clip it is: that is where a schedule should spend its time, and a weighting its weight.

# %%
levels = torch.linspace(-12, 12, 49, dtype=torch.float64)
x0 = means.repeat(60, 1, 1, 1, 1) + SPREAD * torch.randn(300, *SHAPE, dtype=torch.float64)
errors = []
for logsnr in levels:
    alpha, sigma = alpha_sigma_vp(logsnr)
    z_t = alpha * x0 + sigma * torch.randn_like(x0)
    errors.append(float((best_x0(z_t, alpha, sigma) - x0).square().mean()))
error = torch.tensor(errors, dtype=torch.float64)
plt.figure(figsize=(6, 3))
plt.plot(levels, error)
plt.axhline(SPREAD**2, linestyle=":", label="the noise on each clip")
plt.xlabel("log-SNR")
plt.ylabel("squared error of the best x0")
plt.legend(loc="upper right")
plt.tight_layout()

# %% [markdown]
# ## Predictions: what an error of the network does
#
# A network is wrong by about as much wherever it is; what that means for x0 depends on what its output stands
# for. Predicting the noise is hopeless at the noisy end, where x0 = (z - σ ε) / α divides by almost nothing;
# predicting x0 is harmless everywhere, but leaves ε, which is what the fine detail is made of, to a division
# by σ. v = α ε - σ x0 is bounded for both, which is why every model of Imagen Video predicts it.

# %%
alpha, sigma = alpha_sigma_vp(levels)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4))
for name, prediction in {"x0": X0, "ε": EPS, "v": V, "flow": FLOW, "EDM": EDM}.items():
    gain = prediction.x0_gain(alpha, sigma)
    left.semilogy(levels, gain, label=name)
    right.semilogy(levels, gain * alpha / sigma, label=name)
left.set(xlabel="log-SNR", ylabel="error of x0 per error of output", ylim=(1e-3, 1e3))
right.set(xlabel="log-SNR", ylabel="error of ε per error of output", ylim=(1e-3, 1e3))
left.legend(loc="upper right")
figure.tight_layout()

# %% [markdown]
# ## Weightings: what counts
#
# Every weighting is a weight on the squared error of x0. Multiplied by the error of the best denoiser it
# shows where the loss comes from; what is learnt last is where there is little of it. The plain error of ε
# has no weight at the noisy end, where large-scale layout and colour are decided, and which a distilled model
# must get right in its first step.

# %%
schedule = CosineSchedule()
weightings = {
    "x0": X0_MSE,
    "ε": EPS_MSE,
    "v": V_MSE,
    "max(SNR, 1)": TruncatedSNR(),
    "min(SNR, 5)": MinSNR(),
    "sigmoid": SigmoidWeighting(bias=-3.0),
}
slope = -logsnr_slope(schedule, schedule.time(levels))
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4))
for name, weighting in weightings.items():
    weight = weighting.log_weight(levels, lambda: slope).exp()
    left.semilogy(levels, weight, label=name)
    loss = weight * error / slope
    right.plot(levels, loss / loss.sum(), label=name)
left.set(xlabel="log-SNR", ylabel="weight on the squared error of x0", ylim=(1e-4, 1e5))
right.set(xlabel="log-SNR", ylabel="share of the loss, cosine schedule")
left.legend(fontsize=8, loc="lower right")
figure.tight_layout()

# %% [markdown]
# In numbers: the share of the loss that comes from below log-SNR 0, the noisier half.

# %%
for name, weighting in weightings.items():
    loss = weighting.log_weight(levels, lambda: slope).exp() * error / slope
    print(f"{name:12} {float(loss[levels < 0].sum() / loss.sum()):6.1%}")
