"""A state dict out of a .pth file, without unpickling: no code of the file is ever looked up or run.

A pickle is a program for a stack machine. The state dicts that torch writes need two dozen of its instructions, and
of callables only those that build a tensor and an ordered dict. This reads them one by one and refuses all others.
"""

from __future__ import annotations

import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

__all__ = ["read_pth"]

_MARK = object()
_DTYPES = {
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch DoubleStorage": torch.float64,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ByteStorage": torch.uint8,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_BROKEN = (
    AttributeError, IndexError, KeyError, RuntimeError, TypeError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_Load = Callable[[tuple[Any, ...]], Tensor]


def read_pth(path: str | Path) -> dict[str, Tensor]:
    """The tensors that `torch.save(module.state_dict(), path)` wrote, in torch's zip format or the one before it.

    Raises:
        ValueError: no such file, or one that holds anything else than a flat dict of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        found = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except _BROKEN as error:
        raise ValueError(f"{path} is not a file that torch.save wrote: {error!r}") from error
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items()
    ):
        raise ValueError(f"{path} holds something else than a dict of tensors")
    return found


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        (program,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        root = program.removesuffix("data.pkl")

        def load(key: tuple[Any, ...]) -> Tensor:
            _, kind, name, _, count = key
            return _tensor(archive.read(f"{root}data/{name}"), kind, count)

        with archive.open(program) as stream:
            return _run(stream, load)


def _read_legacy(path: Path) -> Any:
    """Magic number, version, machine, the dict, the list of storages; then each storage: its length and its bytes."""
    wanted: dict[str, tuple[str, int]] = {}
    views: list[tuple[Tensor, str, str]] = []

    def load(key: tuple[Any, ...]) -> Tensor:
        _, kind, name, _, count, view = key
        if view is not None:
            raise ValueError(f"{path} shares a storage in a way that torch no longer writes")
        wanted[name] = (kind, count)
        blank = torch.empty(count, dtype=_DTYPES[kind])
        views.append((blank, name, kind))
        return blank

    with path.open("rb") as stream:
        if _run(stream, load) != _LEGACY_MAGIC:
            raise ValueError(f"{path} is not a file that torch.save wrote")
        _run(stream, load)
        _run(stream, load)
        state = _run(stream, load)
        for name in _run(stream, load):
            kind, count = wanted[name]
            (stored,) = struct.unpack("<q", stream.read(8))
            if stored != count:
                raise ValueError(f"{path}: storage {name} has {stored} numbers and should have {count}")
            filled = _tensor(stream.read(count * _DTYPES[kind].itemsize), kind, count)
            for blank, same, _ in views:
                if same == name:
                    blank.copy_(filled)
    return state


def _tensor(data: bytes, kind: str, count: int) -> Tensor:
    if count == 0:
        return torch.empty(0, dtype=_DTYPES[kind])
    return torch.frombuffer(bytearray(data), dtype=_DTYPES[kind], count=count)


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    if name == "collections OrderedDict" and not arguments:
        return {}
    if name == "torch._utils _rebuild_tensor_v2":
        storage, offset, size, stride = arguments[:4]
        return torch.as_strided(storage, size, stride, offset)
    raise ValueError(f"the file asks for {name}{arguments!r}; a state dict holds tensors and nothing else")


def _run(stream: IO[bytes], load: _Load) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        at = max(i for i, item in enumerate(stack) if item is _MARK)
        items = stack[at + 1 :]
        del stack[at:]
        return items

    for opcode, value, _ in pickletools.genops(stream):
        name = opcode.name
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack.pop()
        if name in ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "GLOBAL"):
            stack.append(value)
        elif name in ("NEWTRUE", "NEWFALSE", "NONE"):
            stack.append({"NEWTRUE": True, "NEWFALSE": False, "NONE": None}[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[int(value or 0)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[int(value or 0)])
        elif name == "BINPERSID":
            stack.append(load(stack.pop()))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_call(stack.pop(), arguments))
        elif name == "BUILD":
            stack.pop()  # the metadata of a state dict
        elif name == "SETITEM":
            item = stack.pop()
            key = stack.pop()
            stack[-1][key] = item
        elif name == "SETITEMS":
            items = since_mark()
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "APPENDS":
            items = since_mark()
            stack[-1].extend(items)
        else:
            raise ValueError(f"the file holds the instruction {name}; a state dict has no need of it")
    raise ValueError("the file ends early")
