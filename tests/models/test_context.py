"""How networks read what they are told beside the video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contract import GROUPED, MAGNITUDE, UPSAMPLER, awaken, inputs, randn
from torch import Tensor, nn

from vdm_blocks.checkpoint import load_unet, save_unet
from vdm_blocks.models import (
    AttentionPoolSpec,
    FactorizedSpec,
    FourierSpec,
    InverseCosineSpec,
    MeanPoolSpec,
    SinusoidSpec,
    TransformerSpec,
    UNetSpec,
    VideoUNet,
)
from vdm_blocks.models.context import ContextEncoder
from vdm_blocks.nn import (
    AttentionPool,
    FourierEmbedding,
    FourierLogSNREmbedding,
    LogSNREmbedding,
    MeanPool,
    ScalarEmbedding,
    sinusoid,
)

LEVELS = torch.linspace(-15, 15, 31, dtype=torch.float64)


def test_the_mean_is_of_the_tokens_that_are_there() -> None:
    pool, text = MeanPool(5, 3).double(), randn(2, 4, 5)
    mask = torch.tensor([[True, True, False, False], [False] * 4])
    assert pool.bias is not None
    want = torch.stack([pool.weight @ text[0, :2].mean(0) + pool.bias, pool.bias])
    torch.testing.assert_close(pool(text, mask), want)


def by_hand(kind: InverseCosineSpec | SinusoidSpec | FourierSpec, net: nn.Module, logsnr: Tensor) -> Tensor:
    """The waves of each embedding, written out."""
    if isinstance(kind, SinusoidSpec):
        return sinusoid(kind.scale * logsnr, kind.features)
    if isinstance(kind, InverseCosineSpec):  # alpha^2 = sigmoid(logsnr) = cos^2(pi u / 2)
        return sinusoid(1000 * 2 / torch.pi * logsnr.sigmoid().sqrt().acos(), kind.features)
    assert isinstance(net, FourierLogSNREmbedding)
    wave: FourierEmbedding = net.waves
    return 2**0.5 * torch.cos(2 * torch.pi * (logsnr[:, None].float() * wave.frequency + wave.phase))


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        (InverseCosineSpec(features=8), LogSNREmbedding),
        (SinusoidSpec(features=8, scale=3.0), ScalarEmbedding),
        (FourierSpec(features=7, bandwidth=0.5), FourierLogSNREmbedding),
    ],
    ids=["inverse cosine", "sinusoids", "Fourier"],
)
def test_log_snr_is_embedded_as_the_plan_says(
    kind: InverseCosineSpec | SinusoidSpec | FourierSpec, layer: type[nn.Module]
) -> None:
    torch.manual_seed(0)
    context = ContextEncoder(replace(UPSAMPLER, logsnr=kind))
    assert context.aug is not None
    for net in (context.logsnr, context.aug):
        assert type(net) is layer
        mlp = net.mlp
        assert isinstance(mlp, nn.Sequential)
        torch.testing.assert_close(net(LEVELS), mlp(by_hand(kind, net, LEVELS).float()), rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("kind", "layer"), [(MeanPoolSpec(), MeanPool), (AttentionPoolSpec(heads=5), AttentionPool)]
)
def test_the_caption_is_pooled_as_the_plan_says(
    kind: MeanPoolSpec | AttentionPoolSpec, layer: type[nn.Module]
) -> None:
    spec = replace(UPSAMPLER, pool=kind)
    context, x = awaken(ContextEncoder(spec).double()), inputs(spec)
    assert isinstance(context, ContextEncoder)
    assert type(context.pooled) is layer
    assert x.cond.text is not None
    assert x.cond.text_mask is not None
    assert x.cond.aug_logsnr is not None
    assert x.cond.fps is not None
    assert context.aug is not None
    want = (
        context.logsnr(x.logsnr) + context.aug(x.cond.aug_logsnr) + context.fps(16 * (1 + x.cond.fps).log2())
    )
    want = want + context.pooled(context.text_norm(x.cond.text), x.cond.text_mask)
    torch.testing.assert_close(context(x.logsnr, x.cond, torch.float64).emb, nn.functional.silu(want))


@pytest.mark.parametrize("spec", [GROUPED, MAGNITUDE], ids=["attention pool, Fourier", "sinusoids"])
def test_files_keep_the_choice(spec: UNetSpec, tmp_path: Path) -> None:
    net, x = awaken(VideoUNet(spec)), inputs(spec, 1, 2, dtype=torch.float32)
    assert isinstance(net, VideoUNet)
    save_unet(tmp_path / "net.safetensors", net, dtype=torch.float32)
    again = load_unet(tmp_path / "net.safetensors")
    assert again.spec == spec
    torch.testing.assert_close(
        again(x.z_t, x.logsnr, x.cond), net(x.z_t, x.logsnr, x.cond), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: AttentionPoolSpec(heads=0), "heads must be at least 1; got 0"),
        (lambda: replace(UPSAMPLER, pool=AttentionPoolSpec(heads=4)), "4 heads .* text_width is 10"),
        (lambda: replace(MAGNITUDE, pool=AttentionPoolSpec()), "text_width is 0"),
        (
            lambda: TransformerSpec(
                width=12, depth=1, heads=2, mixing=FactorizedSpec(), text_width=9, pool=AttentionPoolSpec()
            ),
            "text_width is 9",
        ),
        (lambda: InverseCosineSpec(features=7), "even and at least 4; got 7"),
        (lambda: SinusoidSpec(features=2), "even and at least 4; got 2"),
        (lambda: SinusoidSpec(scale=0.0), "scale must be positive and finite; got 0"),
        (lambda: FourierSpec(features=0), "features must be at least 1; got 0"),
        (lambda: FourierSpec(bandwidth=float("inf")), "bandwidth must be positive and finite; got inf"),
    ],
)
def test_plans_that_do_not_fit_are_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
