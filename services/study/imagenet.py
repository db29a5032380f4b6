"""Labelled pictures as ImageNet has them: a folder that holds one folder for each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.errors import SourceError
from stream.sources.recorded import IMAGE_SUFFIXES


@dataclass(frozen=True, slots=True)
class ImageNet:
    """Pictures of a folder and the class of each, read anew for every iteration."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]  # the network's class of each file

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], int]]:
        """Each picture uint8 (H, W, 3), BGR, and its class. Raises SourceError."""
        for file, label in zip(self.files, self.labels, strict=True):
            image = cv2.imread(str(file))
            if image is None:
                raise SourceError(f"{file} is no image that OpenCV can read; take it out of the folder")
            yield np.asarray(image, np.uint8), label


def read_imagenet(folder: Path, classes: Sequence[str], max_images: int | None = None) -> ImageNet:
    """The pictures in the folders of a folder, one from each before the second of any.

    A folder is named by its class's number from 0, or by its name in `classes`. Folders by ImageNet's own names, such
    as n01440764, must all be there: their order gives the numbers. Raises SourceError.
    """
    folders = sorted(path for path in folder.glob("*") if path.is_dir())
    if not folders:
        raise SourceError(
            f"there are no folders in {folder}; it should hold one folder of images for each class"
        )
    numbers = _numbers([path.name for path in folders], classes, folder)
    by_class = [
        [(file, number) for file in sorted(path.glob("*")) if file.suffix.lower() in IMAGE_SUFFIXES]
        for path, number in zip(folders, numbers, strict=True)
    ]
    spread = chain.from_iterable(zip_longest(*by_class))
    pairs = [pair for pair in spread if pair is not None][:max_images]
    if not pairs:
        raise SourceError(f"there are no images in the folders of {folder}")
    files, labels = zip(*pairs, strict=True)
    return ImageNet(files, labels)


def _numbers(names: Sequence[str], classes: Sequence[str], folder: Path) -> list[int]:
    """The class that each of the folders stands for, sorted by their names."""
    by_name = {name: number for number, name in enumerate(classes)}
    by_number = {str(number): number for number in range(len(classes))}
    for known in (by_number, by_name):
        if all(name in known for name in names):
            return [known[name] for name in names]
    if all(name[:1] == "n" and name[1:].isdigit() for name in names):
        if len(names) == len(classes):
            return list(range(len(classes)))
        raise SourceError(
            f"{folder} holds {len(names)} of ImageNet's {len(classes)} classes, so that n01440764 and the like do not "
            "tell their numbers: name the folders by number, 0 for n01440764"
        )
    strange = next(name for name in names if name not in by_number and name not in by_name)
    raise SourceError(
        f"{folder} holds a folder {strange[:80]!r}, which is neither number nor name of a class"
    )
