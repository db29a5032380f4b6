"""Pictures that a study measures on, with a name that changes when they do."""

from __future__ import annotations

import hashlib
import io
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.evaluation.dataset import Dataset, read_clip, read_images
from services.evaluation.images import readable_images
from stream.errors import SourceError
from stream.sources.files import list_images, read_image


@dataclass(frozen=True, slots=True, eq=False)
class PictureSet:
    """Pictures, read anew for every iteration: of a folder or clip, or of one folder for each class."""

    name: str  # with the number of files and a digest of them: "val2017 64 1f0c9a3b77de"
    files: tuple[Path, ...]
    dataset: Dataset | None = None  # of a folder or clip
    classes: tuple[int, ...] = ()  # else what each of the files shows, by the network's number
    account: str = ""  # a line for people about images that were left out

    def images(self) -> Iterator[tuple[NDArray[np.uint8], int | None]]:
        """Each picture uint8 (H, W, 3), BGR, and its class if it is known. Raises SourceError."""
        if self.dataset is not None:
            yield from ((picture.image, None) for picture in self.dataset.pictures)
            return
        for file, number in zip(self.files, self.classes, strict=True):
            yield read_image(file), number

    def jpeg_bytes(self) -> float:
        """Mean size of the pictures as JPEG: of the files where they are, else of what Pillow makes at quality 95."""
        jpegs = [file.stat().st_size for file in self.files if file.suffix.lower() in (".jpg", ".jpeg")]
        if len(jpegs) == len(self.files):
            return statistics.fmean(jpegs)
        return statistics.fmean(_jpeg_bytes(image) for image, _ in self.images())


def _jpeg_bytes(image: NDArray[np.uint8]) -> int:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image[..., ::-1])).save(file, "JPEG", quality=95)
    return file.tell()


def folder_pictures(folder: Path, most: int | None = None, labels: Path | None = None) -> PictureSet:
    """The first images of a folder, with labels of objects if there are any. Raises SourceError."""
    dataset = read_images(folder, max_frames=most, labels=labels)
    assert dataset.files is not None
    paths = dataset.files.paths
    name = _named(dataset.name, [*paths, *([labels] if labels else [])])
    return PictureSet(name, paths, dataset, account=dataset.account)


def clip_pictures(file: Path, most: int | None = None) -> PictureSet:
    """The first frames of a video. Raises SourceError."""
    dataset = read_clip(file, max_frames=most)
    return PictureSet(f"{_named(dataset.name, [file])} {dataset.expected}", (file,), dataset)


def class_pictures(folder: Path, classes: Sequence[str], most: int | None = None) -> PictureSet:
    """Images of a folder that holds one folder a class, one from each before the second of any.

    A folder is named by its class's number from 0, or by its name in `classes`, which are the network's. Folders by
    ImageNet's own names, such as n01440764, must all be there: their order gives the numbers. Raises SourceError.
    """
    folders = sorted(path for path in folder.glob("*") if path.is_dir())
    if not folders:
        raise SourceError(
            f"there are no folders in {folder}; it should hold one folder of images for each class"
        )
    numbers = _numbers([path.name for path in folders], classes, folder)
    in_turns = chain.from_iterable(zip_longest(*map(list_images, folders)))
    found = [item for item in in_turns if item is not None]
    files = readable_images(folder.absolute().name, found, most=most, place=f"the folders of {folder}")
    by_folder = dict(zip(folders, numbers, strict=True))
    shown = tuple(by_folder[path.parent] for path in files.paths)
    return PictureSet(_named(files.name, files.paths), files.paths, classes=shown, account=files.account())


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
    unknown = next(name for name in names if name not in by_number and name not in by_name)
    raise SourceError(
        f"{folder} holds a folder {unknown[:80]!r}, which is neither number nor name of a class"
    )


def contents(files: Sequence[Path]) -> list[bytes]:
    """A digest of what each of the files holds."""
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "blake2b").digest())
    return digests


def _named(name: str, files: Sequence[Path]) -> str:
    digest = hashlib.blake2b(b"".join(contents(files)), digest_size=6)
    return f"{name} {len(files)} {digest.hexdigest()}"
