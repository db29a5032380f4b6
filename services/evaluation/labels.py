"""What there is to see in labeled images: a folder of YOLO's text files, or a file of COCO's.

supervision reads both, but YOLO's only beside a data.yaml, refuses a line without naming its file, and brings 900
modules, which take 1.5 s to import.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import ultralytics
from numpy.typing import NDArray
from pydantic import BaseModel, Field, FiniteFloat, ValidationError
from ultralytics.utils import YAML

from stream.detections import Detections
from stream.errors import SourceError


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """The objects of one picture, by the labels' own classes."""

    single: Detections
    crowd: Detections | None = None  # too many to label: what is found there is neither right nor wrong


def _objects(rows: Sequence[tuple[int, NDArray[np.float32]]]) -> Detections:
    return Detections(
        np.array([box for _, box in rows], np.float32).reshape(-1, 4),
        np.ones(len(rows), np.float32),
        np.array([kind for kind, _ in rows], np.int64),
    )


class YoloLabels:
    """The text files beside a folder of images, where ultralytics looks for them.

    That is the folder whose path has `labels` for the last `images`. An image without a file has no objects. The
    names of the classes are those of a `data.yaml` beside `images` or one folder up.
    """

    def __init__(self, folder: Path, classes: Mapping[int, str] | None) -> None:
        self._folder = folder
        self.classes = classes  # names by class of the labels; None if nobody says

    @classmethod
    def beside(cls, images: Path) -> Self | None:
        """The labels of a folder of images, if it has some. Raises SourceError for a data.yaml without names."""
        parts = list(images.absolute().parts)
        if "images" not in parts:
            return None
        place = len(parts) - 1 - parts[::-1].index("images")
        root = Path(*parts[:place])
        folder = root.joinpath("labels", *parts[place + 1 :])
        if not any(folder.glob("*.txt")):
            return None
        described = (path / "data.yaml" for path in (root, root.parent))
        return cls(folder, next((_names(path) for path in described if path.is_file()), None))

    def of(self, image: Path, height: int, width: int) -> Objects:
        """Rows of class, center x, center y, width, height in shares of the picture. Raises SourceError."""
        path = self._folder / f"{image.stem}.txt"
        text = path.read_text(errors="replace") if path.exists() else ""
        rows = [line.split() for line in text.splitlines() if line.strip()]
        try:
            values = np.array(rows, np.float32).reshape(len(rows), 5)
        except ValueError:
            values = np.full((1, 5), np.nan, np.float32)
        if not np.isfinite(values).all():
            raise SourceError(f"{path} does not hold rows of class, center x, center y, width, height")
        center, extent = values[:, 1:3], values[:, 3:5]
        corners = np.hstack((center - extent / 2, center + extent / 2)) * ([width, height] * 2)
        boxes = corners.astype(np.float32)
        return Objects(_objects(list(zip(values[:, 0].astype(int), boxes, strict=True))))


def _names(path: Path) -> Mapping[int, str]:
    try:
        names = YAML.load(path)["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in pairs}
    except Exception as error:  # whatever a YAML file may hold instead
        raise SourceError(f"{path} does not tell the names of classes ({type(error).__name__})") from None


class _Image(BaseModel):
    id: int
    file_name: str


class _Category(BaseModel):
    id: int
    name: str


class _Annotation(BaseModel):
    image_id: int
    category_id: int
    bbox: Annotated[
        list[FiniteFloat], Field(min_length=4, max_length=4)
    ]  # left, top, width, height in pixels
    iscrowd: bool = False


class _CocoFile(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class CocoLabels:
    """A file of COCO's instances: the objects of each image by its file's name."""

    def __init__(self, path: Path) -> None:
        """Raises SourceError."""
        try:
            file = _CocoFile.model_validate_json(path.read_bytes())
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise SourceError(f"{path} does not hold COCO's labels: {where} {first['msg']}".strip()) from None
        self._path = path
        self.classes: Mapping[int, str] = {category.id: category.name for category in file.categories}
        self._images = {Path(image.file_name).name: image.id for image in file.images}
        self._annotations: dict[int, list[_Annotation]] = {image.id: [] for image in file.images}
        for annotation in file.annotations:
            if annotation.image_id not in self._annotations or annotation.category_id not in self.classes:
                raise SourceError(
                    f"{path}: an annotation of image {annotation.image_id}, category {annotation.category_id}, "
                    "of which one is not listed"
                )
            self._annotations[annotation.image_id].append(annotation)

    def of(self, image: Path, height: int, width: int) -> Objects:
        """The objects of an image by its file's name. Raises SourceError for one that the file does not list."""
        if image.name not in self._images:
            raise SourceError(f"{self._path} does not list {image.name}; take it out of the folder")
        annotations = self._annotations[self._images[image.name]]
        return Objects(
            _objects([_row(annotation) for annotation in annotations if not annotation.iscrowd]),
            _objects([_row(annotation) for annotation in annotations if annotation.iscrowd]),
        )


def _row(annotation: _Annotation) -> tuple[int, NDArray[np.float32]]:
    left, top, width, height = annotation.bbox
    return annotation.category_id, np.array([left, top, left + width, top + height], np.float32)


class ClassMap:
    """From the classes of labels to those of a network that may know fewer, by their names.

    Where nobody names the labels' classes they are COCO's 80 if the network knows no others, as the official ones
    and the demo; else they are taken for the network's own.
    """

    def __init__(self, labels: Mapping[int, str] | None, network: Sequence[str]) -> None:
        """Raises SourceError if the two have no class in common."""
        if labels is None and set(network) <= set(coco := _coco_names()):
            labels = dict(enumerate(coco))
        self._named = labels is not None
        if labels is None:
            labels = dict(enumerate(network))
        numbers = {name: number for number, name in enumerate(network)}
        self._labels = labels
        self._numbers = {number: numbers[name] for number, name in labels.items() if name in numbers}
        if not self._numbers:
            raise SourceError(
                f"the labels know {_some(labels.values())} and the network {_some(network)}: no class in common"
            )

    def __str__(self) -> str:
        if not self._named:
            return "Nobody names the labels' classes: they are taken for the network's own."
        if len(self._numbers) == len(self._labels):
            return f"The network knows all {len(self._labels)} classes of the labels."
        return (
            f"The network knows {len(self._numbers)} of the labels' {len(self._labels)} classes; "
            "objects of the others are left out."
        )

    def translate(self, objects: Detections) -> Detections:
        """Those objects whose class the network knows, by its number there.

        Raises SourceError for a class that the labels should not have.
        """
        for kind in np.unique(objects.class_id).tolist():
            if kind not in self._labels:
                raise SourceError(
                    f"labels hold class {kind}, of 0 to {len(self._labels) - 1}; name them in a data.yaml"
                )
        keep = np.isin(objects.class_id, list(self._numbers))
        numbers = [self._numbers[kind] for kind in objects.class_id[keep].tolist()]
        return Detections(objects.boxes[keep], objects.confidence[keep], np.array(numbers, np.int64))


def _coco_names() -> list[str]:
    names: Mapping[int, str] = YAML.load(Path(ultralytics.__file__).parent / "cfg/datasets/coco.yaml")[
        "names"
    ]
    return [names[number] for number in sorted(names)]


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(name[:40] for name in names[:3]) + (", ..." if len(names) > 3 else "")
