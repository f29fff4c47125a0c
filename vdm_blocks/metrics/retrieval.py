"""Does a video fit its text? From embeddings of both, of whatever model made them."""

from __future__ import annotations

from math import comb

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["clip_score", "r_precision"]


def clip_score(texts: Tensor, frames: Tensor, *, weight: float = 100.0) -> Tensor:
    """weight max(cos(text, frame), 0), averaged over a video's frames (arXiv 2104.08718, section 3).

    Args:
        texts: (N, D) embeddings.
        frames: (N, T, D) embeddings of the frames, in the same space.
        weight: 100 is what most video papers print, 2.5 that paper's.

    Returns:
        (N,) float64.

    Raises:
        ValueError: shapes that do not belong together.

    >>> clip_score(torch.tensor([[1.0, 0.0]]), torch.tensor([[[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]]))
    tensor([33.3333], dtype=torch.float64)
    """
    if texts.ndim != 2 or frames.ndim != 3 or (len(texts), texts.shape[1]) != (len(frames), frames.shape[2]):
        raise ValueError(
            f"texts are (N, D) and frames (N, T, D); got {tuple(texts.shape)} and {tuple(frames.shape)}"
        )
    cosine = F.cosine_similarity(texts.double()[:, None], frames.double(), dim=2)
    return weight * cosine.clamp(min=0).mean(1)


def r_precision(texts: Tensor, videos: Tensor, *, pool: int = 100, rank: int = 1) -> Tensor:
    """The chance that a video's own text is among the `rank` nearest of a pool: it and pool - 1 others at random.

    The mean over all pools, in closed form instead of by drawing some: of the other N - 1 texts let k be at least as
    near by cosine as the own one; then
        P = sum_{j < rank} C(k, j) C(N - 1 - k, pool - 1 - j) / C(N - 1, pool - 1)
    Text-to-image work has R = 1 and a pool of 100 (arXiv 1711.10485, section 4.1). Imagen Video asks every frame, with
    R = 1, and does not tell its pool (arXiv 2210.02303, section 3.4).

    Args:
        texts: (N, D) embeddings.
        videos: in the same space, (N, D): one a video, e.g. the mean of its frames'; or (N, T, D): each frame is asked
            for itself, and a video's result is the mean over its frames. The two are different protocols: say which.
        pool: how many texts there are to choose from.
        rank: R.

    Returns:
        (N,) float64; the mean is R-precision. Guessing gives rank / pool.

    Raises:
        ValueError: shapes that differ, or fewer texts than the pool.

    >>> r_precision(torch.eye(4), torch.eye(4), pool=4)
    tensor([1., 1., 1., 1.], dtype=torch.float64)
    """
    if videos.ndim == 3:
        return torch.stack([r_precision(texts, x, pool=pool, rank=rank) for x in videos.unbind(1)]).mean(0)
    if texts.ndim != 2 or texts.shape != videos.shape:
        raise ValueError(
            f"texts are (N, D) and videos (N, D) or (N, T, D); got {tuple(texts.shape)} and {tuple(videos.shape)}"
        )
    count = len(texts)
    if not 1 <= rank <= pool or not 2 <= pool <= count:
        raise ValueError(
            f"1 <= rank <= pool and 2 <= pool <= {count}, the number of texts; got {rank} and {pool}"
        )
    similarity = F.normalize(videos.double(), dim=1) @ F.normalize(texts.double(), dim=1).T
    nearer = (similarity >= similarity.diagonal()[:, None]).sum(1) - 1
    total = comb(count - 1, pool - 1)
    chance = [
        sum(comb(k, j) * comb(count - 1 - k, pool - 1 - j) for j in range(rank)) / total
        for k in nearer.tolist()
    ]
    return torch.tensor(chance, dtype=torch.float64)
