"""Refusing a class or a name where a value belongs, and what is no number where one does."""

from __future__ import annotations

from dataclasses import fields
from numbers import Integral, Real
from typing import Any

__all__ = ["check_numbers", "check_value"]

_NUMBERS = {"float": (Real, "a number"), "int": (Integral, "a whole number")}


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


def check_numbers(value: Any) -> None:
    """Refuse a dataclass in which a field annotated as `float` or `int` holds something else.

    Raises:
        ValueError: one that does; it names the first.

    >>> from vdm_blocks.sampling import DDIM
    >>> DDIM(eta="1")
    Traceback (most recent call last):
    ...
    ValueError: eta='1' does not fit; give a number
    """
    for field in fields(value):
        if field.type in _NUMBERS:
            kind, fits = _NUMBERS[field.type]
            check_value(field.name, getattr(value, field.name), kind, fits)
