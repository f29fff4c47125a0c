"""The GAN term of distribution matching: who tells data from the student's videos, and what is learned of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["Adversary", "Discriminator", "FeatureDiscriminator"]


class Discriminator(Protocol):
    """Tells noised data from noised videos of the student."""

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Logits, (B,): positive for data. `z_t` (B, C, T, H, W), `t` (B,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Adversary:
    """The GAN term of DMD2: softplus(-discriminator(noised student)), on noised videos (arXiv 2405.14867, eq. 4).

    Attributes:
        discriminator: any callable of the signature; in the paper a head on the critic's own features
            (`FeatureDiscriminator`).
        weight: of the term in the student's loss.

    Raises:
        ValueError: a weight that is not positive.
    """

    discriminator: Discriminator
    weight: float = 5e-3

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ValueError(
                f"Adversary got weight={self.weight}; it must be positive; for no GAN term give no adversary"
            )

    def student_loss(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """weight softplus(-discriminator(z_t)), (B,), whose gradient reaches z_t, and not the discriminator's weights.

        One optimizer may hold all roles: the student's turn does not teach its adversary to be wrong.
        """
        with torch.enable_grad():
            z = z_t.detach().requires_grad_()
            loss = F.softplus(-self.discriminator(z, t, cond))
            (slope,) = torch.autograd.grad(loss.sum(), z)
        along = ((z_t - z) * slope).flatten(1).sum(dim=1)
        return self.weight * (loss.detach() + along)

    def own_loss(self, real: Tensor, fake: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """softplus(-d(noised data)) + softplus(d(noised student)), (B,): what the discriminator learns by."""
        return F.softplus(-self.discriminator(real, t, cond)) + F.softplus(self.discriminator(fake, t, cond))


class FeatureDiscriminator(nn.Module):
    """W silu(V mean(h)), h what the submodule `at` of the critic puts out, its mean over frames and pixels.

    (In the manner of arXiv 2405.14867, section 4.3, whose discriminator is a branch on the critic's bottleneck.) The
    critic learns by it too: give one optimizer both the critic's loss and `discriminator_loss`. The last layer starts
    at zero, where nothing is told apart.

    Args:
        critic: the role itself, which becomes part of this Module.
        at: the name, in `critic.named_modules()`, of a submodule that puts out (B, C, T, H, W) or (B T, C, H, W).
        channels: C.
        hidden: width between the two maps.

    Shape: z_t (B, C, T, H, W), t (B,) -> (B,).

    Raises:
        ValueError: a name that is not the critic's; on a call, a submodule that is not called or puts out no features,
            or another number of channels.

    >>> from vdm_blocks.denoisers import ModelDenoiser
    >>> from vdm_blocks.diffusion import CosineSchedule
    >>> from vdm_blocks.models import LevelSpec, UNetSpec, VideoUNet
    >>> net = VideoUNet(UNetSpec(levels=(LevelSpec(channels=8), LevelSpec(channels=16)), embedding=32, text_width=0))
    >>> critic = ModelDenoiser(net, schedule=CosineSchedule())
    >>> judge = FeatureDiscriminator(critic, at="network.levels.1.down.0", channels=16)
    >>> judge(torch.zeros(2, 3, 2, 4, 4), torch.tensor([0.1, 0.9]), Conditioning())
    tensor([0., 0.], grad_fn=<MeanBackward1>)
    """

    def __init__(self, critic: Denoiser, *, at: str, channels: int, hidden: int = 64) -> None:
        super().__init__()
        if not isinstance(critic, nn.Module):
            raise ValueError(
                f"the critic is {type(critic).__name__}; it is a Module whose features can be read"
            )
        names = [name for name, _ in critic.named_modules() if name]
        if at not in names:
            near = [name for name in names if name.endswith(("down.0", "mid", "mid_block"))] or names
            raise ValueError(
                f"the critic has no submodule {at!r}; name one that puts out features, for example one of {near[-8:]}"
            )
        self.critic = critic
        self.at = at
        self.channels = channels
        last = nn.Linear(hidden, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(nn.Linear(channels, hidden), nn.SiLU(), last)
        first = next(critic.parameters(), None)
        if first is not None:
            self.head.to(first.device)

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Logits, positive for data."""
        kept: list[Any] = []

        def keep(_module: nn.Module, _given: tuple[Any, ...], put_out: Any) -> None:
            kept.append(put_out)

        with self.critic.get_submodule(self.at).register_forward_hook(keep):
            self.critic(z_t, t, cond)
        features = kept[-1] if kept else None
        if not isinstance(features, Tensor):
            raise ValueError(
                f"{self.at} put out {type(features).__name__}, no tensor of features; name a submodule that the critic "
                "calls, such as its last block on the way down"
            )
        if features.ndim < 3 or features.shape[1] != self.channels or features.shape[0] % z_t.shape[0]:
            raise ValueError(
                f"{self.at} put out shape {tuple(features.shape)} for a batch of {z_t.shape[0]}; its first axis is the "
                f"batch, or batch and frames, and its second channels={self.channels}"
            )
        pooled = features.flatten(2).mean(dim=2).unflatten(0, (z_t.shape[0], -1)).mean(dim=1)
        logits: Tensor = self.head(pooled.to(self.head[0].weight.dtype)).mean(dim=1)
        return logits
