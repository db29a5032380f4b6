"""How this package compiles its loops: when it is imported, to run without the interpreter's lock, cached on disk.

Numba's cache looks at the file that a kernel is written in, and not at the functions and constants of other files that
are compiled into it. This package's cache looks at all of its sources, so that no kernel outlives a change of any, in
a cache that is older than the package: a container's volume, a folder of NUMBA_CACHE_DIR. Where nothing can be kept,
or what was kept is damaged, kernels are compiled at each start, and a warning says so.

A loop whose range is a constant is unrolled and then not turned into vector instructions; kernels therefore take the
range of a short loop from an array's shape.

Kernels do not count references: an array passed to an inlined function costs two atomic operations otherwise, which
was two fifths of the time of the feature codec's `encode_levels`. So they allocate nothing, and their callers lend
them a workspace.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numba
import numpy as np
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Kernel = TypeVar("Kernel", bound=Callable[..., object])

Int: TypeAlias = int | np.int32 | np.int64  # the same to a kernel
Ints: TypeAlias = NDArray[np.int32]
Bytes: TypeAlias = NDArray[np.uint8]

_PACKAGE = Path(__file__).parent
_UserProvidedLocator: Any = CompileResultCacheImpl._locator_classes[0]  # its name differs by numba's version


def kernel(signature: object, **options: bool | str) -> Callable[[Kernel], Kernel]:
    """A function for Python, compiled for one signature."""

    def compiled(function: Kernel) -> Kernel:
        dispatcher = numba.njit(nogil=True, _nrt=False, **options)(function)
        try:
            dispatcher._cache = _PackageCache(function)
        except (RuntimeError, OSError):  # numba's, where it finds no folder
            _warn("no folder for it can be written to")
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher  # type: ignore[no-any-return]

    return compiled


def inlined(function: Kernel) -> Kernel:
    """A function for kernels, whose code becomes part of theirs, and is cached with it."""
    compiler: Callable[[Kernel], Kernel] = numba.njit(nogil=True, forceinline=True, _nrt=False)
    return compiler(function)


class _ReadOnlyLocator(_UserProvidedLocator):  # type: ignore[misc]
    """NUMBA_CACHE_DIR where it cannot be written to, as in an image, but holds kernels of the sources as they are now.

    Numba itself takes only a folder that it can write to, and would compile into another one.
    """

    def ensure_cache_path(self) -> None:
        """Raises OSError where numba's own choice is the better one; numba asks that, and goes on to the next."""
        folder = Path(self.get_cache_path())
        if os.access(folder, os.W_OK):
            raise OSError(errno.EEXIST, "it can be written to")
        if not any(folder.glob(f"*.{_sources_stamp()[:16]}.*.nbc")):
            raise OSError(errno.ENOENT, "it holds no kernels of these sources")


class _PackageCacheImpl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_ReadOnlyLocator, *CompileResultCacheImpl._locator_classes)


class _PackageCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache, in the folder that numba chooses, of kernels compiled from the sources as they are now."""

    _impl_class = _PackageCacheImpl

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__(function)
        self._stamp = _sources_stamp()
        file, base = self._cache_file, self._impl.filename_base
        # Numba compares the version before it reads on, where an index of other sources may name what is no more.
        file._version = f"{numba.__version__} {self._stamp}"
        # Names of their own, as another process may find an index that was just replaced beside code that was not yet.
        file._data_name_pattern = f"{base}.{self._stamp[:16]}.{{number:d}}.nbc"

    def load_overload(self, sig: object, target_context: object) -> object:
        """The kernel, or None, from which numba takes that it is to be compiled."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # of a file that was cut short there are many
            _warn(f"what it held could not be read: {_reason(error)}")
        with suppress(OSError):
            self.flush()
        return None

    def save_overload(self, sig: object, data: object) -> None:
        try:
            super().save_overload(sig, data)
            self._forget_others()
        except Exception as error:  # of a full disk, and of what could not be read either
            _warn(f"it could not be written: {_reason(error)}")

    def _forget_others(self) -> None:
        folder = Path(self._cache_path)
        for path in folder.glob(f"{glob.escape(self._impl.filename_base)}.*.nbc"):
            if self._stamp[:16] not in path.name:
                path.unlink(missing_ok=True)


class KernelFolders(NamedTuple):
    """Where compiled kernels are kept: in a folder for each one of sources."""

    common: Path  # all lie in it, at some depth
    one: Path  # one of them, which may not be there yet
    held: int  # kernels in them of the sources as they are now


def kernel_folders() -> KernelFolders | None:
    """Where compiled kernels are kept; None where no folder can be written to."""
    try:
        one = Path(_PackageCache(kernel_folders)._cache_path)
    except (RuntimeError, OSError):  # numba's, where it finds none
        return None
    common = _PACKAGE if one.is_relative_to(_PACKAGE) else one.parent
    return KernelFolders(common, one, sum(1 for _ in common.rglob(f"*.{_sources_stamp()[:16]}.*.nbc")))


def _reason(error: Exception) -> str:
    """What happened, without the file's name, which is another for each kernel."""
    return (isinstance(error, OSError) and error.strerror) or f"{type(error).__name__}: {error}"


@cache  # once a reason, and not once a kernel
def _warn(reason: str) -> None:
    log.warning(
        "no cache of compiled kernels: %s; they are compiled at each start, for a minute or so; "
        "set NUMBA_CACHE_DIR to a folder that can be written to",
        reason,
    )


@cache
def _sources_stamp() -> str:
    """SHA-256 of every source file of this package, by name and content, in hexadecimal digits."""
    stamp = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        content = path.read_bytes()
        stamp.update(f"{path.relative_to(_PACKAGE).as_posix()} {len(content)}\n".encode())
        stamp.update(content)
    return stamp.hexdigest()
