"""Colour words, and what captions are put together by."""

from __future__ import annotations

from types import MappingProxyType

COLORS = MappingProxyType(
    {
        "red": (0.86, 0.10, 0.13),
        "orange": (0.98, 0.52, 0.06),
        "yellow": (0.98, 0.86, 0.14),
        "green": (0.16, 0.66, 0.24),
        "blue": (0.14, 0.36, 0.92),
        "purple": (0.52, 0.20, 0.76),
        "pink": (1.00, 0.55, 0.76),
        "white": (0.95, 0.95, 0.97),
    }
)
"""The colour words of every synthetic scene and the RGB each one means, in [0, 1]."""


def a(words: str) -> str:
    """The words after their article, by spelling: every noun and adjective of our captions obeys it.

    >>> a("orange umbrella"), a("red umbrella")
    ('an orange umbrella', 'a red umbrella')
    """
    return f"{'an' if words[0] in 'aeiou' and not words.startswith('uni') else 'a'} {words}"


def join(*parts: str | None) -> str:
    """The parts that are there, with spaces between.

    >>> join("a cat", None, "", "jumps")
    'a cat jumps'
    """
    return " ".join(part for part in parts if part)
