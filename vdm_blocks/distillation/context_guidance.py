"""Guidance of what a network is told, before it answers, in place of what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vdm_blocks.models.context import Context, ContextEncoder
from vdm_blocks.types import Conditioning

__all__ = ["ContextGuidance"]


@dataclass(frozen=True, kw_only=True)
class ContextGuidance:
    """emb + g(scale) (emb - emb_uncond), g(s) = bend asinh((s - 1) / bend), in place of guidance of the answer.

    Guidance of the answer, cond + (s - 1) (cond - uncond), takes two evaluations of the network. This one takes one,
    and two of the small encoder that makes `emb`, the vector of time, frame rate and caption which scales and shifts
    every block. To first order in what the caption does to `emb`, both are the same; a caption that acts by attention
    is not guided. g has slope 1 where guidance begins, and then bends: far out, where first order no longer holds,
    less is better. At scale 1, and where the text was dropped, nothing changes. A student that starts from this has
    little left to learn where most of the caption is in `emb`.

    Attributes:
        at: the name of the network's `ContextEncoder`, "context" in our networks.
        bend: how many scales g stays straight for; inf is guidance of `emb` proper.
        unconditional: makes the conditioning to push away from, as for `ClassifierFreeGuidance`.

    Raises:
        ValueError: a bend that is not positive.

    >>> ContextGuidance(bend=math.inf).gain(torch.tensor([1.0, 3.0]))
    tensor([0., 2.])
    >>> ContextGuidance(bend=2.0).gain(torch.tensor([1.0, 3.0, 16.0]))
    tensor([0.0000, 1.7627, 5.4251])
    """

    at: str = "context"
    bend: float = 1.5
    unconditional: Callable[[Conditioning], Conditioning] = Conditioning.without_text

    def __post_init__(self) -> None:
        if not self.bend > 0:
            raise ValueError(
                f"ContextGuidance got bend={self.bend}; it is positive: about 1.5, or inf for a straight line"
            )

    def gain(self, scale: Tensor) -> Tensor:
        """g(scale), of the same shape."""
        beyond = scale - 1
        return beyond if math.isinf(self.bend) else self.bend * torch.asinh(beyond / self.bend)

    def guide(
        self, encoder: ContextEncoder, given: tuple[Any, ...], context: Context, scale: Tensor
    ) -> Context:
        """The `context` that the encoder made of `given`, (logsnr, cond, ...), guided by `scale`, (B,) or (B, T)."""
        logsnr, cond, *rest = given
        bare = encoder.forward(logsnr, self.unconditional(cond), *rest).emb
        emb, gain = context.emb, self.gain(scale).to(context.emb.dtype)[..., None]
        if gain.ndim > emb.ndim:
            emb, bare = emb[:, None], bare[:, None]
        elif gain.ndim < emb.ndim:
            gain = gain[:, None]
        return context._replace(emb=emb + gain * (emb - bare))

    def check(self, network: torch.nn.Module) -> None:
        """Refuses a network that has no such encoder.

        Raises:
            ValueError: `at` is not the name of one.
        """
        found = [name for name, module in network.named_modules() if isinstance(module, ContextEncoder)]
        if self.at not in found:
            raise ValueError(
                f"{type(network).__name__} has no ContextEncoder {self.at!r}; "
                + (f"it has {found}" if found else "guide its answer instead, with head=")
            )


def as_stored(guidance: ContextGuidance | None) -> dict[str, str | float] | None:
    """What a student's file says of it.

    Raises:
        ValueError: an `unconditional` of one's own, which no file can hold.
    """
    if guidance is None:
        return None
    if replace(guidance, at="context", bend=1.0) != ContextGuidance(bend=1.0):
        raise ValueError(
            "a student's file cannot hold a function: write one whose unconditional is the default"
        )
    return {"at": guidance.at, "bend": guidance.bend}
