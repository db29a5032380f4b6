"""How this package compiles its loops: when it is imported, to run without the interpreter's lock, cached on disk.

Numba's cache only sees a change in the file that a kernel is written in: kernels that call one another share a file.
A loop whose range is a constant is unrolled and then not turned into vector instructions; kernels therefore take the
range of a short loop from an array's shape.

Kernels do not count references: an array passed to an inlined function costs two atomic operations otherwise, which
was two fifths of the time of `put_levels`. So they allocate nothing, and their callers lend them room to work in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., object])


def kernel(signature: object, **options: bool) -> Callable[[Kernel], Kernel]:
    """A function for Python, compiled for one signature."""
    compiler: Callable[[Kernel], Kernel] = numba.njit(
        signature, nogil=True, cache=True, _nrt=False, **options
    )
    return compiler


def inlined(function: Kernel) -> Kernel:
    """A function for kernels of the same file, whose code becomes part of theirs."""
    compiler: Callable[[Kernel], Kernel] = numba.njit(nogil=True, cache=True, forceinline=True, _nrt=False)
    return compiler(function)
