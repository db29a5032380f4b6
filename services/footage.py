"""Pictures to evaluate on: a folder of images with its labels, or a clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.detections import Detections
from stream.recorded_source import IMAGE_SUFFIXES
from stream.source import SourceError


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture and, where it is known, what there is to see."""

    image: NDArray[np.uint8]  # (H, W, 3), BGR
    labels: Detections | None


@dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """Pictures to evaluate on, read while they are iterated over, once."""

    kind: Literal["data", "clip"]  # separate images, or the consecutive frames of a clip
    name: str
    expected: int  # number of pictures, for the progress bar: a clip's container may be wrong, 0 is unknown
    pictures: Iterator[Picture]


def read_images(folder: Path, every: int = 1, max_frames: int | None = None) -> Footage:
    """Every n-th image of a folder in the order of names, with its YOLO labels if there are any.

    Labels lie where ultralytics looks for them, in the folder whose path has `labels` for the last `images`. If
    there are some, an image without has no objects. Raises SourceError here or while reading.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise SourceError(f"there are no images in {folder}; give a folder that holds some")
    paths = paths[::every][:max_frames]
    labels = _label_folder(folder)

    def read() -> Iterator[Picture]:
        for path in paths:
            image = cv2.imread(str(path))
            if image is None:
                raise SourceError(f"{path} is no image that OpenCV can read; take it out of the folder")
            height, width = image.shape[:2]
            yield Picture(image, _read_labels(labels / f"{path.stem}.txt", height, width) if labels else None)

    return Footage("data", folder.absolute().name, len(paths), read())


def _label_folder(images: Path) -> Path | None:
    parts = list(images.absolute().parts)
    if "images" not in parts:
        return None
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    labels = Path(*parts)
    return labels if any(labels.glob("*.txt")) else None


def _read_labels(path: Path, height: int, width: int) -> Detections:
    """The objects of one picture: rows of class, centre x, centre y, width, height in shares of the picture."""
    text = path.read_text(errors="replace") if path.exists() else ""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    try:
        values = np.array(rows, np.float32).reshape(len(rows), 5)
    except ValueError:
        raise SourceError(f"{path} does not hold rows of class, centre x, centre y, width, height") from None
    centre, extent = values[:, 1:3], values[:, 3:5]
    corners = np.hstack((centre - extent / 2, centre + extent / 2)) * ([width, height] * 2)
    return Detections(
        corners.astype(np.float32), np.ones(len(rows), np.float32), values[:, 0].astype(np.int64)
    )


def read_clip(path: Path, every: int = 1, max_frames: int | None = None) -> Footage:
    """Every n-th frame of a video file from its first. Raises SourceError."""
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise SourceError(f"cannot read {path}; give a video file")
    expected = -(-max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) // every)

    def read() -> Iterator[Picture]:
        try:
            while True:
                good, image = capture.read()
                if not good:
                    return
                yield Picture(image, labels=None)
                for _ in range(every - 1):
                    capture.grab()
        finally:
            capture.release()

    frames = expected if max_frames is None else min(expected, max_frames)
    return Footage("clip", path.name, frames, islice(read(), max_frames))
