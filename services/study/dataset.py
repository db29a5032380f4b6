"""Pictures that a study measures on, with a name that changes when they do."""

from __future__ import annotations

import hashlib
import io
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.evaluation.dataset import Dataset, read_clip, read_images
from services.study.imagenet import read_imagenet
from stream.sources.recorded import IMAGE_SUFFIXES


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Pictures, read anew for every iteration: of a folder or clip, or of one folder for each class."""

    name: str  # with the number of pictures and a digest of the files: "val2017 64 1f0c9a3b77de"
    files: tuple[Path, ...]
    dataset: Dataset | None = None
    labelled: Iterable[tuple[NDArray[np.uint8], int]] | None = None  # pictures and classes

    def pictures(self) -> Iterator[tuple[NDArray[np.uint8], int | None]]:
        """Each picture uint8 (H, W, 3), BGR, and its class if somebody tells. Raises SourceError."""
        if self.dataset is not None:
            yield from ((picture.image, None) for picture in self.dataset.pictures)
        else:
            yield from self.labelled or ()

    def jpeg_bytes(self) -> float:
        """Mean size of the pictures as JPEG: of the files where they are, else of what Pillow makes at quality 95."""
        jpegs = [file.stat().st_size for file in self.files if file.suffix.lower() in (".jpg", ".jpeg")]
        if len(jpegs) == len(self.files):
            return statistics.fmean(jpegs)
        return statistics.fmean(_jpeg_bytes(image) for image, _ in self.pictures())


def _jpeg_bytes(image: NDArray[np.uint8]) -> int:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image[..., ::-1])).save(file, "JPEG", quality=95)
    return file.tell()


def images(folder: Path, most: int | None = None, labels: Path | None = None) -> Source:
    """The first images of a folder, with labels of objects if there are any. Raises SourceError."""
    dataset = read_images(folder, max_frames=most, labels=labels)
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    chosen = tuple(files[: dataset.expected])
    return Source(_named(dataset.name, [*chosen, *([labels] if labels else [])]), chosen, dataset)


def clip(file: Path, most: int | None = None, every: int = 1) -> Source:
    """The first frames of a video, or every n-th of them. Raises SourceError."""
    dataset = read_clip(file, every=every, max_frames=most)
    sampling = f"{dataset.expected}{f' every {every}' if every > 1 else ''}"
    return Source(f"{_named(dataset.name, [file])} {sampling}", (file,), dataset)


def imagenet(folder: Path, classes: Sequence[str], most: int | None = None) -> Source:
    """Images of a folder that holds one folder a class, for a network with these classes. Raises SourceError."""
    found = read_imagenet(folder, classes, max_images=most)
    return Source(_named(folder.absolute().name, found.files), tuple(found.files), labelled=found)


def _named(name: str, files: Sequence[Path]) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "blake2b").digest())
    return f"{name} {len(files)} {digest.hexdigest()}"
