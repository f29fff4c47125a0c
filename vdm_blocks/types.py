"""What the rooms hand to one another: conditioning, a denoiser's answer, and two protocols.

Axes: B batch, C channels, T frames, H height, W width, L text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from vdm_blocks.diffusion.values import check_value

__all__ = ["Conditioning", "Denoised", "Denoiser", "Network", "Schedule"]


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """Everything that a network may be told besides the noisy video; what is None is not told.

    Attributes:
        text: (B, L, D) token states, or (B, T, L, D) where each frame has a caption of its own.
        text_mask: bool, `text`'s shape without D; False marks padding.
        video: (B, C', T, H, W), a video on the network's own grid, concatenated to the noisy one.
        aug_logsnr: (B,) log-SNR at which `video` was noised (arXiv 2106.15282, section 3).
        fps: (B,) frames per second.
        images: bool, (B,) or (B, T); True marks frames that are pictures independent of the others.
        extra: further tensors, each with a leading batch axis, for networks that are not ours.

    Raises:
        ValueError: what is no tensor, text without a mask, or shapes that do not belong together.

    >>> cond = Conditioning(text=torch.zeros(2, 5, 8), text_mask=torch.ones(2, 5, dtype=torch.bool))
    >>> cond.drop_text(torch.tensor([True, False])).text_mask.any(1).tolist()
    [True, False]
    """

    text: Tensor | None = None
    text_mask: Tensor | None = None
    video: Tensor | None = None
    aug_logsnr: Tensor | None = None
    fps: Tensor | None = None
    images: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_batch()
        if (self.text is None) != (self.text_mask is None):
            raise ValueError("text and text_mask come together: give both, or neither")
        if self.text is not None and self.text_mask is not None:
            if self.text.ndim not in (3, 4):
                raise ValueError(
                    f"text has shape {tuple(self.text.shape)}; it must be (B, L, D) or (B, T, L, D)"
                )
            if self.text_mask.shape != self.text.shape[:-1]:
                raise ValueError(
                    f"text_mask has shape {tuple(self.text_mask.shape)}; "
                    f"for text {tuple(self.text.shape)} it must be {tuple(self.text.shape[:-1])}"
                )
            if self.text_mask.dtype != torch.bool:
                raise ValueError(
                    f"text_mask is {self.text_mask.dtype}; it must be torch.bool, True for real tokens"
                )
        if self.video is not None and self.video.ndim != 5:
            raise ValueError(f"video has shape {tuple(self.video.shape)}; it must be (B, C, T, H, W)")
        if self.images is not None and (self.images.ndim not in (1, 2) or self.images.dtype != torch.bool):
            raise ValueError(
                f"images is {self.images.dtype} of shape {tuple(self.images.shape)}; it must be bool, (B,) or (B, T)"
            )

    def drop_text(self, keep: Tensor) -> Conditioning:
        """The same conditioning with the text masked out where `keep`, bool (B,), is False.

        Raises:
            ValueError: another dtype or shape.
        """
        if self.text_mask is None:
            return self
        check_value("keep", keep, Tensor, "a bool tensor, one entry per sample")
        if keep.shape != self.text_mask.shape[:1] or keep.dtype != torch.bool:
            raise ValueError(
                f"keep is {keep.dtype} of shape {tuple(keep.shape)}; it must be torch.bool, and for this batch "
                f"of shape ({self.text_mask.shape[0]},)"
            )
        shape = (-1,) + (1,) * (self.text_mask.ndim - 1)
        return replace(self, text_mask=self.text_mask & keep.to(self.text_mask.device).view(shape))

    def without_text(self) -> Conditioning:
        """The unconditional twin that classifier-free guidance compares with: all text masked out."""
        if self.text_mask is None:
            return self
        return replace(self, text_mask=torch.zeros_like(self.text_mask))

    def map(self, fn: Callable[[Tensor], Tensor]) -> Conditioning:
        """`fn` applied to every tensor that is there."""
        new = {f.name: fn(value) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        return replace(self, **new, extra={name: fn(value) for name, value in self.extra.items()})

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Conditioning:
        """All tensors on `device`; the floating-point ones as `dtype`."""

        def move(x: Tensor) -> Tensor:
            return x.to(device=device, dtype=dtype if x.is_floating_point() else None)

        return self.map(move)

    def select(self, index: Tensor | slice) -> Conditioning:
        """The samples at `index`, of every tensor."""
        return self.map(lambda x: x[index])

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """One batch out of several; text is padded to the longest.

        Raises:
            ValueError: no parts, or parts that do not have the same entries.
        """
        if not parts:
            raise ValueError("Conditioning.cat needs at least one part; it was given an empty sequence")
        if any(p._entries() != parts[0]._entries() for p in parts):
            raise ValueError(
                f"cannot join conditionings with different entries: {[sorted(p._entries()) for p in parts]}; "
                "give each the same ones"
            )
        if parts[0].text is not None:
            length = max(p.text.shape[-2] for p in parts if p.text is not None)
            parts = [p._pad_text(length) for p in parts]
        new = {
            f.name: torch.cat([getattr(p, f.name) for p in parts])
            for f in fields(Conditioning)
            if isinstance(getattr(parts[0], f.name), Tensor)
        }
        extra = {name: torch.cat([p.extra[name] for p in parts]) for name in parts[0].extra}
        return Conditioning(**new, extra=extra)

    def check_fits(self, z_t: Tensor) -> None:
        """Refuse a video of another batch, or of other frames than the captions and pictures are counted for.

        Raises:
            ValueError: either of them.
        """
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        for name, x in {**own, **self.extra}.items():
            if x is not None and x.shape[0] != z_t.shape[0]:
                raise ValueError(
                    f"{name} has shape {tuple(x.shape)} and z_t {tuple(z_t.shape)}; their first axes are one batch and "
                    "must be equal"
                )
        for name, x, axes in (("text", self.text, 4), ("images", self.images, 2)):
            if x is not None and x.ndim == axes and x.shape[1] != z_t.shape[2]:
                raise ValueError(
                    f"{name} has shape {tuple(x.shape)}, one row a frame, but z_t {tuple(z_t.shape)} has "
                    f"{z_t.shape[2]} frames; give as many"
                )

    def _entries(self) -> set[str]:
        return {f.name for f in fields(self) if isinstance(getattr(self, f.name), Tensor)} | set(self.extra)

    def _check_batch(self) -> None:
        """Refuse what is no tensor, and tensors of different batches."""
        check_value("extra", self.extra, Mapping, "a mapping from names to tensors")
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        given: dict[str, Any] = {name: x for name, x in own.items() if x is not None} | dict(self.extra)
        for name, x in given.items():
            if not isinstance(x, Tensor) or x.ndim == 0:
                raise ValueError(f"{name} is {x!r}; it must be a tensor whose first axis is the batch")
        sizes = [x.shape[0] for x in given.values()]
        if any(size != sizes[0] for size in sizes):
            raise ValueError(
                "all entries of a conditioning are of one batch, but their first axes differ: "
                + ", ".join(f"{name} {tuple(x.shape)}" for name, x in given.items())
            )

    def _pad_text(self, length: int) -> Conditioning:
        assert self.text is not None
        assert self.text_mask is not None
        missing = length - self.text.shape[-2]
        if missing == 0:
            return self
        return replace(
            self,
            text=torch.nn.functional.pad(self.text, (0, 0, 0, missing)),
            text_mask=torch.nn.functional.pad(self.text_mask, (0, missing)),
        )


@dataclass(frozen=True)
class Denoised:
    """A denoiser's answer: z_t = alpha_t x0 + sigma_t eps, split in two.

    Attributes:
        x0: estimate of the clean video, (B, C, T, H, W).
        eps: estimate of the noise, the same shape.
    """

    x0: Tensor
    eps: Tensor


@runtime_checkable
class Schedule(Protocol):
    """What a denoiser needs to know of its noise schedule."""

    def logsnr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) at time `t`."""

    def time(self, logsnr: Tensor) -> Tensor:
        """The time at which the log-SNR is `logsnr`."""

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise scale at time `t`."""


class Network(Protocol):
    """Any callable from (z_t, log-SNR, conditioning) to a tensor of z_t's shape: ours or a stranger's."""

    def __call__(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """`z_t` (B, C, T, H, W), `logsnr` (B,) or (B, T)."""


class Denoiser(Protocol):
    """What everything that samples or distills takes; the wrappers have this signature too."""

    @property
    def schedule(self) -> Schedule:
        """The noise schedule that `t` is read by."""

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """`z_t` (B, C, T, H, W), `t` of shape (), (B,) or (B, T)."""


def check_denoiser(denoiser: Any) -> None:
    """Refuse a bare network where a denoiser is wanted.

    Raises:
        ValueError: what has no schedule.
    """
    try:
        schedule = denoiser.schedule
    except AttributeError:
        schedule = None
    if schedule is None:
        raise ValueError(
            f"{getattr(denoiser, '__name__', type(denoiser).__name__)} is no denoiser, for it has no schedule; wrap a "
            "network: ModelDenoiser(network, schedule=CosineSchedule(), prediction=V)"
        )
