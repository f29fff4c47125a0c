"""Specs as plain data and back: what a checkpoint's metadata holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["from_plain", "to_plain"]

T = TypeVar("T")


def to_plain(value: object) -> Any:
    """A frozen dataclass as dicts, lists, numbers and strings that JSON can hold; each dict names its class.

    Raises:
        ValueError: a value that is none of these.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {"is": type(value).__name__} | {
            f.name: to_plain(getattr(value, f.name)) for f in fields(value)
        }
    if isinstance(value, (tuple, list)):
        return [to_plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"a spec holds numbers, strings, tuples and dataclasses; it cannot hold {value!r}")


def from_plain(cls: type[T], plain: object) -> T:
    """The inverse of `to_plain`: only classes that `cls`'s own annotations mention are ever built.

    Raises:
        ValueError: data that was not made from a `cls` of this version.
    """
    value = _build(cls, plain)
    assert isinstance(value, cls)
    return value


def _build(hint: Any, plain: object) -> object:
    if get_origin(hint) in (Union, UnionType):
        return _build_union(get_args(hint), plain)
    if get_origin(hint) is tuple:
        if not isinstance(plain, (list, tuple)):
            raise ValueError(f"expected a list, got {plain!r}")
        args = get_args(hint)
        inner = [args[0]] * len(plain) if len(args) == 2 and args[1] is ... else list(args)
        return tuple(_build(each, v) for each, v in zip(inner, plain, strict=True))
    if is_dataclass(hint):
        assert isinstance(hint, type)
        if not isinstance(plain, Mapping) or plain.get("is") != hint.__name__:
            raise ValueError(f"expected a {hint.__name__}, got {plain!r}")
        hints = get_type_hints(hint)
        names = {f.name for f in fields(hint)}
        unknown = sorted(set(plain) - names - {"is"})
        if unknown:
            raise ValueError(
                f"a {hint.__name__} has no {', '.join(map(str, unknown))}; was this written by a newer version?"
            )
        missing = sorted(f.name for f in fields(hint) if f.name not in plain and _required(f))
        if missing:
            raise ValueError(f"a {hint.__name__} needs {', '.join(missing)}, which the data do not have")
        return hint(**{name: _build(hints[name], plain[name]) for name in names if name in plain})
    if hint is float and isinstance(plain, int) and not isinstance(plain, bool):
        return float(plain)
    if isinstance(hint, type) and type(plain) is hint:
        return plain
    raise ValueError(f"expected {hint}, got {plain!r}")


def _build_union(options: tuple[Any, ...], plain: object) -> object:
    for option in options:
        if plain is None and option is type(None):
            return None
        if isinstance(plain, Mapping) and is_dataclass(option) and plain.get("is") == _name(option):
            return _build(option, plain)
        if isinstance(option, type) and not is_dataclass(option) and type(plain) is option:
            return plain
    raise ValueError(f"expected one of {[_name(option) for option in options]}, got {plain!r}")


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _name(option: Any) -> str:
    return option.__name__ if isinstance(option, type) else str(option)
