"""Memory that is kept rather than handed back: on Linux, large tensors then cost no page faults."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_memory() -> bool:
    """Asks glibc to serve large blocks from its heap and not to trim it; says whether it will.

    Tensors over 32 MB are otherwise mapped anew each time, and their pages faulted in: a step of the last stage
    takes 1.5 times as long. It holds for the whole process, so a script may choose it and a library may not.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
