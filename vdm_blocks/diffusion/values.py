"""Refusing a class or a name where a value belongs."""

from __future__ import annotations

from typing import Any

__all__ = ["check_value"]


def check_value(name: str, value: Any, kind: type | tuple[type, ...], fits: str) -> None:
    """Refuse what is not of `kind`, which may be a runtime-checkable protocol, and a class where a value of it belongs.

    Raises:
        ValueError: either of them.

    >>> check_value("prediction", "v", int, "V or X0, a value and not a name")
    Traceback (most recent call last):
    ...
    ValueError: prediction='v' does not fit; give V or X0, a value and not a name
    """
    if isinstance(value, type) or not isinstance(value, kind):
        raise ValueError(f"{name}={value!r} does not fit; give {fits}")
