"""How much conditioning augmentation a stage should be sampled with: try levels, measure, look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["AugmentationSweep", "sweep_augmentation"]


@dataclass(frozen=True, kw_only=True)
class AugmentationSweep:
    """What a stage made at each level of augmentation.

    Attributes:
        snrs: the levels, signal-to-noise ratios as powers, from the noisiest.
        samples: the videos, (B, C, T, H, W), one for each level.
        measures: by name, one number for each level.
    """

    snrs: tuple[float, ...]
    samples: tuple[Tensor, ...]
    measures: Mapping[str, tuple[float, ...]]

    def least(self, measure: str) -> float:
        """The SNR at which `measure` is least.

        Raises:
            ValueError: a name that was not measured.
        """
        if measure not in self.measures:
            raise ValueError(
                f"{measure!r} was not measured; there is {', '.join(self.measures) or 'nothing'}"
            )
        values = self.measures[measure]
        return self.snrs[values.index(min(values))]

    def plot(self, *, frame: int = 0, shown: int = 0) -> Any:
        """A matplotlib figure: every measure over the SNR, and below it one frame of each level.

        Args:
            frame: which frame of the video.
            shown: which sample of the batch.

        Raises:
            ValueError: a frame or a sample that is not there.
            ImportError: matplotlib is missing.
        """
        figure_of = _import_figure()
        count, frames = self.samples[0].shape[0], self.samples[0].shape[2]
        if not (0 <= frame < frames and 0 <= shown < count):
            raise ValueError(f"frame {frame} of sample {shown} was asked for; there are {frames} and {count}")
        levels, names = len(self.snrs), tuple(self.measures)
        figure = figure_of(figsize=(max(1.2 * levels, 6), 2.2 * len(names) + 1.6), layout="constrained")
        rows = figure.subfigures(
            2 if names else 1, 1, height_ratios=[2.2 * len(names), 1.6] if names else [1]
        )
        above, below = (rows[0], rows[1]) if names else (None, rows)
        if above is not None:
            for axes, name in zip(above.subplots(len(names), 1, squeeze=False)[:, 0], names, strict=True):
                axes.semilogx(self.snrs, self.measures[name], marker="o")
                axes.set(ylabel=name, xlabel="SNR of the augmentation")
                axes.set_xticks(self.snrs, [f"{snr:.3g}" for snr in self.snrs])
                axes.minorticks_off()
        pictures = below.subplots(1, levels, squeeze=False)[0]
        for axes, snr, video in zip(pictures, self.snrs, self.samples, strict=True):
            picture = ((video[shown, :, frame].float().cpu() + 1) / 2).clamp(0, 1).movedim(0, -1).numpy()
            axes.imshow(
                picture[..., :3] if picture.shape[-1] >= 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1
            )
            axes.set_title(f"{snr:.3g}", fontsize=9)
            axes.axis("off")
        return figure


def sweep_augmentation(
    run: Callable[[float], Tensor],
    snrs: Sequence[float],
    *,
    measures: Mapping[str, Callable[[Tensor], float]],
) -> AugmentationSweep:
    """Runs a stage once for every SNR of its conditioning augmentation, and measures what comes out.

    More noise hides the errors of the stage before, and hides the video too; which of the two counts more is found
    by trying (arXiv 2205.11487, section 2.4). Give every level the same noise, so that only the level changes.

    Args:
        run: from an SNR to videos (B, C, T, H, W): `lambda snr: replace(stage, snr=snr).run(cond, before, seeds=seeds)`
            with a `Stage`, or `sample` with what `ConditioningAugmentation.at_snr` gives.
        snrs: the levels to try, as power ratios.
        measures: by name, what to measure of the videos: a distance from the truth, say, or from the input.

    Raises:
        ValueError: no levels, one that is not positive, or a `run` that gives no video.

    >>> import torch
    >>> sweep = sweep_augmentation(
    ...     lambda snr: torch.full((1, 3, 1, 2, 2), 1 / snr), [5.0, 1.0], measures={"mean": lambda x: float(x.mean())}
    ... )
    >>> sweep.snrs, round(sweep.measures["mean"][1], 2), sweep.least("mean")
    ((1.0, 5.0), 0.2, 5.0)
    """
    if not snrs or not all(0 < snr < float("inf") for snr in snrs):
        raise ValueError(
            f"snrs is {list(snrs)}; give some, each a positive power ratio, for example 1, 3, 5 and 20"
        )
    ordered = tuple(sorted(float(snr) for snr in snrs))
    samples = []
    for snr in ordered:
        video: object = run(snr)
        if not isinstance(video, Tensor) or video.ndim != 5:
            what = tuple(video.shape) if isinstance(video, Tensor) else type(video).__name__
            raise ValueError(f"run({snr}) gave {what}; it must give videos (B, C, T, H, W)")
        samples.append(video.detach())
    measured = {name: tuple(float(of(video)) for video in samples) for name, of in measures.items()}
    return AugmentationSweep(snrs=ordered, samples=tuple(samples), measures=measured)


def _import_figure() -> Any:
    """matplotlib's `Figure`, or an ImportError that says how to get it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'vdm-blocks[plots]'") from error
    return Figure
