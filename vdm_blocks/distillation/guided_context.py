"""Guidance of what a network is told, before it answers, in place of what it answers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vdm_blocks.models.context import Context, ContextEncoder

__all__ = ["encoder_of", "guided_context"]


def guided_context(
    encoder: ContextEncoder, given: tuple[Any, ...], context: Context, gain: Tensor
) -> Context:
    """emb + gain (emb - emb_uncond), for the `context` that the encoder made of `given`, (logsnr, cond, ...).

    `emb` is the vector of time, frame rate and caption which scales and shifts every block. Guidance of the answer,
    cond + (scale - 1) (cond - uncond), takes two evaluations of the network; this takes one, and two of the small
    encoder. With gain = scale - 1 both are the same to first order in what the caption does to `emb`; a caption that
    acts by attention is not guided. Without text nothing changes.

    Shape: gain (B,) or (B, T); emb (B, E) or (B, T, E).
    """
    logsnr, cond, *rest = given
    bare = encoder.forward(logsnr, cond.without_text(), *rest).emb
    emb, gain = context.emb, gain.to(context.emb.dtype)[..., None]
    if gain.ndim > emb.ndim:
        emb, bare = emb[:, None], bare[:, None]
    elif gain.ndim < emb.ndim:
        gain = gain[:, None]
    return context._replace(emb=emb + gain * (emb - bare))


def encoder_of(network: nn.Module, name: str) -> ContextEncoder:
    """The encoder of that name.

    Raises:
        ValueError: there is none.
    """
    found = {name: m for name, m in network.named_modules() if isinstance(m, ContextEncoder)}
    if name not in found:
        raise ValueError(
            f"{type(network).__name__} has no ContextEncoder {name!r}; "
            + (f"it has {sorted(found)}" if found else "guide its answer instead, with head=")
        )
    return found[name]
