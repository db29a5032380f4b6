"""Videos and images in files, whatever they are called: the one place where a file of either is opened.

FFmpeg and OpenCV are never given a name. To FFmpeg `concat:a|b` and `http:clip.avi` are protocols that read other files
or ask other hosts, and OpenCV ends the process over a name that is not UTF-8; they are given what is opened here.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.errors import SourceError, UnreadableImage
from stream.redact import redact_url

if TYPE_CHECKING:
    from stream.sources.video import VideoReader

log = logging.getLogger(__name__)

Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3), BGR."""

SIDE_MAX = 65535
"""Pixels of a side: a packet says the size of the picture in 16 bits a side."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})

# What people take for pictures, but nobody reads from a folder. Other files beside images, labels for one, are normal.
_OTHER_IMAGES = frozenset(
    {".tif", ".tiff", ".gif", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".jfif", ".dng"}
)
_VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".ts", ".mts", ".mpg", ".mpeg", ".wmv"})


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What lies in a folder of images, seems to belong there, and is not read."""

    path: Path
    reason: str


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def image_paths(folder: Path) -> list[Path]:
    """A folder's images in the order of their names; there may be none.

    Raises SourceError where the folder cannot be read.
    """
    return [found for found in list_images(folder) if isinstance(found, Path)]


def list_images(folder: Path) -> list[Path | LeftOut]:
    """A folder's images in the order of their names, and what is left out.

    Raises SourceError where the folder cannot be read.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(
            f"the folder {shown(folder)} cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    found: list[Path | LeftOut] = []
    for entry in entries:
        path = Path(folder, entry.name)
        reason = _why_left_out(entry)
        if reason is not None:
            found.append(LeftOut(path, reason))
        elif is_image(path):
            found.append(path)
    return found


def _why_left_out(entry: os.DirEntry[str]) -> str | None:
    """Why something that its name puts among the images is not read; None if it is read, or does not belong there."""
    suffix = Path(entry.name).suffix.lower()
    if suffix in _VIDEOS:
        return "a video among images is not read; give it as a source by itself"
    if suffix in _OTHER_IMAGES:
        return f"images of this kind are not read; convert it to one of {', '.join(sorted(IMAGE_SUFFIXES))}"
    if suffix not in IMAGE_SUFFIXES:
        return None
    if entry.name.startswith("._"):
        return "it is what macOS keeps about another file, and no image"
    try:
        return None if entry.is_file() else "it is no file"
    except OSError as error:
        return error.strerror or str(error)


def read_image(path: Path) -> Image:
    """An image, turned upright where it says how it was held. Raises UnreadableImage."""
    try:
        with os.fdopen(_open_file(path), "rb") as file:
            data = np.frombuffer(file.read(), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except OSError as error:
        raise UnreadableImage(shown(path), error.strerror or str(error)) from error
    except cv2.error:  # of an empty file
        image = None
    if image is None:
        raise UnreadableImage(shown(path), "OpenCV cannot decode it")
    height, width = image.shape[:2]
    if max(height, width) > SIDE_MAX:
        raise UnreadableImage(
            shown(path),
            f"it is {width} x {height} pixels, and {SIDE_MAX} a side are the most; make it smaller",
        )
    return np.asarray(image, np.uint8)


def open_video(path: Path) -> VideoReader:
    """A video file, before its first frame. Raises SourceError, also where no frame can be decoded."""
    reader = _open_video(path)
    if reader.peek() is None:
        reader.close()
        reason = reader.broken_off or "it has none"
        raise SourceError(f"no picture of {shown(path)} can be decoded ({reason}); check that it is whole")
    return reader


def _open_video(path: Path) -> VideoReader:
    # 20 MB and its libraries, which who reads pictures alone does without.
    import av

    from stream.sources.video import NoVideo, VideoReader

    try:
        descriptor = _open_file(path)
    except FileNotFoundError:
        raise SourceError(f"there is no file {shown(path)}; check the path") from None
    except OSError as error:
        raise SourceError(f"{shown(path)} cannot be read ({error.strerror}); check the path") from error
    try:
        with av.logging.Capture():
            # What lies in the file may name others, a playlist for one, but has no protocol to reach them.
            container = av.open("fd:", options={"fd": str(descriptor), "protocol_whitelist": "fd"})
        return VideoReader(container)
    except NoVideo as error:
        raise SourceError(f"{shown(path)} cannot be played: {error}; convert it to H.264") from None
    except av.error.FFmpegError as error:
        raise SourceError(
            f"{shown(path)} is not a video that can be read; convert it, or check that it is whole"
        ) from error
    finally:
        os.close(descriptor)  # FFmpeg has its own


def read_video(path: Path, every: int = 1) -> Iterator[Image]:
    """Every n-th frame of a video file, from its first; warns of damage. Raises SourceError before the first."""
    with open_video(path) as reader:
        try:
            while (frame := reader.read()) is not None:
                yield np.ascontiguousarray(reader.image(frame))
                for _ in range(every - 1):
                    reader.read()
        finally:
            if reader.damaged:
                log.warning(
                    "%s is damaged in %d places: pictures are missing or wrong", shown(path), reader.damaged
                )


def shown(path: Path | str) -> str:
    """A path as people are shown it: without a password, for it may be a URL with a slash too few, and in UTF-8."""
    return redact_url(str(path)).encode(errors="backslashreplace").decode()


def _open_file(path: Path) -> int:
    """A descriptor of a file. Raises OSError, also for a pipe, which might wait for ever, and for a device."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no file")
    return descriptor
