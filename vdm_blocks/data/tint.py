"""Taking a picture apart so that its body can be given any colour."""

from __future__ import annotations

import torch
from torch import Tensor


def hue_saturation(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Hue in turns [0, 1) and saturation in [0, 1] of rgb (..., 3, H, W) in [0, 1]: each (..., H, W)."""
    r, g, b = rgb.unbind(-3)
    high, low = rgb.amax(dim=-3), rgb.amin(dim=-3)
    span = (high - low).clamp(min=1e-6)
    hue = torch.where(
        high == r, ((g - b) / span) % 6, torch.where(high == g, (b - r) / span + 2, (r - g) / span + 4)
    )
    return hue / 6, (high - low) / high.clamp(min=1e-6)


def split_tint(rgba: Tensor, *, tinted: bool, window: float = 0.13) -> Tensor:
    """Take a picture apart into what stays and what a caption's colour fills.

    The body is where the hue lies within `window` turns of the commonest one. There the picture
    becomes colour * k + white * m, with k and m from its own luminance: shadows darken the colour,
    highlights pale it.

    Args:
        rgba: (F, 4, S, S) straight alpha, in [0, 1].
        tinted: False keeps the picture as it is.
        window: how far from the commonest hue the body reaches, in turns.

    Returns:
        (F, 5, S, S): red, green, blue premultiplied by alpha; alpha; tint k (premultiplied).

    Raises:
        ValueError: a picture to be tinted in which nothing has a colour.
    """
    rgb, alpha = rgba[:, :3], rgba[:, 3:]
    if not tinted:
        return torch.cat([rgb * alpha, alpha, torch.zeros_like(alpha)], dim=1)
    hue, saturation = hue_saturation(rgb)
    weight = (saturation * alpha[:, 0] * (saturation > 0.3)).flatten()
    histogram = torch.zeros(36).index_add(0, (hue.flatten() * 36).long().clamp(0, 35), weight)
    smooth = histogram + histogram.roll(1) + histogram.roll(-1)
    centre = (float(smooth.argmax()) + 0.5) / 36
    distance = ((hue - centre + 0.5) % 1 - 0.5).abs()
    body = ((window - distance) / 0.03 + 0.5).clamp(0, 1) * ((saturation - 0.12) / 0.12).clamp(0, 1)
    luminance = (rgb * torch.tensor([0.30, 0.59, 0.11]).view(3, 1, 1)).sum(dim=1)
    sure = luminance[(body > 0.5) & (alpha[:, 0] > 0.5)]
    if not len(sure):
        raise ValueError(
            "nothing in this picture has a colour that another could take the place of; leave it untinted"
        )
    low, middle, high = torch.quantile(
        sure[:: max(1, len(sure) // 100_000)], torch.tensor([0.02, 0.5, 0.98])
    ).tolist()
    below = (1 - (middle - luminance) / max(middle - low, 0.02)).clamp(0, 1)
    above = ((luminance - middle) / max(high - middle, 0.10)).clamp(0, 1)
    k = body * (0.55 + 0.45 * below) * (1 - 0.35 * above)
    stays = rgb * (1 - body).unsqueeze(1) + (body * 0.35 * above).unsqueeze(1)
    return torch.cat([stays * alpha, alpha, k.unsqueeze(1) * alpha], dim=1)
