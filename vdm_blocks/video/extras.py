"""The optional packages of this room, imported where they are used."""

from __future__ import annotations

from typing import Any


def import_av() -> Any:
    """PyAV, or an ImportError that says how to get it."""
    try:
        import av
    except ImportError as error:
        raise ImportError("reading and writing films needs PyAV: pip install 'vdm-blocks[video]'") from error
    return av


def import_pillow() -> Any:
    """Pillow's `Image` module, or an ImportError that says how to get Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("pictures need Pillow: pip install 'vdm-blocks[video]'") from error
    return Image
