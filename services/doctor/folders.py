"""Folders that a service keeps files in: they can be written to, and have room."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from services.doctor.finding import Finding, doubtful, fine, wrong

MIB = 2**20
WEIGHTS_MIB = 512  # yolov5x6 has 270, and is written beside what was there
KERNELS_MIB = 64  # all kernels take some 10
SESSION_MIB = 1
_PROBE_BYTES = 64 * 1024


def look_at_folder(folder: Path, room_mib: int, advice: str, *, needed: bool) -> Finding:
    """Whether a folder, or the one that it would be made in, takes files. Touches it: for a thread.

    `advice` says how to choose another one; without one that is `needed` the service does not start.
    """
    there = nearest(folder)
    shown = f"{folder}" if there == folder else f"{folder}, which is not there yet,"
    try:
        free_mib = shutil.disk_usage(there).free // MIB
        _write_to(there)
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "is on a full disk" if is_full else f"cannot be written to: {error.strerror}"
        return (wrong if needed else doubtful)(f"{shown} {why}", advice, folder=str(folder))
    facts = {"folder": str(folder), "free_mib": free_mib}
    if free_mib < room_mib:
        measured = f"{shown} has {free_mib} MiB free, and may need {room_mib}"
        return doubtful(measured, f"make room, or {advice}", **facts)
    return fine(f"{shown} can be written to, {_size(free_mib)} free", **facts)


def nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next((place for place in (folder, *folder.parents) if _is_there(place)), Path("/"))


def look_at_weights_cache(weights: Path) -> Finding:
    """Where weights that are fetched are kept: those that are there already need no room."""
    if weights.is_file():
        return fine(f"{weights.parent} holds the weights already", folder=str(weights.parent))
    return look_at_folder(weights.parent, WEIGHTS_MIB, "name another folder with --cache", needed=True)


def look_at_sessions(folder: Callable[[], Path]) -> Finding:
    """Where a camera keeps by what the detector knows it again; without it a restart may have to wait."""
    advice = "set XDG_STATE_HOME to a folder that can be written to"
    try:
        return look_at_folder(folder() / "splitcast", SESSION_MIB, advice, needed=False)
    except RuntimeError as error:  # there is no home
        return doubtful(str(error), advice)


def look_at_kernels() -> Finding:
    """Where compiled kernels are kept: those that are there, or room for them. Loads numba, which takes seconds."""
    from codec.jit import kernel_folders

    folders = kernel_folders()
    advice = "set NUMBA_CACHE_DIR to a folder that can be written to, or each start compiles for a minute"
    if folders is None:
        return doubtful("no folder for them can be written to", advice)
    if folders.held:
        measured = f"{folders.common} holds {folders.held}, compiled from these sources"
        return fine(measured, folder=str(folders.common), held=folders.held)
    finding = look_at_folder(folders.one, KERNELS_MIB, advice, needed=False)
    if finding.level != "ok":
        return finding
    return fine(f"{finding.measured}; none yet: the first start takes a minute longer", **finding.facts)


def _write_to(folder: Path) -> None:
    """Write a file and remove it. Raises OSError, also where a disk is full."""
    with NamedTemporaryFile(prefix=".splitcast-doctor.", dir=folder) as probe:
        probe.write(os.urandom(_PROBE_BYTES))  # which no file system packs
        probe.flush()
        os.fsync(probe.fileno())


def _is_there(folder: Path) -> bool:
    with suppress(OSError):
        return folder.is_dir()
    return False


def _size(mib: int) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 10 * 1024 else f"{mib} MiB"
