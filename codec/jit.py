"""How this package compiles its loops: when it is imported, to run without the interpreter's lock, cached on disk.

Numba's cache looks at the file that a kernel is written in, and not at the functions and constants of other files that
are compiled into it. This package's cache looks at all of its sources, so that no kernel outlives a change of any, in
a cache that is older than the package: a container's volume, a folder of NUMBA_CACHE_DIR.

A loop whose range is a constant is unrolled and then not turned into vector instructions; kernels therefore take the
range of a short loop from an array's shape.

Kernels do not count references: an array passed to an inlined function costs two atomic operations otherwise, which
was two fifths of the time of the feature codec's `encode_levels`. So they allocate nothing, and their callers lend
them a workspace.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeAlias, TypeVar

import numba
import numpy as np
from numba.core.caching import FunctionCache
from numpy.typing import NDArray

Kernel = TypeVar("Kernel", bound=Callable[..., object])

Int: TypeAlias = int | np.int32 | np.int64  # the same to a kernel
Ints: TypeAlias = NDArray[np.int32]
Bytes: TypeAlias = NDArray[np.uint8]

_PACKAGE = Path(__file__).parent


def kernel(signature: object, **options: bool) -> Callable[[Kernel], Kernel]:
    """A function for Python, compiled for one signature."""

    def compiled(function: Kernel) -> Kernel:
        dispatcher = numba.njit(nogil=True, _nrt=False, **options)(function)
        dispatcher._cache = _PackageCache(function)
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher  # type: ignore[no-any-return]

    return compiled


def inlined(function: Kernel) -> Kernel:
    """A function for kernels, whose code becomes part of theirs, and is cached with it."""
    compiler: Callable[[Kernel], Kernel] = numba.njit(nogil=True, forceinline=True, _nrt=False)
    return compiler(function)


class _PackageCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache, in the folder that numba chooses, of kernels compiled from the sources as they are now."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__(function)
        self._stamp = _sources_stamp()
        file, base = self._cache_file, self._impl.filename_base
        # Numba compares the version before it reads on, where an index of other sources may name what is no more.
        file._version = f"{numba.__version__} {self._stamp}"
        # Names of their own, as another process may find an index that was just replaced beside code that was not yet.
        file._data_name_pattern = f"{base}.{self._stamp[:16]}.{{number:d}}.nbc"

    def save_overload(self, sig: object, data: object) -> None:
        super().save_overload(sig, data)
        folder = Path(self._cache_path)
        for path in folder.glob(f"{glob.escape(self._impl.filename_base)}.*.nbc"):
            if self._stamp[:16] not in path.name:
                path.unlink(missing_ok=True)


@cache
def _sources_stamp() -> str:
    """SHA-256 of every source file of this package, by name and content, in hexadecimal digits."""
    stamp = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        content = path.read_bytes()
        stamp.update(f"{path.relative_to(_PACKAGE).as_posix()} {len(content)}\n".encode())
        stamp.update(content)
    return stamp.hexdigest()
