"""Which noise level should conditioning augmentation have at sampling? A sweep where the answer is known.

The stage before hands over a video with errors of deviation `ERROR`, about which the next stage knows nothing. More
augmentation hides the errors, so the result looks more like data, and loses the video, so it is less like the input.
With pixels of variance p, noise-to-signal r2 = 1 / SNR and u = 1 + r2 / p the exact stage draws samples whose

    excess of variance = ERROR^2 / u^2,    squared distance from the truth = 2 p (1 - 1 / u) + ERROR^2 / u^2,

and the distance is least at r2 = ERROR^2 - p. With a stage of yours the same sweep finds the best.
"""

from __future__ import annotations

from torch import Tensor

from vdm_blocks import Conditioning, CosineSchedule, Denoised, KeyedNoise, expand_level
from vdm_blocks.conditioning import ConditioningAugmentation, sweep_augmentation
from vdm_blocks.sampling import Heun, sample, uniform_logsnr_times

ERROR, VARIANCE, SHAPE, SAMPLES = 0.8, 0.25, (1, 4, 16, 16), 16
schedule = CosineSchedule()


class Stage:
    """The exact denoiser of independent Gaussian pixels that are seen through an augmented video."""

    schedule = schedule

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        assert cond.video is not None
        assert cond.aug_logsnr is not None
        alpha, sigma = schedule.alpha_sigma(t)
        seen = expand_level(schedule.alpha_sigma(schedule.time(cond.aug_logsnr))[0], z_t)
        noise = 1 - seen**2
        precision = 1 / VARIANCE + (alpha / sigma) ** 2 + seen**2 / noise
        x0 = (alpha / sigma**2 * z_t + seen / noise * cond.video) / precision
        return Denoised(x0, (z_t - alpha * x0) / sigma)


def main() -> None:
    noise = KeyedNoise(seeds=tuple(range(SAMPLES)), stage="upsampler")
    size = (SAMPLES, *SHAPE)
    truth = VARIANCE**0.5 * noise.normal(size, step="truth")
    from_before = truth + ERROR * noise.normal(size, step="error")
    times = uniform_logsnr_times(40, schedule, logsnr_min=-9.0, logsnr_max=12.0)

    def run(snr: float) -> Tensor:
        video, logsnr = ConditioningAugmentation().at_snr(from_before, snr, generator=noise)
        start, cond = noise.normal(size, step="start"), Conditioning(video=video, aug_logsnr=logsnr)
        return sample(Stage(), Heun(), times, start, cond)

    sweep = sweep_augmentation(
        run,
        [100.0, 20.0, 10.0, 5.0, 4.0, 3.0, 2.5, 2.0, 1.0, 0.3],
        measures={
            "excess of variance": lambda x: float(x.var() - VARIANCE),
            "squared distance": lambda x: float((x - truth).square().mean()),
        },
    )
    print(f"{'SNR':>8}{'excess of variance':>22}{'squared distance':>22}")
    for snr, excess, distance in zip(sweep.snrs, *sweep.measures.values(), strict=True):
        u = 1 + 1 / snr / VARIANCE
        known = ERROR**2 / u**2, 2 * VARIANCE * (1 - 1 / u) + ERROR**2 / u**2
        print(f"{snr:8.1f}{excess:12.3f} ({known[0]:6.3f}){distance:13.3f} ({known[1]:6.3f})")
    least = sweep.least("squared distance")
    print(f"the least distance is at SNR {least}; the formula says {1 / (ERROR**2 - VARIANCE):.2f}")
    sweep.plot().savefig("augmentation_sweep.png")  # the curves, and a frame of every level


if __name__ == "__main__":
    main()
