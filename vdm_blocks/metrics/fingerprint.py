"""What a set of videos was, in one number that travels with its features."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

__all__ = ["Fingerprint"]


class Fingerprint:
    """The sum of the sha256 of every sample modulo 2^256, and how many there were.

    So it depends on the videos and on nothing else: not on their order, on batches, or on how many processes shared
    the work. Two sets of the same fingerprint hold the same videos, bit for bit and as often.

    >>> import torch
    >>> one, two = Fingerprint(), Fingerprint()
    >>> videos = torch.rand(4, 3, 2, 2, 2)
    >>> one.update(videos)
    >>> two.update(videos[2:]); two.update(videos[:2])
    >>> one.text == two.text, one.count
    (True, 4)
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0

    @property
    def text(self) -> str:
        """64 hexadecimal digits."""
        return hashlib.sha256(f"{self.count} {self._sum}".encode()).hexdigest()

    def update(self, videos: Tensor) -> None:
        """Adds videos (B, ...), of any shape and dtype; both count."""
        for video in videos.detach().cpu():
            head = f"{video.dtype} {tuple(video.shape)} ".encode()
            body = video.flatten().view(torch.uint8).numpy().tobytes()  # NumPy knows no bfloat16
            self._sum += int.from_bytes(hashlib.sha256(head + body).digest(), "big")
            self.count += 1
        self._sum %= 1 << 256

    def merge_from(self, other: Fingerprint) -> None:
        """Adds all that `other` has seen."""
        self.count += other.count
        self._sum = (self._sum + other._sum) % (1 << 256)
