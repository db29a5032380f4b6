"""Whether this machine has the memory that a detector may take (`--max-memory`)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from services.doctor.finding import Finding, doubtful, fine, unchecked

MIB = 2**20
_KIB = 1024


def look_at_memory(wanted_mib: int, root: Path = Path("/")) -> Finding:
    """Whether so many MiB are there that no other program uses. Touches /proc and /sys: for a thread."""
    sizes = [size for size in (_available(root), _left_to_container(root)) if size is not None]
    if not sizes:
        return unchecked("this system does not tell how much memory is free")
    free_mib = min(sizes) // MIB
    measured = f"{free_mib} MiB are free, the detector may take {wanted_mib}"
    facts = {"free_mib": free_mib, "wanted_mib": wanted_mib}
    if free_mib < wanted_mib:
        advice = (
            f"--max-memory {free_mib}, or as little as your cameras need (docs/operations.md), or more memory"
        )
        return doubtful(f"{measured}: the system may end it", advice, **facts)
    return fine(measured, **facts)


def _available(root: Path) -> int | None:
    """Bytes that programs can have without swapping: proc(5), /proc/meminfo."""
    with suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * _KIB
    return None


def _left_to_container(root: Path) -> int | None:
    """Bytes that are left to this container, if it has a limit: the kernel's cgroup-v2.rst."""
    folder = root / "sys/fs/cgroup"
    with suppress(OSError, ValueError):  # ValueError: "max", which is no limit
        limit = int((folder / "memory.max").read_text())
        return max(0, limit - int((folder / "memory.current").read_text()))
    return None
