"""What a program of ours settles for its process before any library reads it."""

from __future__ import annotations

import ctypes
import gc
import io
import mmap
import os
import resource
import sys

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_COMPILER = "libllvmlite"  # numba's LLVM

_VARIABLES = {
    # On import ultralytics would look up hosts on the internet.
    "YOLO_OFFLINE": "true",
    # One thread for numpy's matrices, as for torch: on shared cores a second one spins more than it helps.
    "OPENBLAS_NUM_THREADS": "1",
}


def prepare_process() -> None:
    """Set the environment and the allocator of this process. The user's own variables win.

    To be called first in a program: numpy and ultralytics read the environment as they load, for once and all, and
    the allocator has to know before threads allocate. Processes that this one starts inherit the environment.
    """
    _open_standard_streams()
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    _keep_freed_memory()


def _open_standard_streams() -> None:
    """Let those that were closed lead nowhere, and those that cannot show a character escape it.

    Python has None for a closed one, and its descriptor would be that of the next file or connection, which C libraries
    would then write to.
    """
    modes = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))
    for descriptor, name, mode in modes:  # in this order: the system gives the lowest that is free
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115 - as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def resident_bytes() -> int:
    """Memory that this process holds now; on systems without /proc, the most that it ever held."""
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - a file that is none
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def give_memory_back() -> None:
    """Hand the freed memory that glibc kept back to the system, which other systems do themselves. Takes milliseconds.

    What only circles of garbage hold is freed first: a quiet service makes so few objects that Python would come to the
    oldest of them once an hour, and its memory would rise by some megabytes until then.
    """
    gc.collect()
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    malloc_trim(0)


def forget_loading() -> None:
    """Hand back what only loading took, to be called once networks and kernels are loaded. Takes tenths of a second.

    What is left is looked at by no later collection of garbage: a detector's 180,000 objects, most of them of
    libraries, stop every thread for a tenth of a second, and did so whenever many connections had come and gone.
    """
    gc.unfreeze()  # of an earlier call: what was loaded then may be garbage now
    _forget_compiler()
    give_memory_back()
    gc.freeze()


def _forget_compiler() -> None:
    """Let go of the pages of LLVM's code that are in memory, once all kernels are loaded; they come back if it runs.

    They are pages of a file, a fifth of a camera's memory, which the system would take back by itself only once it
    has no other.
    """
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:  # noqa: PTH123 - a file that is none
            lines = [line.split(maxsplit=5) for line in maps]
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return
    for addresses, access, *_, path in (line for line in lines if len(line) == 6):
        # Code alone: a page of data may have been written to, and would be as it was in the file.
        if access == "r-xp" and os.path.basename(path.strip()).startswith(_COMPILER):  # noqa: PTH119
            first, end = (int(address, 16) for address in addresses.split("-"))
            madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), mmap.MADV_DONTNEED)


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors for the next frame; elsewhere nothing happens.

    By default it maps every large tensor anew and hands it back at each free, and the kernel then clears the
    same pages for every layer of every frame: half of the time of a head pass on a busy machine.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_ARENA_MAX, 1)
