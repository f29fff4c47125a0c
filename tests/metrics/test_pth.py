"""Reading state dicts without unpickling; the files are written here instruction by instruction."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest
import torch

from vdm_blocks.metrics.pth import read_pth

NUMBERS = torch.arange(6, dtype=torch.float32)
RAW = struct.pack("<6f", *range(6))


def word(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def state(view: bytes = b"") -> bytes:
    """{"x": rows of 3 of storage "0", "y": its last two}; `view` is the sixth entry of the older format."""
    storage = (
        b"(" + word("storage") + b"ctorch\nFloatStorage\n" + word("0") + word("cpu") + b"K\x06" + view + b"tQ"
    )
    ordered = b"ccollections\nOrderedDict\n)R"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n("
    x = rebuild + storage + b"K\x00" + b"K\x02K\x03\x86" + b"K\x03K\x01\x86" + b"\x89" + ordered + b"tR"
    y = rebuild + storage + b"K\x04" + b"K\x02\x85" + b"K\x01\x85" + b"\x89" + ordered + b"tR"
    return b"\x80\x02}q\x00(" + word("x") + x + word("y") + y + b"u."


def archive(path: Path, program: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", program)
        file.writestr("archive/data/0", RAW)
    return path


def legacy(path: Path, *, count: int = 6) -> Path:
    magic = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
    keys = b"\x80\x02](" + word("0") + b"e."
    parts = magic + b"\x80\x02M\xe9\x03." + b"\x80\x02}." + state(b"N") + keys
    path.write_bytes(parts + struct.pack("<q", count) + RAW)
    return path


def test_both_formats_give_the_tensors(tmp_path: Path) -> None:
    for path in (archive(tmp_path / "new.pth", state()), legacy(tmp_path / "old.pth")):
        found = read_pth(path)
        assert list(found) == ["x", "y"]
        assert torch.equal(found["x"], NUMBERS.view(2, 3))
        assert torch.equal(found["y"], NUMBERS[4:])


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02cos\nsystem\n" + word("true") + b"\x85R.",
        b"\x80\x02cbuiltins\neval\n" + word("1") + b"\x85R.",
        b"\x80\x02(cos\nsystem\n" + word("true") + b"o.",
        b"\x80\x02(" + word("true") + b"ios\nsystem\n.",
        b"\x80\x04" + word("os") + word("system") + b"\x93.",
        b"\x80\x02cos\nPathLike\n)\x81.",
    ],
)
def test_nothing_else_is_called(tmp_path: Path, program: bytes) -> None:
    with pytest.raises(ValueError, match=r"asks for|holds the instruction"):
        read_pth(archive(tmp_path / "bad.pth", program))


def test_other_content_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="something else"):
        read_pth(archive(tmp_path / "number.pth", b"\x80\x02K\x07."))
    with pytest.raises(ValueError, match="has 5 numbers and should have 6"):
        read_pth(legacy(tmp_path / "short.pth", count=5))
    with pytest.raises(ValueError, match="does not exist"):
        read_pth(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match=r"torch\.save|instruction|pickle"):
        read_pth(tmp_path / "text.pth")
    with pytest.raises(ValueError, match=r"is not a file that torch\.save wrote: AttributeError"):
        read_pth(archive(tmp_path / "list.pth", b"\x80\x02](" + word("a") + word("b") + b"u."))
    damaged = archive(tmp_path / "damaged.pth", state())
    damaged.write_bytes(damaged.read_bytes().replace(RAW, RAW[::-1]))
    with pytest.raises(ValueError, match=r"is not a file that torch\.save wrote: BadZipFile"):
        read_pth(damaged)
