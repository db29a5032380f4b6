"""How this process asks the system for memory."""

from __future__ import annotations

import ctypes

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors for the next frame; elsewhere nothing happens.

    By default it maps every large tensor anew and hands it back at each free, and the kernel then clears the
    same pages for every layer of every frame: half of the time of a head pass on a busy machine. To be called
    before threads allocate.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_ARENA_MAX, 1)
