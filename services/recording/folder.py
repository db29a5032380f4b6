"""The files of recordings in a folder: STREAM.NUMBER.spr, one number after the other."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".spr"
_NAME = re.compile(r"(?P<stream>[A-Za-z0-9][A-Za-z0-9._-]{0,63})\.(?P<number>[0-9]{8,18})\.spr")


@dataclass(frozen=True, slots=True, order=True)
class SegmentFile:
    """One file of a stream's recording."""

    stream: str
    number: int
    size: int  # bytes, when it was looked at
    path: Path

    @classmethod
    def named(cls, folder: Path, stream: str, number: int) -> SegmentFile:
        """A file to be."""
        return cls(stream, number, 0, folder / f"{stream}.{number:08d}{SUFFIX}")


def segment_files(folder: Path, stream: str | None = None) -> list[SegmentFile]:
    """Files of all streams, or of one, in order: by stream, the oldest first. Links are none. Raises OSError."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = _NAME.fullmatch(entry.name)
            if name is None or stream not in (None, name["stream"]):
                continue
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                found.append(
                    SegmentFile(name["stream"], int(name["number"]), status.st_size, Path(entry.path))
                )
    return sorted(found)


def last_number(folder: Path, stream: str) -> int:
    """The highest number in a name of the stream, be it a link's or a pipe's; 0: none. Raises OSError."""
    names = [_NAME.fullmatch(path.name) for path in folder.iterdir()]
    return max((int(name["number"]) for name in names if name and name["stream"] == stream), default=0)
