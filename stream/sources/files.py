"""Videos and images in files, whatever they are called: the one place where OpenCV is given a path.

OpenCV hands a video's name to FFmpeg, to which `concat:a|b` and `http:clip.avi` are protocols that read other files
or ask other hosts; an absolute path is none. And a name that is not UTF-8 ends the process: OpenCV dies by a signal
of what Python makes of such a name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.errors import SourceError, UnreadableImage
from stream.redact import redact_url

Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3), BGR."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def image_paths(folder: Path) -> list[Path]:
    """A folder's images in the order of their names; there may be none.

    Raises SourceError where the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if is_image(path))
    except OSError as error:
        raise SourceError(
            f"the folder {shown(folder)} cannot be read ({error.strerror}); check the path and its permissions"
        ) from error


def read_image(path: Path) -> Image:
    """An image, turned upright where it says how it was held. Raises UnreadableImage."""
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except OSError as error:
        raise UnreadableImage(shown(path), error.strerror or str(error)) from error
    except cv2.error:  # of an empty file
        image = None
    if image is None:
        raise UnreadableImage(shown(path), "OpenCV cannot decode it")
    return np.asarray(image, np.uint8)


def open_video(path: Path) -> cv2.VideoCapture:
    """A video file, open at its first frame. Raises SourceError."""
    name = str(path.absolute())
    try:
        name.encode()
    except UnicodeEncodeError:
        raise SourceError(f"the name of {shown(path)} is not UTF-8; rename the file") from None
    if not path.exists():  # asked here, as OpenCV would warn on standard error
        raise SourceError(f"there is no file {shown(path)}; check the path")
    # One thread: the machine's cores belong to the model.
    capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        raise SourceError(
            f"{shown(path)} is not a video that can be read; convert it, or check that it is whole"
        )
    return capture


def read_video(path: Path, every: int = 1) -> Iterator[Image]:
    """Every n-th frame of a video file, from its first. Raises SourceError before the first."""
    capture = open_video(path)
    try:
        while True:
            decoded, image = capture.read()
            if not decoded:
                return
            yield np.asarray(image, np.uint8)
            for _ in range(every - 1):
                capture.grab()
    finally:
        capture.release()


def shown(path: Path) -> str:
    """A path as people are shown it: without a password, for it may be a URL with a slash too few, and in UTF-8."""
    return redact_url(str(path)).encode(errors="backslashreplace").decode()
